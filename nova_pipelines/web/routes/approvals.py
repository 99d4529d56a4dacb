"""`/approvals`: what people are asked, and their answer."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query, Response
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from nova_pipelines.compiler.approval_views import approval_view
from nova_pipelines.database.approvals import (
    MAX_NOTE,
    Decision,
    count_approvals,
    find_approval,
    list_approvals,
)
from nova_pipelines.web.access import OPERATOR, VIEWER, Principal
from nova_pipelines.web.answers import PageDep, refusals
from nova_pipelines.web.context import WebContext, context_of
from nova_pipelines.web.deciding import decide_as

router = APIRouter(prefix="/approvals", tags=["approvals"])

Context = Annotated[WebContext, Depends(context_of)]
Looks = Annotated[Principal, Depends(VIEWER)]
Decides = Annotated[Principal, Depends(OPERATOR)]


class ApprovalOut(BaseModel):
    id: int
    status: str
    open: bool
    title: str
    role: str
    facts: dict[str, JsonValue]
    workflow: str
    client: str | None
    execution_id: int
    execution_status: str
    node_id: str
    requested_at: datetime
    deadline_at: datetime
    on_deadline: str
    escalated_at: datetime | None
    mail_problem: str | None
    decided_at: datetime | None
    decided_by: str | None
    decided_via: str | None
    note: str | None


class Answer(BaseModel):
    """Why; it is kept with the decision."""

    model_config = ConfigDict(extra="forbid")

    note: str | None = Field(default=None, max_length=MAX_NOTE)


class DecidedOut(BaseModel):
    """`goes_on`: a run of the execution was asked for; else the run that works on it goes on by itself."""

    id: int
    status: str
    execution_id: int
    goes_on: bool


@router.get("", summary="What waits for a decision", responses=refusals())
def approvals(
    context: Context,
    principal: Looks,
    response: Response,
    page: PageDep,
    status: Annotated[Literal["open", "pending", "approved", "rejected", "expired", "all"], Query()] = "open",
) -> list[ApprovalOut]:
    """Newest first; `open` are those that somebody can still answer. The number of all is in `X-Total-Count`."""
    statuses = [] if status in ("open", "all") else [status]
    is_open, clients = status == "open", principal.clients
    with context.services.databases.nova.read() as session:
        found = list_approvals(
            session, open_only=is_open, statuses=statuses, clients=clients, skip=page.skip, limit=page.limit
        )
        total = count_approvals(session, open_only=is_open, statuses=statuses, clients=clients)
    response.headers["X-Total-Count"] = str(total)
    return [ApprovalOut(**approval_view(listed)) for listed in found]


@router.get("/{number}", summary="One question", responses=refusals(404))
def approval(context: Context, principal: Looks, number: int) -> ApprovalOut:
    with context.services.databases.nova.read() as session:
        return ApprovalOut(**approval_view(find_approval(session, number, clients=principal.clients)))


#: 409: it was decided before; `detail` says by whom and when
_REFUSALS = refusals(404, 409)


@router.post("/{number}/approve", summary="Approve: the execution goes on", responses=_REFUSALS)
def approve(context: Context, principal: Decides, number: int, answer: Answer | None = None) -> DecidedOut:
    return _decide(context, principal, number, "approved", answer)


@router.post("/{number}/reject", summary="Reject: the execution goes on along that way", responses=_REFUSALS)
def reject(context: Context, principal: Decides, number: int, answer: Answer | None = None) -> DecidedOut:
    return _decide(context, principal, number, "rejected", answer)


def _decide(
    context: WebContext, principal: Principal, number: int, decision: Decision, answer: Answer | None
) -> DecidedOut:
    note = answer.note if answer else None
    done = decide_as(context, principal, number, decision, note=note, via="api")
    return DecidedOut(id=done.approval_id, status=done.status, execution_id=done.execution_id, goes_on=done.goes_on)
