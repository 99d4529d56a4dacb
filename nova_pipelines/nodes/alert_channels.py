"""How alerts reach people: a mail, or a signed call of a webhook. Each sends what it is given in one message."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from urllib.parse import parse_qs, unquote, urlsplit

from nova_pipelines.adapters.smtp import SmtpConfig, send
from nova_pipelines.adapters.webhook import WebhookConfig, post
from nova_pipelines.database.clients import find_client
from nova_pipelines.domain.errors import ConfigurationError, NovaError
from nova_pipelines.nodes.services import Services, client_view
from nova_pipelines.settings import Settings, split_list

WORDS = {"begin": "", "reminder": "still: ", "end": "over: "}
TLS = {"smtp": "starttls", "smtps": "ssl"}
#: seconds that a mail server or a receiver may take: a tick of the sensor has sixty
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Told:
    """One thing to tell: an alert that begins, goes on or is over."""

    event: str
    number: int
    id: int
    kind: str
    client: str
    message: str
    remedy: str
    began_at: datetime
    ended_at: datetime | None

    @property
    def name(self) -> str:
        """The same for each try to tell it, and for nothing else."""
        return f"{self.id}-{self.event}-{self.number}"


@dataclass(frozen=True, slots=True)
class Channel:
    """A way to people. `send` raises NovaError when it did not take the message."""

    name: str
    send: Callable[[Sequence[Told], datetime], None]


def channels(settings: Settings, services: Services) -> tuple[list[Channel], list[str]]:
    """The channels of the settings, and why one that is set cannot be used."""
    found: list[Channel] = []
    errors: list[str] = []
    recipients = split_list(settings.nova_alert_mail_to)
    if recipients:
        # always there, so that alerts are kept for it: what is wrong with its account is said at each attempt
        found.append(Channel("mail", lambda told, now: _mail(*_account(settings, services), recipients, told, now)))
        try:
            _account(settings, services)
        except NovaError as error:
            errors.append(f"alerts cannot be sent by mail: {error}")
    if settings.nova_alert_webhook_url:
        secret = settings.nova_alert_webhook_secret
        webhook = WebhookConfig(
            settings.nova_alert_webhook_url.get_secret_value(),
            secret.get_secret_value() if secret else None,
            seconds=SECONDS,
        )
        found.append(Channel("webhook", lambda told, now: _post(webhook, told, now)))
    return found, errors


def _account(settings: Settings, services: Services) -> tuple[SmtpConfig, str]:
    """How alerts are sent, and from which address. Raises NovaError if they cannot be."""
    if settings.nova_alert_smtp_url:
        return smtp_account(settings.nova_alert_smtp_url.get_secret_value())
    with services.databases.nova.read() as session:
        client = client_view(find_client(session, settings.nova_alert_smtp_client or ""))
    return services.smtp(client)


def smtp_account(url: str) -> tuple[SmtpConfig, str]:
    """`smtp[s]://user:password@host:port?from=address&tls=none&ca_file=…` as an account and a sender's address.

    Raises ConfigurationError, without the URL: it holds a password.
    """
    parts = urlsplit(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    user = unquote(parts.username) if parts.username else None
    tls = query.get("tls", TLS[parts.scheme])
    sender = query.get("from") or user or ""
    if "@" not in sender or tls not in ("none", "starttls", "ssl") or not parts.hostname:
        raise ConfigurationError(
            "NOVA_ALERT_SMTP_URL names no sender, or a way of tls that there is not",
            remedy="write smtp://user:password@host:587?from=nova@example.com, if need be with &tls=none",
        )
    config = SmtpConfig(
        host=parts.hostname,
        port=parts.port or (465 if parts.scheme == "smtps" else 587),
        user=user,
        password=unquote(parts.password or "") if user else None,
        tls=tls,  # type: ignore[arg-type]
        ca_file=query.get("ca_file"),
        timeout_seconds=SECONDS,
    )
    return config, sender


def _mail(config: SmtpConfig, sender: str, recipients: Sequence[str], told: Sequence[Told], now: datetime) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, ", ".join(recipients), subject(told)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<nova-alert-{delivery(told)}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's answering machine writes back
    mail.set_content(body(told))
    send(config, mail, sender=sender, recipients=recipients)


def subject(told: Sequence[Told]) -> str:
    """What happened, in one line without a line end."""
    first = f"{WORDS[told[0].event]}{told[0].kind}, {told[0].client}"
    return "NOVA: " + (first if len(told) == 1 else f"{len(told)} alerts ({first}, …)")


def body(told: Sequence[Told]) -> str:
    texts = "\n\n".join(_text(one) for one in told)
    return f"{texts}\n\n-- \nThis is an automatic message of NOVA.\n"


def _text(one: Told) -> str:
    since = f"It began at {one.began_at:%Y-%m-%d %H:%M} UTC (alert {one.id})"
    if one.ended_at is not None:
        since += f" and was over at {one.ended_at:%Y-%m-%d %H:%M} UTC"
    remedy = "" if one.event == "end" else f"What to do: {one.remedy}\n"
    return f"{WORDS[one.event]}{one.message}\n{remedy}{since}."


def _post(config: WebhookConfig, told: Sequence[Told], now: datetime) -> None:
    data = {"source": "nova", "sent_at": now.isoformat(), "alerts": [_fields(one) for one in told]}
    post(config, data, moment=int(now.timestamp()), delivery=delivery(told))


def _fields(one: Told) -> dict[str, object]:
    return {
        "id": one.id,
        "event": one.event,
        "number": one.number,
        "kind": one.kind,
        "client": one.client,
        "message": one.message,
        "remedy": one.remedy,
        "began_at": one.began_at.isoformat(),
        "ended_at": one.ended_at.isoformat() if one.ended_at else None,
    }


def delivery(told: Sequence[Told]) -> str:
    """A name for what is told together, the same when it is tried again."""
    return hashlib.sha256(" ".join(one.name for one in told).encode()).hexdigest()[:32]
