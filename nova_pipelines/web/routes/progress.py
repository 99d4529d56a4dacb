"""`GET /executions/{id}/events`: an execution's progress as server-sent events (HTML standard, 9.2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, HTTPException, Response
from sqlalchemy import select
from sqlalchemy.orm import Session
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool

from nova_pipelines.compiler.lookup import iso
from nova_pipelines.database.nova import ChainRow, Execution
from nova_pipelines.web.access import VIEWER
from nova_pipelines.web.answers import refusals
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.following import Follower, TooMany
from nova_pipelines.web.routes.execute import ACTIVE, ExecutionId
from nova_pipelines.web.routes.workflows import Context, Threads
from nova_pipelines.web.seeing import Who, seen_execution

router = APIRouter(tags=["executions"], dependencies=[Depends(VIEWER)])

#: seconds between two signs of life, so that no proxy takes the stream for dead
PING = 15
#: a stream ends after so many seconds: a browser connects again and goes on where it was
LONGEST = 3_600.0
#: the id of the last event; a browser that comes back with it is told not to
END = "end"
_ROW = ("seq", "node_id", "node_type", "status", "execution_time", "decision_result", "path_taken", "error_message")
STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`status`: {status}; `chain`: a row of the chain of work, without contexts; `end`: "
        "{status, error}, then the stream ends. The id of an event is the row's place in the chain.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The end was told already (Last-Event-ID: end)"},
}


@router.get(
    "/executions/{execution_id}/events",
    response_class=EventSourceResponse,
    response_model=None,
    responses={**STREAM, **refusals(404)},
    summary="An execution's progress, as it happens",
)
async def events(
    execution_id: ExecutionId,
    who: Who,
    context: Context,
    threads: Threads,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> Response:
    def look() -> None:
        with context.services.databases.nova.read() as session:
            seen_execution(session, who, execution_id)

    await run_in_threadpool(look)
    if last_event_id == END:
        return Response(status_code=204)
    after = int(last_event_id) if last_event_id and last_event_id.isascii() and last_event_id.isdigit() else 0
    if not threads.watch.has_room(who.name):
        raise HTTPException(503, "too many follow executions already", {"Retry-After": "5"})

    async def stream() -> AsyncIterator[ServerSentEvent]:
        # the last place may be gone by now: the stream ends at once, and a browser comes again
        with suppress(TooMany), threads.watch.follow(execution_id, who.name) as follower:
            async for event in _events(context, follower, after):
                yield event

    return EventSourceResponse(stream(), ping=PING, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})


async def _events(context: WebContext, follower: Follower, after: int) -> AsyncIterator[ServerSentEvent]:
    """What has happened since row `after`, and what happens, until the execution ends."""
    told: str | None = None
    until = asyncio.get_running_loop().time() + LONGEST
    while asyncio.get_running_loop().time() < until:
        follower.changed.clear()
        status, error, rows = await run_in_threadpool(_news, context, follower.execution_id, after)
        for row in rows:
            after = row["seq"]
            yield ServerSentEvent(json.dumps(row), event="chain", id=str(after))
        if status not in ACTIVE:
            yield ServerSentEvent(json.dumps({"status": status, "error": error}), event=END, id=END)
            return
        if status != told:
            told = status
            yield ServerSentEvent(json.dumps({"status": status}), event="status")
        try:
            await asyncio.wait_for(follower.changed.wait(), PING)
        except TimeoutError:
            continue


def _news(context: WebContext, number: int, after: int) -> tuple[str, str | None, list[dict[str, Any]]]:
    with context.services.databases.nova.read() as session:
        status, error = session.execute(select(Execution.status, Execution.error).where(Execution.id == number)).one()
        return status, error, _rows(session, number, after)


def _rows(session: Session, number: int, after: int) -> list[dict[str, Any]]:
    columns = [getattr(ChainRow, name) for name in (*_ROW, "timestamp")]
    query = select(*columns).where(ChainRow.execution_id == number, ChainRow.seq > min(after, 2**31 - 1))
    return [
        {**{name: getattr(row, name) for name in _ROW}, "timestamp": iso(row.timestamp)}
        for row in session.execute(query.order_by(ChainRow.seq))
    ]
