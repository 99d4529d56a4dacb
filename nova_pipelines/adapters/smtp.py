"""Sends one mail by SMTP, step by step, so that a failure says whether the mail may have been delivered.

Knows nothing of the outbox or of templates. The password appears in no message and no repr.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import re
import smtplib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email import errors, policy
from email.message import EmailMessage

from nova_pipelines.adapters.compose import check_address, wire_address
from nova_pipelines.adapters.connections import TlsMode, client_context, connection_failure
from nova_pipelines.adapters.mail_headers import clean_line
from nova_pipelines.adapters.sasl import TokenSource, login_with_token, provider_words, sasl_response
from nova_pipelines.domain.errors import (
    ConfigurationError,
    CredentialError,
    NovaError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)

_GOODBYE_SECONDS = 3.0
#: RFC 5321 4.5.3.2.6: a server may take its time with the whole mail; 10 minutes there, less is usual
_FINAL_REPLY_FACTOR = 3.0


@dataclass(frozen=True, slots=True)
class SmtpConfig:
    """Where mail is handed in. `timeout_seconds` bounds connecting and each wait for an answer."""

    host: str
    port: int
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    #: a login by OAuth: takes the place of the password
    tokens: TokenSource | None = field(default=None, repr=False, kw_only=True)
    tls: TlsMode = "starttls"
    ca_file: str | None = None
    timeout_seconds: float = 20.0

    @property
    def where(self) -> str:
        return f"SMTP server {self.host}:{self.port}"


def send(config: SmtpConfig, message: EmailMessage, *, sender: str, recipients: Sequence[str]) -> str:
    """Hands in one mail for all recipients or none, and returns the server's reply to it.

    Raises TransientError (network, 4xx), PermanentError (5xx, a refused recipient), CredentialError (login)
    and ConfigurationError (TLS) when the mail was certainly not accepted; OutcomeUnknown when the connection
    was lost after the content began to be sent, so that it may have been.
    """
    _check_addresses([sender, *recipients])
    sender, recipients = wire_address(sender), [wire_address(recipient) for recipient in recipients]
    content, utf8 = _flattened(message, [sender, *recipients])
    with _session(config) as server:
        with _translated(config, "take the mail"):
            _envelope(config, server, sender, recipients, size=len(content), utf8=utf8)
            code, reply = server.docmd("DATA")
        if code != 354:
            raise _refusal(config, "take the content of the mail", code, reply)
        return _hand_over(config, server, content)


def check(config: SmtpConfig) -> None:
    """Connects, logs in and asks for a sign of life. Raises the errors of `send` but OutcomeUnknown."""
    with _session(config) as server, _translated(config, "answer a NOOP"):
        code, reply = server.noop()
        if code != 250:
            raise _refusal(config, "answer a NOOP", code, reply)


# -- the mail ----------------------------------------------------------------------------------------------


def _check_addresses(addresses: Sequence[str]) -> None:
    if len(addresses) < 2:
        raise PermanentError("the mail has no recipient", remedy="check the address that is answered")
    for address in addresses:
        check_address(address)


def _flattened(message: EmailMessage, addresses: Sequence[str]) -> tuple[bytes, bool]:
    """The mail as it goes over the wire, dot-stuffed, without Bcc; and whether it needs SMTPUTF8."""
    utf8 = not all(address.isascii() for address in addresses)
    public = copy.copy(message)
    del public["Bcc"]
    try:
        # 7 bit, since whether the server takes 8 is not known before it is asked
        content = public.as_bytes(policy=policy.SMTPUTF8 if utf8 else policy.SMTP.clone(cte_type="7bit"))
    except (errors.MessageError, ValueError, LookupError) as error:
        raise PermanentError(
            f"the mail cannot be written out: {error}", remedy="check the template and its values"
        ) from error
    lines = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    stuffed = re.sub(rb"(?m)^\.", b"..", lines)
    return (stuffed if stuffed.endswith(b"\r\n") else stuffed + b"\r\n"), utf8


# -- the conversation --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _session(config: SmtpConfig) -> Iterator[smtplib.SMTP]:
    """A connection after EHLO, TLS and login."""
    server = _new_client(config)
    try:
        with _translated(config, "greet"):
            _greet(config, server)
        if config.user is not None:
            _log_in(config, server, config.user)
        yield server
    finally:
        # whatever comes after the answer that counts, the outcome is settled
        with contextlib.suppress(OSError, smtplib.SMTPException):
            if server.sock:
                server.sock.settimeout(min(_GOODBYE_SECONDS, config.timeout_seconds))
                server.quit()
        server.close()


def _new_client(config: SmtpConfig) -> smtplib.SMTP:
    name = socket.gethostname()
    # smtplib's own choice asks the DNS, without a timeout; RFC 5321 4.1.3 allows an address in its place
    hello = name if "." in name and name.isascii() else "[127.0.0.1]"
    if config.tls == "ssl":
        context = client_context(config.ca_file)
        return smtplib.SMTP_SSL(local_hostname=hello, timeout=config.timeout_seconds, context=context)
    return smtplib.SMTP(local_hostname=hello, timeout=config.timeout_seconds)


def _greet(config: SmtpConfig, server: smtplib.SMTP) -> None:
    server._host = config.host  # pyright: ignore[reportAttributeAccessIssue] # name that TLS verifies
    code, reply = server.connect(config.host, config.port)
    if code != 220:
        raise _refusal(config, "greet", code, reply)
    _hello(config, server)
    if config.tls != "starttls":
        return
    if not server.has_extn("starttls"):
        raise ConfigurationError(
            f"{config.where} offers no STARTTLS, and nothing is sent in plain text",
            remedy='use tls="ssl" with the server\'s TLS port (usually 465)',
        )
    server.starttls(context=client_context(config.ca_file))
    _hello(config, server)


def _hello(config: SmtpConfig, server: smtplib.SMTP) -> None:
    """EHLO, and HELO only for a server that does not know EHLO: one that is busy would seem to offer no STARTTLS."""
    code, reply = server.ehlo()
    if code in (500, 502):
        code, reply = server.helo()
    if code != 250:
        raise _refusal(config, "greet", code, reply)


def _log_in(config: SmtpConfig, server: smtplib.SMTP, user: str) -> None:
    if config.tokens is not None:
        login_with_token(config.tokens, lambda token: _login_by_token(config, server, user, token))
    else:
        _login_by_password(config, server, user, config.password or "")


def _login_by_password(config: SmtpConfig, server: smtplib.SMTP, user: str, password: str) -> None:
    with _translated(config, "log in"):
        try:
            if (user + password).isascii():
                server.login(user, password)
                return
            secret = base64.b64encode(f"\0{user}\0{password}".encode()).decode()  # RFC 4616: UTF-8
            code, reply = server.docmd("AUTH", f"PLAIN {secret}")
            if code == 235:
                return
        except smtplib.SMTPAuthenticationError as error:
            code, reply = error.smtp_code, error.smtp_error
        except smtplib.SMTPNotSupportedError:
            code, reply = 0, b"it offers no login on this connection"
    raise _login_refusal(
        config, user, password, code, _words(reply),
        remedy="check user, password and tls; Gmail needs an app password (16 letters, without spaces)",
    )  # fmt: skip


def _login_by_token(config: SmtpConfig, server: smtplib.SMTP, user: str, token: str) -> None:
    offered = [name for name in ("XOAUTH2", "OAUTHBEARER") if name in server.esmtp_features.get("auth", "").upper()]
    if not offered:
        raise ConfigurationError(
            f"{config.where} offers no login by OAuth (XOAUTH2) on this connection",
            remedy="check the host, and that tls is not none; or set a password",
        )
    first, last = sasl_response(offered[0], user, token, config.host, config.port)
    reason = ""
    with _translated(config, "log in"):
        # a token is longer than a command may be (RFC 4954 4): it goes on a line of its own
        code, reply = server.docmd("AUTH", offered[0])
        if code == 334:
            code, reply = server.docmd(base64.b64encode(first).decode())
        if code == 334:  # the refusal comes as a question, which is to be answered before the server says no
            with contextlib.suppress(ValueError):
                reason = provider_words(base64.b64decode(reply, validate=True))
            code, reply = server.docmd(base64.b64encode(last).decode())
    if code != 235:
        raise _login_refusal(
            config, user, token, code, f"{_words(reply)} {reason}".strip(),
            remedy="log in again: nova client credentials set SLUG email --oauth …; and check that SMTP is allowed",
        )  # fmt: skip


def _login_refusal(config: SmtpConfig, user: str, secret: str, code: int, words: str, *, remedy: str) -> NovaError:
    answer = "" if secret and secret in words else f"{code} {words}".removeprefix("0 ")
    message = f"{config.where} refused the login of {user}: {answer}"
    if 400 <= code < 500:
        return TransientError(message, remedy="it is tried again later")
    return CredentialError(message, remedy=remedy)


def _envelope(
    config: SmtpConfig, server: smtplib.SMTP, sender: str, recipients: Sequence[str], *, size: int, utf8: bool
) -> None:
    options = [f"size={size}"] if server.has_extn("size") else []
    if utf8 and not server.has_extn("smtputf8"):
        raise PermanentError(f"{config.where} takes no addresses beyond ASCII", remedy="use another address or server")
    code, reply = server.mail(sender, [*options, "SMTPUTF8", "BODY=8BITMIME"] if utf8 else options)
    if code != 250:
        raise _refusal(config, f"take mail from {sender}", code, reply)
    refused: list[NovaError] = []
    for recipient in recipients:
        code, reply = server.rcpt(recipient)
        if code not in (250, 251):
            refused.append(_refusal(config, f"take mail for {recipient}", code, reply))
    if refused:  # all or none: a part that was sent could not be told from one that was not
        permanent = [error for error in refused if isinstance(error, PermanentError)]
        raise (permanent or refused)[0]


def _hand_over(config: SmtpConfig, server: smtplib.SMTP, content: bytes) -> str:
    """From the first byte here the server may have the whole mail, until it says otherwise."""
    try:
        if server.sock:
            server.sock.settimeout(config.timeout_seconds * _FINAL_REPLY_FACTOR)
        server.send(content + b".\r\n")
        code, reply = server.getreply()
    except (OSError, smtplib.SMTPException) as error:  # SMTPException is an OSError, but says what is meant
        raise OutcomeUnknown(
            f"the connection to {config.where} was lost while it took the mail: it may have been delivered",
            remedy="look whether the mail arrived before it is sent again",
        ) from error
    if 200 <= code < 300:
        return clean_line(f"{code} {_words(reply)}", 500)
    if code < 400:
        raise OutcomeUnknown(
            f"{config.where} gave no meaningful answer to the mail: {code} {_words(reply)}",
            remedy="look whether the mail arrived before it is sent again",
        )
    raise _refusal(config, "accept the mail", code, reply)


@contextlib.contextmanager
def _translated(config: SmtpConfig, doing: str) -> Iterator[None]:
    try:
        yield
    except smtplib.SMTPResponseException as error:
        raise _refusal(config, doing, error.smtp_code, error.smtp_error) from error
    except smtplib.SMTPServerDisconnected as error:
        slow = "timed out" in str(error)  # smtplib turns a timeout into this
        raise TransientError(
            f"{config.where} did not answer within {config.timeout_seconds:g} s on the attempt to {doing}"
            if slow
            else f"{config.where} closed the connection on the attempt to {doing}",
            remedy="check host, port and tls; it is tried again",
        ) from error
    except smtplib.SMTPException as error:
        raise ConfigurationError(
            f"{config.where} cannot {doing}: {clean_line(str(error), 300)}",
            remedy="check what this server supports",
        ) from error
    except OSError as error:
        raise connection_failure(
            error, service="SMTP", host=config.host, port=config.port, seconds=config.timeout_seconds
        ) from error
    except UnicodeError as error:
        raise ConfigurationError(
            f"{config.host!r} is no valid host name", remedy="correct the mail server's host"
        ) from error


#: RFC 3463 and 4954, and what Microsoft (5.7.3, 5.7.57, 5.7.139) and Google (5.7.14) say of a login that is missing
#: or not enough; a bare 5.7.1 is a matter of policy (spam, relaying), which no password mends
_LOGIN_NEEDED = {"5.7.3", "5.7.8", "5.7.9", "5.7.11", "5.7.14", "5.7.57", "5.7.139"}
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}\b")


def _refusal(config: SmtpConfig, doing: str, code: int, reply: bytes | str) -> NovaError:
    """The code decides what passes and what does not (RFC 5321 4.2.1), the enhanced one whether a login would help."""
    words = _words(reply)
    message = f"{config.where} refused to {doing}: {code} {words}"
    enhanced = _ENHANCED.match(words)
    if code in (530, 534, 535, 538) or (code >= 500 and enhanced is not None and enhanced.group() in _LOGIN_NEEDED):
        return CredentialError(message, remedy="set user and password of the mail server, or log in again")
    if code >= 500 and enhanced is not None and enhanced.group() == "5.7.60":  # Exchange
        return CredentialError(message, remedy="allow the account to send as this address, or set --address")
    if code >= 500:
        return PermanentError(message, remedy="read the server's reason; the mail was not sent")
    return TransientError(message, remedy="it is tried again later")


def _words(reply: bytes | str) -> str:
    return clean_line(reply.decode("utf-8", "replace") if isinstance(reply, bytes) else reply, 300)
