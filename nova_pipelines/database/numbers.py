"""What is counted of NOVA at one moment, by few queries that live on indexes: the numbers behind `/metrics`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from nova_pipelines.database.breaker import BreakerView, breaker_view
from nova_pipelines.database.executions import STATUSES
from nova_pipelines.database.mail_places import places
from nova_pipelines.database.mailbox_views import MailboxView, view_mailboxes
from nova_pipelines.database.nova import Alert, Execution, SandboxRow, WebhookDelivery, Workflow
from nova_pipelines.database.outbox import count_mails

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
#: where an execution that is not through stands
QUEUE = ("waiting", "put_off", "requested", "running")


@dataclass(frozen=True, slots=True)
class Numbers:
    """`day` and `hour`: executions that were made since, by status. `queue`: those that are not through, by where
    they stand. `oldest_seconds`: how long the oldest one has waited that nothing has put off."""

    at: datetime
    day: dict[str, int]
    hour: dict[str, int]
    queue: dict[str, int]
    oldest_seconds: float
    workflows: int
    active_workflows: int
    outbox: dict[str, int]
    #: open ones, by kind
    alerts: dict[str, int]
    webhooks: dict[str, int]
    sandboxes: int
    breaker: BreakerView
    mailboxes: list[MailboxView] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution that has ended: seconds since it was made, and since its work began."""

    status: str
    seconds: float
    worked: float | None


def read_numbers(session: Session, *, now: datetime, breaker: str, threshold: int, seconds: float) -> Numbers:
    """All of them, in one snapshot. `breaker`: its name, with its threshold and the seconds it stays open."""
    queue, oldest = _queue(session, now)
    day, hour = _since(session, now - DAY, now - HOUR)
    active = func.count().filter(Workflow.is_active)
    workflows, live = session.execute(select(func.count(), active).select_from(Workflow)).one()
    return Numbers(
        at=now,
        day=day,
        hour=hour,
        queue=queue,
        oldest_seconds=oldest,
        workflows=workflows,
        active_workflows=live,
        outbox=count_mails(session),
        alerts=_grouped(session, select(Alert.kind, func.count()).where(Alert.ended_at.is_(None)).group_by(Alert.kind)),
        webhooks=_grouped(session, select(WebhookDelivery.status, func.count()).group_by(WebhookDelivery.status)),
        sandboxes=session.scalar(select(func.count()).where(SandboxRow.ended_at.is_(None))) or 0,
        breaker=breaker_view(session, breaker, threshold=threshold, seconds=seconds),
        mailboxes=view_mailboxes(session, places(session)),
    )


def _grouped(session: Session, query: Select[str, int]) -> dict[str, int]:
    return {row[0]: row[1] for row in session.execute(query)}


def _since(session: Session, day: datetime, hour: datetime) -> tuple[dict[str, int], dict[str, int]]:
    """Executions made since each of the two, by status: from the index on both columns alone, in one walk."""
    query = (
        select(Execution.status, func.count(), func.count().filter(Execution.created_at >= hour))
        .where(Execution.created_at >= day)
        .group_by(Execution.status)
    )
    found = {row[0]: (row[1], row[2]) for row in session.execute(query)}
    none = (0, 0)
    return {name: found.get(name, none)[0] for name in STATUSES}, {name: found.get(name, none)[1] for name in STATUSES}


def _queue(session: Session, now: datetime) -> tuple[dict[str, int], float]:
    place = case(
        (Execution.status == "running", "running"),
        (Execution.run_id.is_not(None), "requested"),
        (Execution.waits_until > now, "put_off"),
        else_="waiting",
    )
    query = (
        select(place, func.count(), func.min(Execution.created_at))
        .where(Execution.status.in_(["pending", "running"]))
        .group_by(place)
    )
    rows = {row[0]: (row[1], row[2]) for row in session.execute(query)}
    counts = {name: rows[name][0] if name in rows else 0 for name in QUEUE}
    oldest = min((rows[name][1] for name in ("waiting", "requested") if name in rows), default=now)
    return counts, max(0.0, (now - oldest).total_seconds())


def ended_between(
    session: Session, after: datetime, until: datetime, *, limit: int
) -> Sequence[tuple[datetime, Ended]]:
    """The executions that ended in this time, the first ones first, with when they did."""
    query = (
        select(Execution.status, Execution.created_at, Execution.started_at, Execution.completed_at)
        .where(Execution.completed_at > after, Execution.completed_at <= until)
        .order_by(Execution.completed_at)
        .limit(limit)
    )
    found: list[tuple[datetime, Ended]] = []
    for status, created, started, completed in session.execute(query):
        if completed is not None:
            worked = (completed - started).total_seconds() if started else None
            found.append((completed, Ended(status, max(0.0, (completed - created).total_seconds()), worked)))
    return found
