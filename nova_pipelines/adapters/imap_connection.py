"""One logged-in IMAP connection and the meaning of its failures.

Owns TLS, login and the translation of imaplib's and imap-tools' errors; what is asked of the server is
`imap.py`'s matter. The password appears in no message and no repr.
"""

from __future__ import annotations

import contextlib
import imaplib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from imap_tools import BaseMailBox
from imap_tools.errors import UnexpectedCommandStatusError

from nova_pipelines.adapters.connections import TlsMode, client_context, connection_failure
from nova_pipelines.adapters.mail_headers import clean_line
from nova_pipelines.adapters.sasl import TokenSource, login_with_token, provider_words, sasl_response
from nova_pipelines.domain.errors import (
    ConfigurationError,
    CredentialError,
    NovaError,
    PermanentError,
    TransientError,
)

#: response codes of RFC 5530 that pass by themselves, and what Gmail says with a bare [ALERT]
#: or Microsoft when a session outlives its token: a new login mends it
_PASSING = re.compile(
    r"\[(?:UNAVAILABLE|INUSE|LIMIT|SERVERBUG|THROTTLED)\b|too many|try again"
    r"|AccessTokenExpired|session invalidated|authenticated but not connected",
    re.IGNORECASE,
)
_GOODBYE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class MailboxConfig:
    """Where a mailbox is. `timeout_seconds` bounds connecting and each wait for an answer."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    #: a login by OAuth: takes the place of the password
    tokens: TokenSource | None = field(default=None, repr=False, kw_only=True)
    tls: TlsMode = "ssl"
    ca_file: str | None = None
    timeout_seconds: float = 20.0

    @property
    def where(self) -> str:
        return f"IMAP server {self.host}:{self.port}"


class Connection(BaseMailBox):
    """imap-tools' mailbox with verified TLS in all modes and a timeout always (traps 1 and 2)."""

    def __init__(self, config: MailboxConfig) -> None:
        self.config = config
        super().__init__()

    def _get_mailbox_client(self) -> imaplib.IMAP4:
        host, port, seconds = self.config.host, self.config.port, self.config.timeout_seconds
        if self.config.tls == "none":
            return imaplib.IMAP4(host, port, seconds)
        context = client_context(self.config.ca_file)
        if self.config.tls == "ssl":
            return imaplib.IMAP4_SSL(host, port, ssl_context=context, timeout=seconds)
        client = imaplib.IMAP4(host, port, seconds)
        try:
            if "STARTTLS" not in client.capabilities:
                raise ConfigurationError(
                    f"{self.config.where} offers no STARTTLS, and the password is not sent in plain text",
                    remedy='use tls="ssl" with the server\'s TLS port (usually 993)',
                )
            client.starttls(context)
        except BaseException:
            close_socket(client)
            raise
        return client


def connect(config: MailboxConfig) -> Connection:
    """Connects and logs in; the capabilities are then those of the logged-in user (trap 3).

    Raises TransientError (network), CredentialError (login refused), ConfigurationError (TLS, host name).
    """
    _check(config)
    with translated(config, "connect"):
        connection = Connection(config)
    try:
        _login(connection)
        with translated(config, "ask for the capabilities"):
            _, data = connection.client.capability()
        connection.client.capabilities = tuple(data[-1].decode("ascii", "replace").upper().split())
    except BaseException:
        close_socket(connection.client)
        raise
    return connection


def disconnect(connection: Connection) -> None:
    """Says goodbye and closes the socket, within 3 seconds and without raising: the work is done by now."""
    client = connection.client
    with contextlib.suppress(OSError, imaplib.IMAP4.error):
        client.sock.settimeout(min(_GOODBYE_SECONDS, connection.config.timeout_seconds))
        client.logout()
    close_socket(client)


def close_socket(client: imaplib.IMAP4) -> None:
    with contextlib.suppress(OSError):  # closed already, by the server or by us
        client.shutdown()


@contextlib.contextmanager
def translated(config: MailboxConfig, doing: str) -> Iterator[None]:
    """Turns the errors of a conversation into ours. `doing`: what was tried, for the message."""
    try:
        yield
    except OSError as error:
        raise connection_failure(
            error, service="IMAP", host=config.host, port=config.port, seconds=config.timeout_seconds
        ) from error
    except imaplib.IMAP4.abort as error:
        raise TransientError(
            f"{config.where} broke the connection on the attempt to {doing}: {clean_line(str(error), 300)}",
            remedy="it is tried again; if it stays so, check the server's limits and log",
        ) from error
    except (imaplib.IMAP4.error, UnexpectedCommandStatusError) as error:
        raise refusal(config, doing, server_text(error)) from error
    except UnicodeError as error:
        raise ConfigurationError(
            f"{config.host!r} is no valid host name", remedy="correct the mailbox's host"
        ) from error
    except (ValueError, OverflowError) as error:
        raise TransientError(
            f"{config.where} gave an answer that is not IMAP on the attempt to {doing}",
            remedy="check that host and port are those of an IMAP server",
        ) from error


def refusal(config: MailboxConfig, doing: str, answer: str) -> NovaError:
    """The error for a NO or BAD of the server."""
    message = f"{config.where} refused to {doing}: {answer}"
    if _PASSING.search(answer):
        return TransientError(message, remedy="it is tried again later")
    return PermanentError(message, remedy="check the rights of the mailbox's user on the server")


def server_text(error: Exception) -> str:
    """The server's own words as one line."""
    if not isinstance(error, UnexpectedCommandStatusError):
        return clean_line(str(error), 300)
    data = error.command_result[1] or []
    words = [part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in data if part]
    return clean_line(" ".join(words), 300)


def _check(config: MailboxConfig) -> None:
    if any(ord(c) < 32 or ord(c) == 127 for c in config.user + config.password):  # would end the command
        raise CredentialError(
            f"user or password for {config.where} contains a control character (a line break?)",
            remedy="set the mailbox's credentials again",
        )


def _login(connection: Connection) -> None:
    config = connection.config
    if config.tokens is not None:
        login_with_token(config.tokens, lambda token: _authenticate(connection, token))
        return
    plain = (config.user + config.password).isascii()
    login = connection.login if plain else connection.login_utf8
    with translated(config, "log in"):
        try:
            login(config.user, config.password, initial_folder=None)
        except imaplib.IMAP4.abort:
            raise
        except (imaplib.IMAP4.error, UnexpectedCommandStatusError) as error:
            answer = server_text(error)
        else:
            return
    raise _login_refusal(config, "" if config.password in answer else answer)


def _authenticate(connection: Connection, token: str) -> None:
    """Logs in by a token. Raises CredentialError with what the server says of it, TransientError."""
    config, client = connection.config, connection.client
    offered = [name for name in ("XOAUTH2", "OAUTHBEARER") if f"AUTH={name}" in client.capabilities]
    if not offered:
        raise ConfigurationError(
            f"{config.where} offers no login by OAuth (XOAUTH2) on this connection",
            remedy="check the host, and that tls is not none; or set a password",
        )
    first, last = sasl_response(offered[0], config.user, token, config.host, config.port)
    challenges: list[bytes] = []

    def respond(challenge: bytes) -> bytes:
        challenges.append(challenge)
        return first if len(challenges) == 1 else last

    with translated(config, "log in"):
        try:
            connection.login_result = client.authenticate(offered[0], respond)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            answer = server_text(error)
        else:
            return
    reason = provider_words(challenges[-1]) if len(challenges) > 1 else ""
    raise _login_refusal(config, "" if token in answer else f"{answer} {reason}".strip())


def _login_refusal(config: MailboxConfig, answer: str) -> NovaError:
    message = f"{config.where} refused the login of {config.user}: {answer}".rstrip(" :")
    if _PASSING.search(answer):
        return TransientError(message, remedy="it is tried again later")
    if "PRIVACYREQUIRED" in answer.upper():
        return ConfigurationError(message, remedy='set tls to "ssl" or "starttls"')
    return CredentialError(
        message,
        remedy="log in again: nova client credentials set SLUG email --oauth …; and check that IMAP is allowed"
        if config.tokens is not None
        else "check user and password; Gmail needs an app password (16 letters, without spaces)",
    )
