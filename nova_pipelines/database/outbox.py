"""The outbox: which mail may be sent now, what came of it, and what a person decides where nobody else can.

Knows nothing of SMTP. A row in `sending` that nobody works on means that a crash hides whether the mail went out.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import Select, func, select, text
from sqlalchemy.orm import Session, selectinload

from nova_pipelines.database.executions import release
from nova_pipelines.database.nova import Client, Execution, OutboxDecision, OutboxMail
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict, NotFound

Decision = Literal["sent", "resend", "drop"]
STATUSES = ("pending", "sending", "sent", "unknown", "held", "failed", "dropped")
#: nothing more is done about these by anybody
DONE = ("sent", "dropped")
#: only a person leads out of these; and what is tried for so long is shown to one
ASKING = ("unknown", "held")
STUCK_AFTER = timedelta(hours=2)
#: seconds between two tries at most
LONGEST_WAIT = 3_600.0
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limit:
    """How many answers one address gets in a time."""

    answers: int
    within: timedelta
    word: str


@dataclass(frozen=True, slots=True)
class Begun:
    """`send`: this caller sends, and nobody else. Else why not: `sent`, `dropped`, `unknown` or `held`."""

    state: Literal["send", "sent", "dropped", "unknown", "held"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """A mail with the names of what it belongs to."""

    mail: OutboxMail
    execution: Execution
    client: str | None


def begin(session: Session, mail_id: int, limits: Sequence[Limit] = ()) -> Begun:
    """Takes a mail for sending. A crash after this leaves it in `sending`, and the next call says `unknown`."""
    row = session.get_one(OutboxMail, mail_id, with_for_update=True)
    if row.status in ("sending", "unknown"):
        row.status = "unknown"
        return Begun("unknown")
    if row.status in DONE:
        return Begun("sent" if row.status == "sent" else "dropped", _said(row))
    if reason := _too_many(session, row, limits):
        row.status, row.error = "held", reason
        return Begun("held", reason)
    now = utc_now()
    row.tried_since = now if row.tried_since is None or row.status in ("failed", "held") else row.tried_since
    row.status, row.attempts, row.begun_at = "sending", row.attempts + 1, now
    row.error = row.next_try_at = None
    return Begun("send")


def _too_many(session: Session, row: OutboxMail, limits: Sequence[Limit]) -> str | None:
    if row.recipient_key is None or (row.decisions and row.decisions[-1].decision == "resend"):
        return None  # nobody is answered, or a person asked for just this mail
    if session.get_bind().dialect.name == "postgresql":  # SQLite's writers are alone anyway
        session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": row.recipient_key})
    for limit in limits:
        count = session.scalar(
            select(func.count()).where(
                OutboxMail.recipient_key == row.recipient_key,
                OutboxMail.begun_at > utc_now() - limit.within,
                OutboxMail.status.in_(["sent", "sending", "unknown"]),
                OutboxMail.id != row.id,
            )
        )
        if (count or 0) >= limit.answers:
            return f"{row.recipient} was answered {count} times within the last {limit.word}"
    return None


def note_sent(session: Session, mail_id: int) -> None:
    row = session.get_one(OutboxMail, mail_id)
    row.status, row.sent_at, row.error, row.next_try_at = "sent", utc_now(), None, None


def note_failure(session: Session, mail_id: int, status: Literal["unknown", "failed"], reason: str) -> None:
    row = session.get_one(OutboxMail, mail_id)
    row.status, row.error, row.next_try_at = status, reason, None


def put_off(
    session: Session, mail_id: int, reason: str, *, first_wait: float, give_up: float, now: datetime | None = None
) -> float | None:
    """The server said "later", or was not to be reached: the seconds until the next try; None: the mail has failed.

    Waits as long as it has waited already, from `first_wait` up to an hour, so the time between tries doubles.
    """
    row, now = session.get_one(OutboxMail, mail_id), now or utc_now()
    tried = (now - (row.tried_since or now)).total_seconds()
    if tried >= give_up:
        row.status, row.error, row.next_try_at = "failed", reason, None
        return None
    jitter = random.uniform(0.9, 1.1)  # noqa: S311 - no secret
    wait = min(min(max(first_wait, tried), LONGEST_WAIT) * jitter, give_up - tried)
    row.status, row.error, row.next_try_at = "pending", reason, now + timedelta(seconds=wait)
    return wait


# -- for a person ------------------------------------------------------------------------------------------


def list_mails(
    session: Session, *, statuses: Sequence[str] = (), client_id: int | None = None, limit: int = 50
) -> list[Listed]:
    """The newest mails first, at most `limit`."""
    query = _listing().order_by(OutboxMail.id.desc()).limit(limit)
    if statuses:
        query = query.where(OutboxMail.status.in_(statuses))
    if client_id is not None:
        query = query.where(Execution.client_id == client_id)
    return [Listed(*row) for row in session.execute(query)]


def find_mail(session: Session, number: int) -> Listed:
    """One mail by its number, with its decisions. Raises NotFound."""
    row = session.execute(_listing().where(OutboxMail.id == number)).first() if 0 < number <= _MAX_ID else None
    if row is None:
        raise NotFound(f"there is no mail {number} in the outbox", remedy="`nova outbox list` shows the newest ones")
    return Listed(*row)


def _listing() -> Select[OutboxMail, Execution, str]:
    return (
        select(OutboxMail, Execution, Client.slug)
        .join(Execution, Execution.id == OutboxMail.execution_id)
        .outerjoin(Client, Client.id == Execution.client_id)
        .options(selectinload(OutboxMail.decisions))
    )


def count_mails(session: Session) -> dict[str, int]:
    """How many mails there are of each status."""
    query = select(OutboxMail.status, func.count()).group_by(OutboxMail.status)
    counts = {row[0]: row[1] for row in session.execute(query)}
    return {status: counts.get(status, 0) for status in STATUSES}


def asking(session: Session, now: datetime | None = None) -> dict[str, list[int]]:
    """The mails that a person should look at: `unknown`, `held`, `stuck` (tried in vain for hours)."""
    now = now or utc_now()
    interrupted = (OutboxMail.status == "sending") & Execution.status.not_in(["pending", "running"])
    late = (OutboxMail.status == "pending") & (OutboxMail.tried_since < now - STUCK_AFTER)
    query = (
        select(OutboxMail.id, OutboxMail.status)
        .join(Execution, Execution.id == OutboxMail.execution_id)
        .where(OutboxMail.status.in_(ASKING) | interrupted | late)
        .order_by(OutboxMail.id)
    )
    found: dict[str, list[int]] = {"unknown": [], "held": [], "stuck": []}
    for number, status in session.execute(query):
        found[{"sending": "unknown", "pending": "stuck"}.get(status, status)].append(number)
    return found


@dataclass(frozen=True, slots=True)
class Resolved:
    """What came of a decision. `goes_on`: the execution waits for a run now; if not, `reason` says why."""

    mail_id: int
    status: str
    execution_id: int
    goes_on: bool
    reason: str = ""


def resolve(session: Session, number: int, decision: Decision, *, by: str, note: str | None = None) -> Resolved:
    """What a person says is true of a mail (`sent`, `drop`) or wants (`resend`), recorded; its execution goes on.

    Raises NotFound, and Conflict when the mail is done with or is being sent at this moment.
    """
    listed = find_mail(session, number)
    row = session.get_one(OutboxMail, number, with_for_update=True)
    execution = session.get_one(Execution, listed.execution.id, with_for_update=True)
    if row.status in DONE:
        raise Conflict(f"mail {number} is {row.status} already", remedy="nothing is left to decide")
    if execution.status == "running":
        remedy = "wait, or end that run in the Dagster UI first"
        raise Conflict(f"run {execution.run_id} works on execution {execution.id} just now", remedy=remedy)
    record(session, row, decision, by=by, note=note)
    if decision == "sent":
        row.status, row.sent_at, row.error = "sent", row.begun_at, None
    elif decision == "drop":
        row.status = "dropped"
    else:
        row.status, row.error = "pending", None
    row.tried_since = row.next_try_at = None
    session.flush()
    return _go_on(session, row, execution)


def record(session: Session, row: OutboxMail, decision: Decision, *, by: str, note: str | None) -> None:
    """Notes who decided what, and when."""
    clean = note.strip()[:2_000] if note else None
    session.add(
        OutboxDecision(
            mail=row, decision=decision, status_before=row.status, decided_by=by[:200] or "unknown", note=clean or None
        )
    )


def _go_on(session: Session, row: OutboxMail, execution: Execution) -> Resolved:
    if execution.status in ("pending", "in_approval"):
        execution.status = "pending"  # in approval: its node sends the mail, and waits again
        execution.waits_until = None  # at once, not when the next try was due
        return Resolved(row.id, row.status, execution.id, goes_on=True)
    if execution.failed_node != row.node_id:
        where = f" at node {execution.failed_node!r}" if execution.failed_node else ""
        reason = f"execution {execution.id} is {execution.status}{where}, not because of this mail"
        return Resolved(row.id, row.status, execution.id, goes_on=False, reason=reason)
    released = release(session, [execution.id], force=True, touch_mail=False)
    reasons = "; ".join(refusal.reason for refusal in released.refused)
    return Resolved(row.id, row.status, execution.id, goes_on=bool(released.released), reason=reasons)


def _said(row: OutboxMail) -> str:
    if not row.decisions:
        return ""
    last = row.decisions[-1]
    words = {"sent": "says that it was sent", "drop": "said that it is not to be sent", "resend": "had it sent again"}
    return f"{last.decided_by} {words[last.decision]}" + (f": {last.note}" if last.note else "")
