"""`/workflows`: definitions are posted, become live within seconds, and are archived."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from nova_pipelines.compiler.publishing import Prepared, Published, newest_version, prepare, store
from nova_pipelines.database.nova import Workflow, WorkflowVersion
from nova_pipelines.database.workflows import deactivate, find_workflow
from nova_pipelines.domain.errors import DefinitionError, NotFound, Problem
from nova_pipelines.web import openapi
from nova_pipelines.web.access import ADMIN_OF_ALL, OPERATOR_OF_ALL, VIEWER_OF_ALL
from nova_pipelines.web.answers import TOTAL, PageDep, as_json, as_list, refusals
from nova_pipelines.web.background import Background, background_of
from nova_pipelines.web.bodies import text_of
from nova_pipelines.web.context import WebContext, context_of
from nova_pipelines.web.reads import reads
from nova_pipelines.web.shapes import WorkflowShape, WorkflowSummary

router = APIRouter(prefix="/workflows", tags=["workflows"])

Context = Annotated[WebContext, Depends(context_of)]
Threads = Annotated[Background, Depends(background_of)]
WorkflowId = Annotated[int, Path(description="Number of a workflow")]
_TEXT = {"schema": {"type": "string"}}
DEFINITION: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A definition as JSON or YAML, whatever the content type says",
        "content": {"application/json": {"schema": {"$ref": openapi.DEFINITION}}, "application/yaml": _TEXT},
    }
}


def shown(version: WorkflowVersion, workflow: Workflow) -> dict[str, Any]:
    """A workflow with its newest version."""
    definition = version.definition
    return summary(workflow, version.number) | {
        "trigger": definition.get("trigger"),
        "graph_definition": {"nodes": definition.get("nodes", []), "edges": definition.get("edges", [])},
    }


def summary(workflow: Workflow, version: int) -> dict[str, Any]:
    names = ("id", "name", "job_name", "description", "is_active", "created_at", "updated_at")
    return {name: getattr(workflow, name) for name in names} | {"version": version}


def live_workflow(session: Session, number: int) -> Workflow:
    """A workflow that is offered. Raises NotFound."""
    try:
        return find_workflow(session, number)
    except NotFound:
        raise NotFound(f"there is no workflow {number}", remedy="GET /workflows lists them") from None


def publish(context: WebContext, threads: Background, prepared: Prepared) -> tuple[dict[str, Any], Published]:
    """Stores a version and has it made live."""
    with context.services.databases.nova.session() as session:
        published = store(session, prepared)
        workflow = session.get_one(Workflow, published.workflow_id)
        session.refresh(workflow)
        answer = shown(newest_version(session, workflow), workflow)
    if published.changed or published.revived:
        threads.reloader.ask()
    return answer, published


@router.post(
    "",
    status_code=201,
    response_model=WorkflowShape,
    responses={
        200: {"model": WorkflowShape, "description": "The newest version is this text already"},
        **refusals(409),
    },
    dependencies=[Depends(OPERATOR_OF_ALL)],
    openapi_extra=DEFINITION,
    summary="Store a definition: a new workflow, or the next version of the one with this name",
)
async def post(request: Request, context: Context, threads: Threads) -> Response:
    text = await text_of(request)

    def work() -> Response:
        answer, published = publish(context, threads, prepare(text, source="definition"))
        status = 201 if published.changed or published.revived else 200
        return as_json(answer, status, {"Location": f"/workflows/{published.workflow_id}"})

    return await run_in_threadpool(work)


@router.get(
    "",
    response_model=list[WorkflowSummary],
    responses={200: TOTAL, **refusals()},
    dependencies=[Depends(VIEWER_OF_ALL)],
    summary="List workflows by number, without their graphs",
)
@reads
def list_workflows(
    page: PageDep,
    context: Context,
    archived: Annotated[bool, Query(description="Those that were archived, too")] = False,
) -> Response:
    newest = (
        select(WorkflowVersion.workflow_id, func.max(WorkflowVersion.number).label("version"))
        .group_by(WorkflowVersion.workflow_id)
        .subquery()
    )
    names = ("id", "name", "job_name", "description", "is_active", "created_at", "updated_at")
    columns = [getattr(Workflow, name) for name in names]
    wanted = select(*columns, newest.c.version).join(newest, newest.c.workflow_id == Workflow.id)
    wanted = wanted if archived else wanted.where(Workflow.is_active)
    with context.services.databases.nova.look() as session:
        found = session.execute(wanted.order_by(Workflow.id).offset(page.skip).limit(page.limit))
        rows = [dict(row._mapping) for row in found]
        return as_list(rows, page, lambda: session.scalar(select(func.count()).select_from(wanted.subquery())) or 0)


@router.get(
    "/{workflow_id}",
    response_model=WorkflowShape,
    responses=refusals(404),
    dependencies=[Depends(VIEWER_OF_ALL)],
    summary="A workflow with its newest definition",
)
@reads
def show(workflow_id: WorkflowId, context: Context) -> Response:
    with context.services.databases.nova.read() as session:
        workflow = live_workflow(session, workflow_id)
        return as_json(shown(newest_version(session, workflow), workflow))


@router.put(
    "/{workflow_id}",
    response_model=WorkflowShape,
    responses=refusals(404, 409),
    dependencies=[Depends(OPERATOR_OF_ALL)],
    openapi_extra=DEFINITION,
    summary="Store the next version of a workflow",
)
async def put(workflow_id: WorkflowId, request: Request, context: Context, threads: Threads) -> Response:
    text = await text_of(request)

    def work() -> Response:
        with context.services.databases.nova.read() as session:
            name = live_workflow(session, workflow_id).name
        prepared = prepare(text, source="definition")
        if prepared.definition.name != name:
            reason = f"the workflow is called {name!r}, and its name stays: post another name as a new workflow"
            raise DefinitionError([Problem("name", reason)])
        return as_json(publish(context, threads, prepared)[0])

    return await run_in_threadpool(work)


@router.delete(
    "/{workflow_id}",
    status_code=204,
    responses=refusals(404),
    dependencies=[Depends(ADMIN_OF_ALL)],
    summary="Archive a workflow: it is not offered any more, its history stays; posting it again brings it back",
)
def archive(workflow_id: WorkflowId, context: Context, threads: Threads) -> Response:
    with context.services.databases.nova.session() as session:
        deactivate(session, live_workflow(session, workflow_id))
    threads.reloader.ask()
    return Response(status_code=204)
