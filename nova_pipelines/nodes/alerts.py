"""Alerts about mailboxes: what is wrong by the health of each, and who is told. Knows nothing of Dagster.

What is open and what was told stands in nova-db, so any number of processes may ask at any time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.database.alerts import Trouble, claim_notices, settle_notices, update_alerts
from nova_pipelines.database.mail_places import places
from nova_pipelines.database.mailbox_tables import Alert, AlertNotice
from nova_pipelines.database.mailbox_views import MailboxView, quarantined, view_mailboxes
from nova_pipelines.database.nova import Message
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import NovaError, OutcomeUnknown
from nova_pipelines.nodes.alert_channels import Channel, Told, channels
from nova_pipelines.nodes.services import Services
from nova_pipelines.settings import Settings

#: of the mails that were set aside so many are named
NAMED = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """When a mailbox is in trouble, and how often an open alert is recalled."""

    silent: timedelta
    backlog: timedelta
    remind: timedelta

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(
            timedelta(minutes=settings.nova_alert_silent_minutes),
            timedelta(minutes=settings.nova_alert_backlog_minutes),
            timedelta(hours=settings.nova_alert_remind_hours),
        )


@dataclass(slots=True)
class AlertReport:
    """What one evaluation found and told. `errors`: channels that did not take it, which are tried again."""

    troubles: list[Trouble] = field(default_factory=list)
    told: int = 0
    errors: list[str] = field(default_factory=list)


def evaluate_alerts(services: Services, settings: Settings, *, now: datetime) -> AlertReport:
    """Looks at every mailbox that is read, begins and ends alerts, and tells what has to be told now."""
    limits, nova = Limits.of(settings), services.databases.nova
    reachable, errors = channels(settings, services)
    with nova.read() as session:
        found = current_troubles(session, limits, now)
    with nova.session() as session:
        update_alerts(session, found, [channel.name for channel in reachable], now=now, remind=limits.remind)
    report = AlertReport(found, errors=errors)
    for channel in reachable:
        _tell(nova, channel, now, report)
    return report


def current_troubles(session: Session, limits: Limits, now: datetime) -> list[Trouble]:
    """Everything that is wrong with mailboxes now, each trouble once. One that is explained by another is left out:
    credentials that are refused make a mailbox silent as well."""
    views = view_mailboxes(session, places(session))
    refused = {view.place.credential_id: view for view in reversed(views) if view.refused}
    found = [_refused(view) for view in refused.values()]
    for view in views:
        if view.place.credential_id not in refused and view.silent_for(now) > limits.silent:
            found.append(_silent(view, now))
        if view.waits_for(now) > limits.backlog:
            found.append(_backlog(view, now))
        if view.quarantined:
            found.append(_quarantined(session, view))
    return found


def _refused(view: MailboxView) -> Trouble:
    slug = view.place.client
    return Trouble(
        f"credential:{view.place.credential_id}",
        "credential",
        slug,
        f"the mailbox of {view.place.name} cannot be read: {view.error}",
        f"set the credentials again: `nova client credentials set {slug} email …`; with changed ones it is tried at "
        "once. Mails wait on the server meanwhile, none is lost.",
    )


def _silent(view: MailboxView, now: datetime) -> Trouble:
    last = f"{view.last_success_at:%Y-%m-%d %H:%M} UTC" if view.last_success_at else "never"
    why = view.error or "nobody has tried: is NOVA's daemon running, with its sensor `mailbox_sensor`?"
    return Trouble(
        f"silent:{view.place.credential_id}:{view.place.folder}",
        "silent",
        view.place.client,
        f"the mailbox of {view.place.name} was not searched for {minutes(view.silent_for(now))}; last success: {last}. "
        f"{why}",
        "look at `nova mailbox status` and `nova doctor`. Mails wait on the server meanwhile, none is lost.",
    )


def _backlog(view: MailboxView, now: datetime) -> Trouble:
    return Trouble(
        f"backlog:{view.place.credential_id}:{view.place.folder}",
        "backlog",
        view.place.client,
        f"{view.backlog} mails of {view.place.name} wait, the oldest for {minutes(view.waits_for(now))}",
        "look at the runs in the Dagster UI, `nova executions list --status pending` and `nova doctor`.",
    )


def _quarantined(session: Session, view: MailboxView) -> Trouble:
    query = (
        select(Message)
        .where(
            quarantined(),
            Message.credential_id == view.place.credential_id,
            Message.folder == view.place.folder,
        )
        .order_by(Message.id.desc())
        .limit(NAMED)
    )
    named = "; ".join(f"{mail.id} from {mail.sender or 'nobody'}: {mail.error}" for mail in session.scalars(query))
    more = f" (the newest {NAMED} of them)" if view.quarantined > NAMED else ""
    return Trouble(
        f"quarantine:{view.place.credential_id}:{view.place.folder}",
        "quarantine",
        view.place.client,
        f"{view.quarantined} mails of {view.place.name} could not be read and were set aside{more}: {named}",
        "look at them with `nova mailbox quarantine show N`, then `nova mailbox quarantine release N`.",
    )


def minutes(span: timedelta) -> str:
    """A span of time for a reader: `17 minutes`, `3 h 05 min`, `2 days`."""
    whole = int(span.total_seconds() // 60)
    if whole < 120:
        return f"{whole} minutes"
    return f"{whole // 60} h {whole % 60:02} min" if whole < 2880 else f"{whole // 1440} days"


def _tell(nova: Database, channel: Channel, now: datetime, report: AlertReport) -> None:
    """Everything that waits for a channel in one message, however much it is: no storm of alerts."""
    with nova.session() as session:
        claimed = claim_notices(session, channel.name, now=now)
        told = [_told(notice, alert) for notice, alert in claimed]
    if not claimed:
        return
    error = _send(channel, told, now)
    with nova.session() as session:
        settle_notices(session, [notice for notice, _ in claimed], now=now, error=error)
    if error is None:
        report.told += len(told)
    else:
        report.errors.append(f"alerts cannot be delivered by {channel.name}: {error}")


def _send(channel: Channel, told: Sequence[Told], now: datetime) -> str | None:
    try:
        channel.send(told, now)
    except OutcomeUnknown:
        return None  # it may have come: told twice would be worse than this, and a reminder follows
    except NovaError as error:
        return str(error)
    return None


def _told(notice: AlertNotice, alert: Alert) -> Told:
    return Told(
        event=notice.event,
        number=notice.number,
        id=alert.id,
        kind=alert.kind,
        client=alert.client,
        message=alert.message,
        remedy=alert.remedy,
        began_at=alert.began_at,
        ended_at=alert.ended_at,
    )
