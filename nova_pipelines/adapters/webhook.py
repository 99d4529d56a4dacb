"""Posts JSON to an address that a person has set: one try, bounded in time and size, no redirect followed.

The body is signed (HMAC-SHA256) with a time in it, so that the receiver can tell forged and repeated calls. The address
may hold a token: messages name its host only.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from nova_pipelines.adapters.connections import client_context, connection_failure
from nova_pipelines.adapters.targets import Connect
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, NovaError, PermanentError, TransientError

SIGNATURE, DELIVERY = "X-Nova-Signature", "X-Nova-Delivery"
#: of an answer at most so much is read, for the message about a refusal
MAX_ANSWER_BYTES = 2_048
MAX_BODY_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Where to post. `seconds` bounds the whole call once the host's name is resolved."""

    url: str = field(repr=False)
    secret: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    seconds: float = 10.0
    #: how to connect (targets.connect_public); None: to whatever the name leads to
    connect: Connect | None = None
    #: who set it, for remedies
    setting: str = "NOVA_ALERT_WEBHOOK_URL"

    @property
    def where(self) -> str:
        parts = urlsplit(self.url)
        return f"the webhook at {parts.hostname}:{self.port}"

    @property
    def port(self) -> int:
        parts = urlsplit(self.url)
        return parts.port or (443 if parts.scheme == "https" else 80)


def sign(secret: str, moment: int, body: bytes) -> str:
    """The value of the signature's header: `t=<epoch seconds>,v1=<hex HMAC-SHA256 of "t.body">`."""
    digest = hmac.new(secret.encode(), b"%d." % moment + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def post(
    config: WebhookConfig,
    data: Mapping[str, Any],
    *,
    moment: int,
    delivery: str,
    headers: Mapping[str, str] | None = None,
) -> int:
    """Posts `data` as JSON; returns the status (2xx). `delivery` names what is told, the same for each try.

    Raises TransientError (network, time, 5xx, 408, 429), CredentialError (401, 403), PermanentError (other answers,
    redirects) and ConfigurationError (address, certificate).
    """
    parts = urlsplit(config.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigurationError("the webhook's address is no http or https URL", remedy=f"set {config.setting}")
    body = json.dumps(data, ensure_ascii=False).encode()
    if len(body) > MAX_BODY_BYTES:
        raise PermanentError(f"{config.where}: the body has {len(body)} bytes", remedy="this is unexpected: report it")
    own = {"Content-Type": "application/json", "User-Agent": "nova-pipelines", DELIVERY: delivery, **(headers or {})}
    if config.secret:
        own[SIGNATURE] = sign(config.secret, moment, body)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    with _connection(config, parts.scheme, parts.hostname) as connection:
        connection.request("POST", path, body=body, headers=own)
        with connection.getresponse() as answer:
            words = answer.read(MAX_ANSWER_BYTES).decode("utf-8", "replace")
    if 200 <= answer.status < 300:
        return answer.status
    raise _refusal(config, answer.status, words)


@contextlib.contextmanager
def _connection(config: WebhookConfig, scheme: str, host: str) -> Iterator[http.client.HTTPConnection]:
    """An open connection that is cut when the time is over: a server that trickles its answer gains nothing."""
    if scheme == "https":
        context = client_context(config.ca_file)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, config.port, timeout=config.seconds, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, config.port, timeout=config.seconds)
    if config.connect is not None:
        # where http.client itself keeps what connects, for tunnels and tests; TLS still checks the host's name
        connection._create_connection = config.connect  # pyright: ignore[reportAttributeAccessIssue]
    over = threading.Event()
    watchdog = threading.Timer(config.seconds, _cut, (connection, over))
    watchdog.daemon = True
    try:
        connection.connect()
        watchdog.start()
        yield connection
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _failure(config, host, error, over.is_set()) from error
    finally:
        watchdog.cancel()
        connection.close()


def _cut(connection: http.client.HTTPConnection, over: threading.Event) -> None:
    over.set()
    sock: socket.socket | None = connection.sock
    if sock is not None:
        with contextlib.suppress(OSError):  # closed just now
            sock.shutdown(socket.SHUT_RDWR)


def _failure(config: WebhookConfig, host: str, error: Exception, late: bool) -> NovaError:
    if late:
        error = TimeoutError()
    if isinstance(error, http.client.RemoteDisconnected):
        message = f"{config.where} closed the connection without an answer"
        return TransientError(message, remedy="it is tried again later; if it stays so, look at the receiver's log")
    if isinstance(error, OSError) and not isinstance(error, (http.client.HTTPException, UnicodeError)):
        failure = connection_failure(error, service="webhook", host=host, port=config.port, seconds=config.seconds)
        if isinstance(error, (ssl.SSLError, TimeoutError)):
            # the remedies there are about mail servers
            return type(failure)(failure.message, remedy=f"check {config.setting} and the receiver's certificate")
        return failure
    return TransientError(f"{config.where} gave an answer that is not HTTP", remedy=f"check {config.setting}")


def _refusal(config: WebhookConfig, status: int, words: str) -> NovaError:
    line = " ".join("".join(c if c.isprintable() else " " for c in words).split())[:200]
    message = f"{config.where} answered {status}{f': {line}' if line else ''}"
    if 300 <= status < 400:
        return PermanentError(message, remedy="redirects are not followed: set the final address")
    if status in (401, 403):
        return CredentialError(message, remedy=f"check {config.setting} and the key of its signature")
    if status >= 500 or status in (408, 429):
        return TransientError(message, remedy="it is tried again later")
    return PermanentError(message, remedy=f"check {config.setting} and what the receiver expects")
