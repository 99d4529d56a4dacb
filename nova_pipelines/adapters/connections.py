"""What every network adapter shares: verified TLS and errors that say which server, what and what to do.

Knows nothing of IMAP or SMTP, and never sees a password.
"""

from __future__ import annotations

import socket
import ssl
from typing import Literal

from nova_pipelines.domain.errors import ConfigurationError, NovaError, TransientError

#: "ssl": TLS from the first byte; "starttls": TLS or nothing after a plain greeting; "none": plain text
TlsMode = Literal["ssl", "starttls", "none"]


def client_context(ca_file: str | None) -> ssl.SSLContext:
    """A context that verifies certificate and host name, against `ca_file` or the system's authorities.

    Raises ConfigurationError when the file cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one: the file is there, but holds no certificate
        raise ConfigurationError(
            f"the certificate file {ca_file} cannot be used: {error.strerror or error}",
            remedy="ca_file must be a readable PEM file with the server's certificate or its authority",
        ) from error


def connection_failure(error: OSError, *, service: str, host: str, port: int, seconds: float) -> NovaError:
    """Turns an error of the socket or of TLS into one that a user can act on.

    All are transient but a certificate that cannot be verified: waiting does not mend that one.
    """
    where = f"{service} server {host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return ConfigurationError(
            f"the certificate of {where} cannot be verified: {error.verify_message}",
            remedy="set ca_file to the certificate of the server's authority, and host to the name in it",
        )
    if isinstance(error, ssl.SSLError):
        return TransientError(
            f"no TLS connection to {where}: {error.reason or error}",
            remedy='check the port and tls: "ssl" is for ports 993 and 465, "starttls" for 143 and 587',
        )
    if isinstance(error, socket.gaierror):
        return TransientError(
            f"{where}: the name {host!r} cannot be resolved ({error.strerror})",
            remedy="check the host's spelling and this machine's DNS",
        )
    if isinstance(error, TimeoutError):
        return TransientError(
            f"{where} did not answer within {seconds:g} s",
            remedy="check host, port and firewall; raise timeout_seconds for a slow server",
        )
    if isinstance(error, ConnectionRefusedError):
        return TransientError(
            f"{where} refused the connection",
            remedy="check host and port, and that the server is running",
        )
    return TransientError(
        f"the connection to {where} broke: {error.strerror or error}",
        remedy="check the network between this machine and the server",
    )
