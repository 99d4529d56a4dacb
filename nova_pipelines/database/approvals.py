"""What people are asked about executions, and what they answer: each question is answered once.

Knows statuses and times; nothing of nodes, mails or links. Whoever changes both locks the approval first, and then the
execution.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.nova import ChainRow, Client, Execution, Workflow
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict, NotFound

#: the status of an execution that waits for a person's decision. It is none of those that hold a run, and none that
#: `retry` leads out of; and it fits the column, so the largest table need not be made anew
IN_APPROVAL = "in_approval"
STATUSES = ("pending", "approved", "rejected", "expired")
Decision = Literal["approved", "rejected"]
Via = Literal["page", "link", "api", "cli"]
#: executions that still can come to a decision
_OPEN = (IN_APPROVAL, "pending", "running")
#: what a deadline makes of a question
_AT_DEADLINE = {"approve": "approved", "reject": "rejected"}
#: questions whose deadlines one call applies
_PORTION = 200
_MAX_ID = 2**31 - 1
MAX_NOTE = 2_000


@dataclass(frozen=True, slots=True)
class Question:
    """What a node asks. `deadline_seconds`: from now on; `on_deadline` as in the table."""

    title: str
    role: str
    facts: dict[str, Any]
    deadline_seconds: float
    on_deadline: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A question with what it belongs to."""

    approval: Approval
    execution: Execution
    workflow: str
    job_name: str
    client: str | None

    @property
    def open(self) -> bool:
        """Somebody can still answer it: its execution may have been ended otherwise."""
        return self.approval.status == "pending" and self.execution.status in _OPEN


@dataclass(frozen=True, slots=True)
class Decided:
    """What came of an answer. `goes_on`: the execution is pending, kept for the run with `run_key` if one was given."""

    approval_id: int
    execution_id: int
    workflow_id: int
    status: str
    goes_on: bool


# -- for the node ------------------------------------------------------------------------------------------


def ask(session: Session, execution_id: int, node_id: str, question: Question) -> Approval:
    """The question of a node, made at the first call. One that expired and failed the execution is asked anew."""
    query = select(Approval).where(Approval.execution_id == execution_id, Approval.node_id == node_id)
    row = session.scalars(query.with_for_update()).first()
    if row is None:
        row = Approval(execution_id=execution_id, node_id=node_id, round=1)
        _begin(row, question)
        session.add(row)
    elif row.status == "expired" and _failed_since(session, row):
        row.round += 1
        _begin(row, question)
    session.flush()
    return row


def _begin(row: Approval, question: Question) -> None:
    now = utc_now()
    row.title, row.role, row.facts = question.title, question.role, question.facts
    row.status, row.requested_at, row.deadline_seconds = "pending", now, question.deadline_seconds
    row.deadline_at, row.on_deadline = now + timedelta(seconds=question.deadline_seconds), question.on_deadline
    row.link_nonce = secrets.token_hex(16)
    row.escalated_at = row.mail_problem = row.decided_at = row.decided_by = row.decided_via = row.note = None


def _failed_since(session: Session, row: Approval) -> bool:
    """Whether the chain says that the execution failed for this deadline: then it is a person who retries it."""
    query = select(func.count()).where(
        ChainRow.execution_id == row.execution_id,
        ChainRow.node_id == row.node_id,
        ChainRow.status == "failed",
        ChainRow.timestamp >= row.decided_at,
    )
    return bool(session.scalar(query))


def still_open(session: Session, execution_id: int, node_id: str) -> bool:
    """Whether the question of a node is unanswered. Holds it: no answer comes before this transaction ends."""
    query = select(Approval.status).where(Approval.execution_id == execution_id, Approval.node_id == node_id)
    return session.scalar(query.with_for_update()) == "pending"


def note_mail_problem(session: Session, number: int, problem: str | None) -> None:
    session.execute(update(Approval).where(Approval.id == number).values(mail_problem=problem and problem[:2_000]))


# -- for those who answer ----------------------------------------------------------------------------------


def decide(
    session: Session,
    number: int,
    decision: Decision,
    *,
    by: str,
    via: Via,
    note: str | None = None,
    run_key: str | None = None,
    nonce: str | None = None,
) -> Decided:
    """Commits an answer, of several at the same time the first one; the execution is pending again after it.

    `nonce`: of a signed link, which must belong to this round. Raises NotFound, and Conflict which says who answered.
    """
    listed = find_approval(session, number)
    now = utc_now()
    clean = (note or "").replace("\x00", "").strip()[:MAX_NOTE] or None
    mine = (Approval.id == number) & (Approval.status == "pending")
    if nonce is not None:
        mine &= Approval.link_nonce == nonce
    # a deadline that passes on the question leaves it open
    mine &= (Approval.deadline_at > now) | ((Approval.on_deadline == "escalate") & Approval.escalated_at.is_(None))
    answer = {"status": decision, "decided_at": now, "decided_by": by[:320] or "unknown", "decided_via": via}
    done: Any = session.execute(update(Approval).where(mine).values(**answer, note=clean))
    if done.rowcount != 1:
        row = session.get_one(Approval, number, populate_existing=True)
        raise Conflict(_why_not(row), remedy="nothing was changed")
    return _go_on(session, number, listed.execution.id, decision, run_key=run_key)


def _why_not(row: Approval) -> str:
    if row.status != "pending":
        when = f"{row.decided_at:%Y-%m-%d %H:%M} UTC" if row.decided_at else "before"
        return f"approval {row.id} was {row.status} by {row.decided_by} at {when}"
    if row.deadline_at <= utc_now():
        return f"the deadline of approval {row.id} passed at {row.deadline_at:%Y-%m-%d %H:%M} UTC"
    return f"approval {row.id} was asked anew: this link belongs to an earlier question"


def _go_on(session: Session, number: int, execution_id: int, status: str, *, run_key: str | None = None) -> Decided:
    row = session.get_one(Execution, execution_id, with_for_update=True, populate_existing=True)
    if row.status not in _OPEN:
        raise Conflict(f"execution {row.id} is {row.status}: nothing waits for this decision any more")
    goes_on = row.status == IN_APPROVAL or (row.status == "pending" and row.run_id is None)
    if goes_on:
        row.status, row.error, row.waits_until, row.put_off_by = "pending", None, None, None
        row.run_id, row.requested_at = run_key, utc_now() if run_key else None
    session.flush()
    return Decided(number, row.id, row.workflow_id, status, goes_on)


def apply_deadlines(session: Session, now: datetime | None = None) -> list[Decided]:
    """Answers for nobody what nobody answered in time, as its node wants; each once, whoever calls this."""
    now = now or utc_now()
    due = (Approval.status == "pending") & (Approval.deadline_at <= now)
    query = select(Approval).join(Execution, Execution.id == Approval.execution_id)
    query = query.where(due, Execution.status.in_(_OPEN)).order_by(Approval.id).limit(_PORTION)
    return [
        done
        for row in session.scalars(query.with_for_update(of=Approval, skip_locked=True)).all()
        if (done := _at_deadline(session, row, now)) is not None
    ]


def _at_deadline(session: Session, row: Approval, now: datetime) -> Decided | None:
    if row.on_deadline == "escalate" and row.escalated_at is None:
        row.escalated_at, row.deadline_at = now, now + timedelta(seconds=row.deadline_seconds)
    else:
        row.status = _AT_DEADLINE.get(row.on_deadline, "expired")
        row.decided_at, row.decided_by, row.decided_via = now, "the deadline", "deadline"
    session.flush()
    execution = session.get_one(Execution, row.execution_id, with_for_update=True, populate_existing=True)
    if execution.status not in _OPEN:
        return None
    return _go_on(session, row.id, row.execution_id, row.status)


# -- for those who look ------------------------------------------------------------------------------------


def list_approvals(
    session: Session,
    *,
    open_only: bool = False,
    statuses: Sequence[str] = (),
    clients: Collection[str] | None = None,
    skip: int = 0,
    limit: int = 50,
) -> list[Listed]:
    """The newest first. `clients`: only theirs (slugs); None: all, those of no client too."""
    query = _filtered(_listing(), open_only, statuses, clients)
    query = query.order_by(Approval.id.desc()).offset(skip).limit(limit)
    return [Listed(*row) for row in session.execute(query)]


def count_approvals(
    session: Session,
    *,
    open_only: bool = False,
    statuses: Sequence[str] = (),
    clients: Collection[str] | None = None,
) -> int:
    query = _filtered(_joined(select(func.count(Approval.id))), open_only, statuses, clients)
    return session.scalar(query) or 0


def find_approval(session: Session, number: int, *, clients: Collection[str] | None = None) -> Listed:
    """One question by its number. Raises NotFound, also for one of a client that is not among `clients`."""
    query = _filtered(_listing(), open_only=False, statuses=(), clients=clients).where(Approval.id == number)
    row = session.execute(query).first() if 0 < number <= _MAX_ID else None
    if row is None:
        raise NotFound(f"there is no approval {number}", remedy="`nova approvals list` shows them")
    return Listed(*row)


def approvals_of(session: Session, execution_id: int) -> list[Approval]:
    query = select(Approval).where(Approval.execution_id == execution_id).order_by(Approval.id)
    return list(session.scalars(query))


def _listing() -> Select[Any]:
    columns: Select[Any] = select(Approval, Execution, Workflow.name, Workflow.job_name, Client.slug)  # pyright: ignore[reportAssignmentType] - as many as are named
    return _joined(columns)


def _joined(query: Select[Any]) -> Select[Any]:
    return (
        query.select_from(Approval)
        .join(Execution, Execution.id == Approval.execution_id)
        .join(Workflow, Workflow.id == Execution.workflow_id)
        .outerjoin(Client, Client.id == Execution.client_id)
    )


def _filtered(
    query: Select[Any], open_only: bool, statuses: Sequence[str], clients: Collection[str] | None
) -> Select[Any]:
    if open_only:
        query = query.where(Approval.status == "pending", Execution.status.in_(_OPEN))
    if statuses:
        query = query.where(Approval.status.in_(statuses))
    return query if clients is None else query.where(Client.slug.in_(sorted(clients)))
