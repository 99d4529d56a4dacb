"""`/executions` and `/tasks`: what was worked on, and what came of it."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from sqlalchemy import select

from nova_pipelines.compiler.lookup import chain_entries, detail
from nova_pipelines.database.executions import find_execution
from nova_pipelines.database.listings import count_executions, execution_filter, page_of_executions
from nova_pipelines.database.nova import Execution
from nova_pipelines.domain.errors import NotFound
from nova_pipelines.web.access import VIEWER
from nova_pipelines.web.answers import KEYED, KeyedPageDep, as_json, as_list, refusals
from nova_pipelines.web.reads import reads
from nova_pipelines.web.routes.execute import ACTIVE, ExecutionId
from nova_pipelines.web.routes.workflows import Context
from nova_pipelines.web.seeing import Who, clients_for, seen_execution
from nova_pipelines.web.shapes import ChainShape, ExecutionShape, ExecutionSummary, TaskShape

router = APIRouter(tags=["executions"], dependencies=[Depends(VIEWER)])

Status = Literal["pending", "running", "completed", "failed", "needs_review", "unknown"]
Slug = Annotated[str | None, Query(pattern="^[A-Za-z0-9-]{1,100}$", description="Only those of this client")]
TaskId = Annotated[str, Path(pattern="^[0-9a-f-]{36}$")]


@router.get(
    "/executions",
    response_model=list[ExecutionSummary],
    responses={200: KEYED, **refusals()},
    summary="List executions, the newest first",
)
@reads
def list_executions(
    who: Who,
    page: KeyedPageDep,
    context: Context,
    request: Request,
    workflow_id: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    status: Annotated[Status | None, Query()] = None,
    client: Slug = None,
) -> Response:
    with context.services.databases.nova.look() as session:
        clients = clients_for(session, who, client)
        wanted = execution_filter(statuses=[status] if status else (), workflow_id=workflow_id, clients=clients)
        rows = page_of_executions(session, wanted, skip=page.skip, limit=page.limit, before=page.before)
        key = ("executions", workflow_id, status, None if clients is None else tuple(clients))
        totals = request.app.state.totals
        return as_list(rows, page, lambda: totals.of(key, lambda most: count_executions(session, wanted, most)))


@router.get(
    "/executions/{execution_id}",
    response_model=ExecutionShape,
    responses=refusals(404),
    summary="An execution with its contexts",
)
@reads
def show(execution_id: ExecutionId, who: Who, context: Context) -> Response:
    with context.services.databases.nova.read() as session:
        listed = seen_execution(session, who, execution_id)
        cancelled = {"cancelled_at": listed.execution.cancelled_at, "cancelled_by": listed.execution.cancelled_by}
        return as_json(detail(session, listed) | cancelled)


@router.get(
    "/executions/{execution_id}/chain",
    response_model=ChainShape,
    responses=refusals(404),
    summary="The chain of work: what each node got, did and left",
)
@reads
def chain(execution_id: ExecutionId, who: Who, context: Context) -> Response:
    with context.services.databases.nova.read() as session:
        seen_execution(session, who, execution_id)
        entries = chain_entries(session, execution_id)
    return as_json({"execution_id": execution_id, "entries": entries, "total": len(entries)})


@router.get(
    "/tasks/{task_id}",
    response_model=TaskShape,
    responses=refusals(404),
    summary="How far an execution is, by its task",
)
@reads
def task(task_id: TaskId, who: Who, context: Context) -> Response:
    with context.services.databases.nova.read() as session:
        number = session.scalar(select(Execution.id).where(Execution.task_id == task_id))
        listed = find_execution(session, number) if number is not None else None
        if listed is None or not who.sees(listed.client):
            raise NotFound(f"there is no task {task_id}")
        shown = detail(session, listed)
    status, ended = shown["status"], shown["status"] not in ACTIVE
    return as_json(
        {
            "task_id": task_id,
            # what waits for a person has not succeeded: whoever polls must not take it for done
            "status": status if status in (*ACTIVE, "completed") else "failed",
            "result": {"status": status, "context": shown["context"]} if ended else None,
            "error": shown["error"],
            "execution_id": shown["id"],
        }
    )
