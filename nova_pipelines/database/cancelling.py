"""Ends executions that somebody does not want any more. Knows rows; runs are ended by whoever holds Dagster.

A cancelled execution is never claimed by a run again (`Journal.claim`), and a run that works on it stops before its
next node. So what was done stays in the chain, nothing more is done, and a retry goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nova_pipelines.database.executions import MAX_ID
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What was done about an execution. `run_id`: the run, or the key of one that was asked for, that holds nothing
    else unfinished and can be ended; None: others are on it, or there is none."""

    execution_id: int
    status: str
    run_id: str | None


def cancel(session: Session, number: int, *, by: str) -> Cancelled:
    """Ends an execution that waits, for a run or for a person, or marks one that is worked on. Again on a marked one:
    the same. A question that was open is closed by it: `decide` refuses an answer.

    Raises NotFound, and Conflict for one that has ended.
    """
    row = session.get(Execution, number, with_for_update=True) if 0 < number <= MAX_ID else None
    if row is None:
        raise NotFound(f"there is no execution {number}")
    if row.status not in ("pending", "in_approval", "running") and row.cancelled_at is None:
        raise Conflict(f"execution {number} has ended: it is {row.status}", remedy="there is nothing left to cancel")
    run_id = row.run_id if row.status in ("pending", "running") else None
    if row.cancelled_at is None:
        row.cancelled_at, row.cancelled_by = utc_now(), by[:200]
    if row.status in ("pending", "in_approval"):
        row.status, row.error, row.completed_at = "failed", reason(row), utc_now()
        row.waits_until = row.put_off_by = None
        # no run takes a cancelled one: what was asked for under this key is for the others alone
        row.run_id = row.requested_at = None
    session.flush()
    return Cancelled(number, row.status, run_id if run_id and _alone(session, number, run_id) else None)


def _alone(session: Session, number: int, run_id: str) -> bool:
    others = select(func.count()).where(
        Execution.run_id == run_id, Execution.id != number, Execution.status.in_(["pending", "running"])
    )
    return not session.scalar(others)


def reason(row: Execution) -> str:
    return f"cancelled by {row.cancelled_by}"
