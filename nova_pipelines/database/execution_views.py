"""Executions as the pages show them: one, its steps without their contexts, and how many there are."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nova_pipelines.database.executions import Listed, find_execution
from nova_pipelines.database.nova import ChainRow, Client, Execution, Workflow
from nova_pipelines.domain.errors import NotFound


class Passed(NamedTuple):
    """One row of the chain of work, without its contexts."""

    seq: int
    node_id: str
    node_type: str
    status: str
    seconds: float
    at: datetime
    decision: str | None
    path: str | None
    error: str | None
    run_id: str | None


def visible_execution(session: Session, number: int, clients: Collection[str] | None) -> Listed:
    """One execution. Raises NotFound, also for one of a client that is not among `clients`."""
    found = find_execution(session, number)
    if clients is not None and found.client not in clients:
        raise NotFound(f"there is no execution {number}", remedy="`nova executions list` shows the newest ones")
    return found


def steps_of(session: Session, execution_id: int) -> list[Passed]:
    columns = (
        *(ChainRow.seq, ChainRow.node_id, ChainRow.node_type, ChainRow.status, ChainRow.execution_time),
        *(ChainRow.timestamp, ChainRow.decision_result, ChainRow.path_taken, ChainRow.error_message, ChainRow.run_id),
    )
    query = select(*columns).where(ChainRow.execution_id == execution_id).order_by(ChainRow.seq)
    return [Passed(*row) for row in session.execute(query)]


def count_by_status(session: Session, clients: Collection[str] | None) -> dict[str, int]:
    query = select(Execution.status, func.count()).group_by(Execution.status)
    if clients is not None:
        query = query.join(Client, Client.id == Execution.client_id).where(Client.slug.in_(sorted(clients)))
    return {row[0]: row[1] for row in session.execute(query)}


def client_slugs(session: Session, clients: Collection[str] | None) -> list[str]:
    """For a choice: of all clients, or of those that somebody may see."""
    found = session.scalars(select(Client.slug).order_by(Client.slug))
    return [slug for slug in found if clients is None or slug in clients]


def workflow_names(session: Session) -> list[tuple[int, str]]:
    return [(row[0], row[1]) for row in session.execute(select(Workflow.id, Workflow.name).order_by(Workflow.name))]
