"""PING of a Redis server by its URL, without a client library (RESP: redis.io, "Serialization protocol")."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import unquote, urlsplit

from nova_pipelines.adapters.connections import client_context, connection_failure
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, TransientError

MAX_ANSWER_BYTES = 4_096


def ping(url: str, *, seconds: float) -> None:
    """Logs in if the URL says so, and asks for a sign of life. `seconds`: for each step.

    Raises ConfigurationError, CredentialError or TransientError, without the URL: it may hold a password.
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port or 6379
    except ValueError:
        host, port = None, 0
    if parts.scheme not in ("redis", "rediss") or not host:
        raise ConfigurationError("REDIS_URL is no Redis URL", remedy="write redis://:password@host:6379/0")
    try:
        with socket.create_connection((host, port), seconds) as plain:
            plain.settimeout(seconds)
            if parts.scheme == "rediss":
                with client_context(None).wrap_socket(plain, server_hostname=host) as secured:
                    _talk(secured, parts.username, parts.password)
            else:
                _talk(plain, parts.username, parts.password)
    except OSError as error:
        raise connection_failure(error, service="Redis", host=host, port=port, seconds=seconds) from error


def _talk(connection: socket.socket | ssl.SSLSocket, user: str | None, password: str | None) -> None:
    if password:
        words = ["AUTH", *([unquote(user)] if user else []), unquote(password)]
        if not _ask(connection, *words).startswith("+OK"):
            raise CredentialError("Redis does not take the password of REDIS_URL", remedy="correct REDIS_URL")
    answer = _ask(connection, "PING")
    if answer.startswith("-NOAUTH"):
        raise CredentialError("Redis asks for a password", remedy="put it into REDIS_URL")
    if answer != "+PONG":
        raise TransientError(f"Redis answered {answer[:80]!r} to PING", remedy="look into its log")


def _ask(connection: socket.socket | ssl.SSLSocket, *words: str) -> str:
    """One command (an array of bulk strings), and the first line of its answer."""
    encoded = [word.encode() for word in words]
    connection.sendall(b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded))
    answer = b""
    while b"\r\n" not in answer and len(answer) < MAX_ANSWER_BYTES:
        piece = connection.recv(1_024)
        if not piece:
            break
        answer += piece
    return answer.partition(b"\r\n")[0].decode("utf-8", "replace")
