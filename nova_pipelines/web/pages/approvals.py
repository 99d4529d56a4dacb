"""Pages of approvals: what waits, one question with what is known about it, and the decision."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Form, Request, Response
from fastapi.responses import RedirectResponse

from nova_pipelines.database.approvals import MAX_NOTE, count_approvals, find_approval, list_approvals
from nova_pipelines.web.deciding import decide_as, may_decide
from nova_pipelines.web.pages.common import PAGE_SIZE, Context, Decides, Looks, choice_in, number_in, page_router
from nova_pipelines.web.pages.documents import has_document
from nova_pipelines.web.pages.rendering import render

router = page_router()


@router.get("/approvals")
def approvals(request: Request, context: Context, principal: Looks) -> Response:
    params = request.query_params
    which = choice_in(params, "show", ("open", "all")) or "open"
    page = max(number_in(params, "page") or 1, 1)
    is_open = which == "open"
    with context.services.databases.nova.read() as session:
        rows = list_approvals(
            session, open_only=is_open, clients=principal.clients, skip=(page - 1) * PAGE_SIZE, limit=PAGE_SIZE
        )
        total = count_approvals(session, open_only=is_open, clients=principal.clients)
    more = page * PAGE_SIZE < total
    return render(request, "approvals.html", rows=rows, which=which, total=total, page=page, more=more)


@router.get("/approvals/{number}")
def approval(request: Request, context: Context, principal: Looks, number: int) -> Response:
    with context.services.databases.nova.read() as session:
        listed = find_approval(session, number, clients=principal.clients)
    return render(
        request,
        "approval.html",
        listed=listed,
        row=listed.approval,
        may=may_decide(principal, listed),
        max_note=MAX_NOTE,
        has_document=has_document(context.services, listed.execution),
    )


@router.post("/approvals/{number}")
def decide(
    context: Context,
    principal: Decides,
    number: int,
    decision: Annotated[Literal["approved", "rejected"], Form()],
    note: Annotated[str, Form(max_length=MAX_NOTE)] = "",
) -> Response:
    done = decide_as(context, principal, number, decision, note=note, via="page")
    return RedirectResponse(f"/pages/executions/{done.execution_id}", 303)
