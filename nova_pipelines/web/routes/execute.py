"""`POST /workflows/{id}/execute`, and executions that are taken up again or ended."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from pydantic import Field
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from nova_pipelines.compiler.beginning import Begun, begin_execution, start_of
from nova_pipelines.compiler.collect import check_context
from nova_pipelines.database.cancelling import cancel
from nova_pipelines.database.executions import release
from nova_pipelines.database.idempotency import Request as OneRequest
from nova_pipelines.database.idempotency import do_once
from nova_pipelines.database.nova import Workflow
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import Conflict, NotFound, PermanentError
from nova_pipelines.web.access import OPERATOR, Principal
from nova_pipelines.web.answers import as_json, refusals
from nova_pipelines.web.background import Background
from nova_pipelines.web.bodies import Body, body_of, documented
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.following import TooMany, Watch
from nova_pipelines.web.launching import Wanted, new_run_key
from nova_pipelines.web.routes.workflows import Context, Threads, WorkflowId, live_workflow
from nova_pipelines.web.seeing import Who, seen_execution
from nova_pipelines.web.shapes import CancelShape, Started

router = APIRouter(tags=["executions"], dependencies=[Depends(OPERATOR)])

#: seconds that a request may wait for the end of its execution
MAX_WAIT = 60
ACTIVE = ("pending", "running")
ExecutionId = Annotated[int, Path(description="Number of an execution")]
IdempotencyKey = Annotated[str | None, Header(alias="Idempotency-Key", pattern="^[!-~]{1,255}$")]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for its end")]


class Execute(Body):
    """`client_slug`: the client it works for, none by default; `initial_context`: what it begins with."""

    client_slug: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    initial_context: dict[str, Any] = Field(default_factory=dict)


class Retry(Body):
    """`force`: also where the outcome is unknown: its work may be done twice."""

    force: bool = False


@router.post(
    "/workflows/{workflow_id}/execute",
    status_code=202,
    response_model=Started,
    responses=refusals(404),
    openapi_extra=documented(Execute, required=False),
    summary="Begin an execution of the newest version",
)
async def execute(
    workflow_id: WorkflowId,
    body: Annotated[Execute, Depends(body_of(Execute, optional=True))],
    who: Who,
    context: Context,
    threads: Threads,
    idempotency_key: IdempotencyKey = None,
    wait: Wait = 0,
) -> Response:
    answer, again = await run_in_threadpool(_execute, workflow_id, body, who, context, threads, idempotency_key)
    if wait:
        answer = {**answer, "status": await _ended(threads.watch, answer["execution_id"], who, wait)}
    return as_json(
        answer,
        202,
        {"Location": f"/executions/{answer['execution_id']}"} | ({"Idempotency-Replayed": "true"} if again else {}),
    )


def _execute(
    workflow_id: int, body: Execute, who: Principal, context: WebContext, threads: Background, key: str | None
) -> tuple[dict[str, Any], bool]:
    check_context(body.initial_context)
    slug = body.client_slug.strip().lower() if body.client_slug is not None else None
    if who.clients is not None and slug is None:
        raise PermanentError(f"{who.name} works for some clients only", remedy="say for which: client_slug")
    if not who.sees(slug):
        raise NotFound(f"there is no client {slug!r}")
    run_key = new_run_key()
    begun: Begun | None = None

    def work(session: Session) -> tuple[int, dict[str, Any]]:
        nonlocal begun
        begun = begin_execution(
            session, live_workflow(session, workflow_id).id, slug, body.initial_context, run_key=run_key
        )
        return begun.execution_id, _started(begun)

    nova = context.services.databases.nova
    if key is None:
        with nova.session() as session:
            answer, again = work(session)[1], False
    else:
        digest = hashlib.sha256(canonical_json([workflow_id, slug, body.initial_context]).encode()).hexdigest()
        answer, again = do_once(nova, OneRequest(_principal_key(who), key, digest), work)
    if begun is not None and not again:
        threads.launcher.take(Wanted(begun.execution_id, run_key, begun.client, begun.start))
    return answer, again


def _principal_key(who: Principal) -> str:
    return f"{who.kind}:{who.id if who.id is not None else who.name}"[:200]


def _started(begun: Begun) -> dict[str, Any]:
    return {
        "task_id": begun.task_id,
        "status": "pending",
        "execution_id": begun.execution_id,
        "workflow_id": begun.start.workflow_id,
        "workflow_name": begun.workflow_name,
    }


async def _ended(watch: Watch, number: int, who: Principal, seconds: float) -> str:
    """The status of an execution when it has ended, or after `seconds`. Holds no thread."""
    status = "pending"
    try:
        with watch.follow(number, _principal_key(who)) as follower, suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while status in ACTIVE:
                    await follower.changed.wait()
                    follower.changed.clear()
                    status = follower.state[0] if follower.state else status
    except TooMany:
        raise HTTPException(503, "too many wait already; the execution was begun", {"Retry-After": "5"}) from None
    return status


@router.post(
    "/executions/{execution_id}/retry",
    status_code=202,
    response_model=Started,
    responses=refusals(404, 409),
    openapi_extra=documented(Retry, required=False),
    summary="Take up an execution where it stopped",
)
def retry(
    execution_id: ExecutionId,
    body: Annotated[Retry, Depends(body_of(Retry, optional=True))],
    who: Who,
    context: Context,
    threads: Threads,
) -> Response:
    run_key = new_run_key()
    with context.services.databases.nova.session() as session:
        listed = seen_execution(session, who, execution_id)
        execution = listed.execution
        # first, so that a definition which no longer compiles leaves everything as it was
        start = start_of(session, session.get_one(Workflow, execution.workflow_id))
        done = release(session, [execution_id], force=body.force, run_key=run_key, by=f"{who.name}, over HTTP")
        for refusal in done.refused:
            remedy = "look first, then send force: true" if execution.status == "unknown" else None
            raise Conflict(f"execution {execution_id} is not retried: {refusal.reason}", remedy=remedy)
        answer = {
            "task_id": execution.task_id,
            "status": "pending",
            "execution_id": execution_id,
            "workflow_id": start.workflow_id,
            "workflow_name": listed.workflow,
        }
    threads.launcher.take(Wanted(execution_id, run_key, listed.client, start))
    return as_json(answer, 202, {"Location": f"/executions/{execution_id}"})


@router.post(
    "/executions/{execution_id}/cancel",
    status_code=202,
    response_model=CancelShape,
    responses=refusals(404, 409),
    summary="End an execution: its run too if it carries nothing else, else before its next node",
)
def cancel_execution(execution_id: ExecutionId, who: Who, context: Context, request: Request) -> Response:
    with context.services.databases.nova.session() as session:
        seen_execution(session, who, execution_id)
        done = cancel(session, execution_id, by=who.name)
    ended = done.run_id is not None and context.dagster.end_run(done.run_id) is None
    run = "ended" if ended else "stops" if done.status == "running" else "none"
    return as_json({"execution_id": execution_id, "status": done.status, "run": run}, 202)
