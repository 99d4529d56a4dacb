"""Queries of executions, and the ways out of a status that nothing leaves by itself.

Knows statuses and who holds an execution; nothing of nodes, chains or Dagster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import (
    Client,
    Execution,
    Message,
    OutboxDecision,
    OutboxMail,
    Workflow,
    WorkflowVersion,
)
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import NotFound

STATUSES = ("pending", "running", "in_approval", "completed", "failed", "needs_review", "unknown")
#: the largest number that the column holds on PostgreSQL
MAX_ID = 2**31 - 1
#: so often an execution whose run ended before it did is asked for again, each time after a longer while
MAX_LOST_RUNS, LOST_WAIT = 3, timedelta(seconds=20)


@dataclass(frozen=True, slots=True)
class Listed:
    """An execution with the names of what it belongs to."""

    execution: Execution
    workflow: str
    version: int
    client: str | None
    sender: str | None
    subject: str | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An execution that is not tried again, and why."""

    execution_id: int
    reason: str


@dataclass(slots=True)
class Released:
    """What `release` did: the executions that wait again, and those that it left alone."""

    released: list[int] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


def list_executions(
    session: Session,
    *,
    statuses: Sequence[str] = (),
    workflow_id: int | None = None,
    client_id: int | None = None,
    limit: int = 50,
) -> list[Listed]:
    """The newest executions first, at most `limit`."""
    query = _listing().order_by(Execution.id.desc()).limit(limit)
    if statuses:
        query = query.where(Execution.status.in_(statuses))
    if workflow_id is not None:
        query = query.where(Execution.workflow_id == workflow_id)
    if client_id is not None:
        query = query.where(Execution.client_id == client_id)
    return [Listed(*row) for row in session.execute(query)]


def find_execution(session: Session, number: int) -> Listed:
    """One execution by its number. Raises NotFound."""
    row = session.execute(_listing().where(Execution.id == number)).first() if 0 < number <= MAX_ID else None
    if row is None:
        raise NotFound(f"there is no execution {number}", remedy="`nova executions list` shows the newest ones")
    return Listed(*row)


def due() -> ColumnElement[bool]:
    """Of a pending execution: nothing has put it off, or its time has come."""
    return Execution.waits_until.is_(None) | (Execution.waits_until <= utc_now())


def _listing() -> Select[Execution, str, int, str, str | None, str | None]:
    return (
        select(Execution, Workflow.name, WorkflowVersion.number, Client.slug, Message.sender, Message.subject)
        .join(Workflow, Workflow.id == Execution.workflow_id)
        .join(WorkflowVersion, WorkflowVersion.id == Execution.version_id)
        .outerjoin(Client, Client.id == Execution.client_id)
        .outerjoin(Message, Message.id == Execution.message_id)
    )


def count_by_status(session: Session) -> dict[str, int]:
    """How many executions there are of each status."""
    query = select(Execution.status, func.count()).group_by(Execution.status)
    counts = {row[0]: row[1] for row in session.execute(query)}
    return {status: counts.get(status, 0) for status in STATUSES}


def with_status(session: Session, status: str) -> list[int]:
    """The numbers of all executions of a status, in order."""
    return list(session.scalars(select(Execution.id).where(Execution.status == status).order_by(Execution.id)))


def release(
    session: Session,
    numbers: Iterable[int],
    *,
    force: bool = False,
    run_key: str | None = None,
    by: str = "nova executions retry --force",
    touch_mail: bool = True,
) -> Released:
    """Sets executions that ended without success back to pending, so that a run takes them up where they stopped.

    What an execution has done stays in its chain and is not done again. An `unknown` one is released only with
    `force`, since the work it stopped at may have been done; then a mail of it that may have been sent is sent
    again, under the same Message-ID (and `by` is noted as who wanted it), unless `touch_mail` is False: then
    somebody has decided about it already. With `run_key` the executions are kept for the run that carries this key;
    without it the mailbox sensor requests a run for them. Executions that do not exist are refused as well.
    """
    result = Released()
    for number in dict.fromkeys(numbers):
        row = session.get(Execution, number, with_for_update=True) if 0 < number <= MAX_ID else None
        reason = "there is no such execution" if row is None else _reason_against(row, force)
        if row is None or reason is not None:
            result.refused.append(Refusal(number, reason or ""))
            continue
        if row.status == "unknown" and touch_mail:
            _release_mail(session, row.id, by)
        # a run that never comes is asked for again by the sensor, some time after `requested_at`
        row.status, row.run_id, row.requested_at = "pending", run_key, utc_now() if run_key else None
        row.error = row.failed_node = row.result = row.completed_at = row.begun_node = None
        row.cancelled_at = row.cancelled_by = None
        result.released.append(number)
    session.flush()
    return result


def _reason_against(row: Execution, force: bool) -> str | None:
    if row.status == "completed":
        return "it is completed: start a new one with `nova run`"
    if row.status == "running":
        return f"it is running (run {row.run_id}): wait, or end that run in the Dagster UI first"
    if row.status == "in_approval":
        return "a person decides about it: `nova approvals list` shows what is asked, or its page"
    if row.status == "pending":
        return "it is waiting already: the mailbox sensor requests a run for it while NOVA runs"
    if row.status == "unknown" and not force:
        return (
            f"the work at node {row.failed_node!r} may have been done already ({row.error}): look first, "
            "for a mail into the account's sent mails; --force does it once more"
        )
    return None


def _release_mail(session: Session, execution_id: int, by: str) -> None:
    query = select(OutboxMail).where(
        OutboxMail.execution_id == execution_id, OutboxMail.status.in_(["unknown", "sending"])
    )
    for mail in session.scalars(query):
        session.add(OutboxDecision(mail=mail, decision="resend", status_before=mail.status, decided_by=by[:200]))
        mail.status, mail.error = "pending", None


def close_unfinished(session: Session, run_ids: Sequence[str], reason: str, *, again: bool = False) -> int:
    """Takes the unfinished executions from runs that have ended; returns how many.

    They have failed; with `again` those that nobody cancelled wait for another run, MAX_LOST_RUNS times at most: they
    go on where the chain of work ends. `run_ids`: the run's id, and its run key if it has one.
    """
    rows = session.scalars(
        select(Execution).where(Execution.run_id.in_(run_ids), Execution.status.in_(["pending", "running"]))
    ).all()
    for row in rows:
        row.error = reason[:2_000]
        if row.cancelled_by is not None:
            row.error = f"cancelled by {row.cancelled_by}"
        if row.begun_node is not None:  # what it did outside is not known: never repeated blindly
            row.status, row.failed_node = "unknown", row.begun_node
        elif again and row.lost_runs < MAX_LOST_RUNS and row.cancelled_at is None:
            row.lost_runs += 1
            row.status, row.run_id, row.requested_at = "pending", None, None
            row.waits_until = utc_now() + LOST_WAIT * row.lost_runs
        else:
            row.status = "failed"
    session.flush()
    return len(rows)
