"""Pages of executions: the list, and one with its way through the workflow, which refreshes itself while it works."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request, Response

from nova_pipelines.compiler.plan import make_plan
from nova_pipelines.database.approvals import IN_APPROVAL, approvals_of
from nova_pipelines.database.execution_views import (
    Passed,
    client_slugs,
    steps_of,
    visible_execution,
    workflow_names,
)
from nova_pipelines.database.executions import STATUSES, Listed
from nova_pipelines.database.invoice_views import of_execution
from nova_pipelines.database.listings import execution_filter, page_of_executions
from nova_pipelines.database.nova import WorkflowVersion
from nova_pipelines.domain.errors import DefinitionError, NovaError
from nova_pipelines.nodes.registry import definition_from
from nova_pipelines.web.access import Principal
from nova_pipelines.web.pages.common import (
    PAGE_SIZE,
    Context,
    Looks,
    choice_in,
    number_in,
    page_router,
    pictures_of,
    words_in,
)
from nova_pipelines.web.pages.documents import Pictures, document_of_execution, has_document, pdf_response
from nova_pipelines.web.pages.graph import Drawing, State, draw
from nova_pipelines.web.pages.invoices import png_response
from nova_pipelines.web.pages.rendering import plain, render
from nova_pipelines.web.seeing import clients_for

log = logging.getLogger("nova.web")
router = page_router()
Drawer = Annotated[Pictures, Depends(pictures_of)]
#: while it has one of these, the page looks again by itself
ALIVE = ("pending", "running")
_NAMES = ("status", "workflow", "client")


@router.get("/executions")
def executions(request: Request, context: Context, principal: Looks) -> Response:
    params = request.query_params
    before = number_in(params, "before")
    with context.services.databases.nova.read() as session:
        status = choice_in(params, "status", (*STATUSES, "cancelled"))
        wanted = execution_filter(
            statuses=[status] if status else (),
            workflow_id=number_in(params, "workflow"),
            clients=clients_for(session, principal, words_in(params, "client") or None),
        )
        rows = page_of_executions(session, wanted, skip=0, limit=PAGE_SIZE + 1, before=before)
        clients, workflows = client_slugs(session, principal.clients), workflow_names(session)
    given = {name: params[name] for name in _NAMES if params.get(name)}
    older = urlencode({**given, "before": rows[PAGE_SIZE - 1]["id"]}) if len(rows) > PAGE_SIZE else None
    return render(
        request,
        "executions.html",
        rows=rows[:PAGE_SIZE],
        given={name: params.get(name, "") for name in _NAMES},
        query=urlencode(given),
        older=older,
        first=before is None,
        clients=clients,
        workflows=workflows,
        statuses=STATUSES,
    )


@router.get("/executions/{number}")
def execution(request: Request, context: Context, principal: Looks, number: int) -> Response:
    return _shown(request, context, principal, number, "execution.html")


@router.get("/executions/{number}/live")
def live(request: Request, context: Context, principal: Looks, number: int) -> Response:
    """The part of the page that changes while the execution works."""
    return _shown(request, context, principal, number, "_execution.html")


def _shown(request: Request, context: Any, principal: Principal, number: int, template: str) -> Response:
    with context.services.databases.nova.read() as session:
        listed = visible_execution(session, number, principal.clients)
        steps = steps_of(session, number)
        approvals = approvals_of(session, number)
        version = session.get_one(WorkflowVersion, listed.execution.version_id)
    with context.services.databases.facturas.read() as session:
        invoices = of_execution(session, number)
    return render(
        request,
        template,
        listed=listed,
        row=listed.execution,
        steps=steps,
        approvals=approvals,
        invoices=invoices,
        drawing=_drawing(version, listed, steps),
        run_id=run_of(listed, steps),
        alive=listed.execution.status in ALIVE,
        has_document=has_document(context.services, listed.execution),
    )


def _drawing(version: WorkflowVersion, listed: Listed, steps: Sequence[Passed]) -> Drawing | None:
    try:
        plan = make_plan(definition_from(version.definition, source=listed.workflow))
    except DefinitionError as error:  # a later NOVA may refuse what an earlier one took; the table says it all
        log.info("version %d is not drawn: %s", version.id, error.message)
        return None
    states = {step.node_id: State(step.status, step.seconds, plain(step.error), step.path) for step in steps}
    following = _next_node(plan.steps, steps)
    if following and listed.execution.status in (*ALIVE, IN_APPROVAL) and _not_done(states.get(following)):
        states[following] = State(listed.execution.status)
    return draw(plan, states)


def _not_done(state: State | None) -> bool:
    return state is None or state.status != "success"


def _next_node(plan: Any, steps: Sequence[Passed]) -> str | None:
    """Where an execution is that has passed `steps`."""
    done = [step for step in steps if step.status == "success"]
    if not done:
        return plan[0].node.id
    for step in plan:
        if step.node.id == done[-1].node_id:
            way = step.ways.get(done[-1].path or "")
            return way[1] if way else step.following
    return None


def run_of(listed: Listed, steps: Sequence[Passed]) -> str | None:
    """The Dagster run that holds an execution, or held it last; None for the key of one that is only asked for."""
    held = listed.execution.run_id
    for run_id in (held, *(step.run_id for step in reversed(steps))):
        try:
            if run_id is not None and str(uuid.UUID(run_id)) == run_id:
                return run_id
        except ValueError:
            continue
    return None


@router.get("/executions/{number}/document.pdf")
def document(context: Context, principal: Looks, number: int) -> Response:
    return pdf_response(_document(context, principal, number))


@router.get("/executions/{number}/preview")
def preview(request: Request, context: Context, principal: Looks, pictures: Drawer, number: int) -> Response:
    page = number_in(request.query_params, "page") or 0
    try:
        picture = pictures.page(_document(context, principal, number), page)
    except NovaError as error:
        return render(request, "_preview.html", picture=None, reason=plain(error.message), page=page, base="")
    return render(request, "_preview.html", picture=picture, reason="", page=page, base=f"/pages/executions/{number}")


@router.get("/executions/{number}/page.png")
def page_png(request: Request, context: Context, principal: Looks, pictures: Drawer, number: int) -> Response:
    page = number_in(request.query_params, "page") or 0
    return png_response(pictures.page(_document(context, principal, number), page).png)


def _document(context: Any, principal: Principal, number: int) -> Any:
    with context.services.databases.nova.read() as session:
        listed = visible_execution(session, number, principal.clients)
    return document_of_execution(context.services, listed.execution)
