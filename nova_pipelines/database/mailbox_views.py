"""The health of every mailbox in one look: last success, what waits and for how long, what was set aside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nova_pipelines.database.mail_events import MailboxEvent
from nova_pipelines.database.mail_places import Place
from nova_pipelines.database.mailbox_tables import MailboxState
from nova_pipelines.database.nova import Client, Credential, Execution, Message

#: of so many executions that were completed last, the time since their mail arrived counts
LAST_COMPLETED = 200
#: and they are looked for among so many of the newest: most of the others may be of no mail
LOOKED_AT = 5_000

Key = tuple[int, str]  # credential, folder


@dataclass(frozen=True, slots=True)
class MailboxView:
    """One folder of one mailbox. Mails that wait: on the server and not in the ledger; in the ledger and not read
    (`seen`); read and without an execution (`stored`); in executions that are not through (`in_work`)."""

    place: Place
    last_success_at: datetime | None
    last_attempt_at: datetime | None
    error_kind: str | None
    error: str | None
    failing_since: datetime | None
    failures: int
    next_attempt_at: datetime | None
    on_server: int
    seen: int
    stored: int
    in_work: int
    #: when the ledger got the oldest mail that waits
    oldest_at: datetime | None
    quarantined: int
    #: seconds from arrival to the end of the execution, the middle one of the last
    lag_seconds: float | None

    @property
    def backlog(self) -> int:
        return self.on_server + self.seen + self.stored + self.in_work

    @property
    def refused(self) -> bool:
        """The server does not take these credentials (or this installation cannot open them)."""
        return self.error_kind == "credential"

    def silent_for(self, now: datetime) -> timedelta:
        """How long ago a search succeeded; where none ever did: since there was something to search."""
        last = max(self.last_success_at, self.place.since) if self.last_success_at else self.place.since
        return max(now - last, timedelta(0))

    def waits_for(self, now: datetime) -> timedelta:
        """Age of the oldest mail of the ledger that waits."""
        return max(now - self.oldest_at, timedelta(0)) if self.oldest_at else timedelta(0)


def view_mailboxes(session: Session, at: Iterable[Place]) -> list[MailboxView]:
    """The health of these places, in their order."""
    states = {(state.credential_id, state.folder): state for state in session.scalars(select(MailboxState))}
    waiting, oldest = _waiting(session)
    aside, lags = _quarantined(session), _lags(session)
    return [
        _view(place, states.get(key), waiting[key], oldest.get(key), aside.get(key, 0), lags.get(key))
        for place in at
        if (key := (place.credential_id, place.folder))
    ]


def _view(
    place: Place,
    state: MailboxState | None,
    waiting: dict[str, int],
    oldest_at: datetime | None,
    quarantined: int,
    lag_seconds: float | None,
) -> MailboxView:
    return MailboxView(
        place=place,
        last_success_at=state.last_success_at if state else None,
        last_attempt_at=state.last_attempt_at if state else None,
        error_kind=state.error_kind if state else None,
        error=state.error if state else None,
        failing_since=state.failing_since if state else None,
        failures=state.failures if state else 0,
        next_attempt_at=state.next_attempt_at if state else None,
        on_server=state.waiting if state else 0,
        seen=waiting.get("seen", 0),
        stored=waiting.get("stored", 0),
        in_work=waiting.get("in_work", 0),
        oldest_at=oldest_at,
        quarantined=quarantined,
        lag_seconds=lag_seconds,
    )


def _waiting(session: Session) -> tuple[defaultdict[Key, dict[str, int]], dict[Key, datetime]]:
    """Numbers of mails that wait, by place and state, and the time of the oldest one of each place."""
    place = (Message.credential_id, Message.folder)
    taken_in = (
        select(*place, Message.status, func.count(), func.min(Message.created_at))
        .where(Message.status.in_(["seen", "stored"]))
        .group_by(*place, Message.status)
    )
    in_work = (
        select(*place, func.count(Message.id.distinct()), func.min(Message.created_at))
        .join(Execution, Execution.message_id == Message.id)
        .where(Execution.status.in_(["pending", "running"]))
        .group_by(*place)
    )
    rows: list[Any] = [*session.execute(taken_in)]
    rows += [(number, folder, "in_work", *rest) for number, folder, *rest in session.execute(in_work)]
    counts: defaultdict[Key, dict[str, int]] = defaultdict(dict)
    oldest: dict[Key, datetime] = {}
    for number, folder, state, count, since in rows:
        key = (number, folder)
        counts[key][state] = count
        oldest[key] = min(oldest.get(key, since), since)
    return counts, oldest


def list_events(session: Session, *, client_id: int | None = None, limit: int) -> list[tuple[MailboxEvent, str]]:
    """What happened to mailboxes, each with its client's slug, newest first. `client_id`: only those of this client."""
    query = (
        select(MailboxEvent, Client.slug)
        .join(Credential, Credential.id == MailboxEvent.credential_id)
        .join(Client, Client.id == Credential.client_id)
        .order_by(MailboxEvent.id.desc())
        .limit(limit)
    )
    if client_id is not None:
        query = query.where(Client.id == client_id)
    return [(event, slug) for event, slug in session.execute(query)]


def quarantined() -> Any:
    """Of a message: set aside, and nobody has settled it yet."""
    return (Message.status == "quarantined") & Message.handled_at.is_(None)


def _quarantined(session: Session) -> dict[Key, int]:
    place = (Message.credential_id, Message.folder)
    query = select(*place, func.count()).where(quarantined()).group_by(*place)
    return {(number, folder): count for number, folder, count in session.execute(query)}


def _lags(session: Session) -> dict[Key, float]:
    """Place → seconds from arrival to the end of the work. Of one query, whatever the number of mailboxes."""
    newest = session.scalar(select(func.max(Execution.id))) or 0
    query = (
        select(Message.credential_id, Message.folder, Message.received_at, Message.created_at, Execution.completed_at)
        .join(Message, Message.id == Execution.message_id)
        .where(Execution.status == "completed", Execution.completed_at.is_not(None), Execution.id > newest - LOOKED_AT)
        .order_by(Execution.id.desc())
        .limit(LAST_COMPLETED)
    )
    seconds: defaultdict[Key, list[float]] = defaultdict(list)
    rows: list[Any] = [*session.execute(query)]
    for number, folder, received_at, created_at, completed_at in rows:
        # a mail of a backfill arrived long before NOVA was to read it
        begun = received_at if received_at and created_at - received_at < timedelta(days=1) else created_at
        seconds[number, folder].append(max(0.0, (completed_at - begun).total_seconds()))
    return {key: round(median(values), 3) for key, values in seconds.items()}
