"""What sandboxes have cost, added up from the chain of work. Estimates: the bill is E2B's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import ChainRow, Client, Execution, Workflow

NANO = Decimal("1e-9")


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the executions of one workflow and client that used a sandbox."""

    workflow: str
    client: str | None
    executions: int
    sandbox_seconds: float
    usd: Decimal


def usd(nano: int | None) -> Decimal:
    """10⁻⁹ US dollars as dollars."""
    return (nano or 0) * NANO


def costs(session: Session, *, since: datetime | None = None) -> list[Cost]:
    """By workflow and client, the dearest first; of chain rows written since that time."""
    spent = func.sum(ChainRow.cost_nano_usd)
    query = (
        select(
            Workflow.name,
            Client.slug,
            func.count(ChainRow.execution_id.distinct()),
            func.sum(ChainRow.sandbox_seconds),
            spent,
        )
        .join(Execution, Execution.id == ChainRow.execution_id)
        .join(Workflow, Workflow.id == Execution.workflow_id)
        .outerjoin(Client, Client.id == Execution.client_id)
        .where(ChainRow.sandbox_seconds.is_not(None))
        .group_by(Workflow.name, Client.slug)
        .order_by(spent.desc(), Workflow.name, Client.slug)
    )
    if since is not None:
        query = query.where(ChainRow.timestamp >= since)
    return [
        Cost(name, slug, count, round(float(seconds or 0), 3), usd(int(nano or 0)))
        for name, slug, count, seconds, nano in session.execute(query)
    ]


def cost_of(session: Session, execution_id: int) -> tuple[float, Decimal]:
    """(sandbox seconds, US dollars) of one execution."""
    query = select(func.sum(ChainRow.sandbox_seconds), func.sum(ChainRow.cost_nano_usd))
    seconds, nano = session.execute(query.where(ChainRow.execution_id == execution_id)).one()
    return round(float(seconds or 0), 6), usd(int(nano or 0))
