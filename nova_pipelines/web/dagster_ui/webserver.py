"""Dagster's own web server, which asks before it executes a GraphQL document and takes no malformed one."""

from __future__ import annotations

import json
import re
from asyncio import Task
from contextlib import suppress
from functools import cache
from typing import Any, Protocol

from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster_graphql.schema import create_schema
from dagster_webserver.webserver import DagsterWebserver
from graphene import Schema
from graphql import GraphQLFormattedError
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from nova_pipelines.web.access import Refusal
from nova_pipelines.web.auth.graphql_rules import MAX_BYTES

#: milliseconds between two looks of an open page
POLL_MILLISECONDS = 2000


@cache
def graphql_schema() -> Schema:
    """Dagster's schema, made once in a process: it takes a quarter of a second, and holds nothing of an instance."""
    return create_schema()


class Guard(Protocol):
    """Who decides about each GraphQL document before it is executed, and is told afterwards. May block."""

    def refusal(self, connection: HTTPConnection, query: str) -> Refusal | None: ...

    def may_write(self, connection: HTTPConnection) -> bool: ...

    def done(self, connection: HTTPConnection, query: str, variables: Any, *, succeeded: bool, status: int) -> None: ...


class GuardedWebserver(DagsterWebserver[WorkspaceProcessContext, WorkspaceRequestContext]):
    """Dagster's web server, which asks before it executes. What is judged is the very text that is executed."""

    def __init__(self, process: WorkspaceProcessContext, guard: Guard) -> None:
        self._guard = guard
        super().__init__(process, live_data_poll_rate=POLL_MILLISECONDS)

    def build_graphql_schema(self) -> Schema:
        return graphql_schema()

    def _make_request_context(self, conn: HTTPConnection) -> WorkspaceRequestContext:
        """For who may only look, Dagster itself refuses changes as well, and the UI offers none."""
        if self._guard.may_write(conn):
            return self._process_context.create_request_context(conn)
        return WorkspaceRequestContext(
            instance=self._process_context.instance,
            current_workspace=self._process_context.get_current_workspace(),
            process_context=self._process_context,
            version=self._process_context.version,
            source=conn,
            read_only=True,
        )

    async def graphql_http_endpoint(self, request: Request) -> HTMLResponse | PlainTextResponse | JSONResponse:
        """Refuses what Dagster would stumble over, and what a form of another page could send."""
        wrong = await _wrong_body(request) if request.method == "POST" else _wrong_query(request)
        return _graphql_error(wrong) if wrong else await super().graphql_http_endpoint(request)

    def graphql_execution_thread(
        self, request: Request, query: str, variables: dict[str, Any] | None, operation_name: str | None
    ) -> JSONResponse:
        refused = self._guard.refusal(request, query)
        if refused is not None:
            return _graphql_error(refused)
        answer = super().graphql_execution_thread(request, query, variables, operation_name)
        succeeded = answer.status_code == 200 and _succeeded(bytes(answer.body))
        self._guard.done(request, query, variables, succeeded=succeeded, status=answer.status_code)
        return answer

    async def graphql_ws_endpoint(self, websocket: WebSocket) -> None:
        try:
            await super().graphql_ws_endpoint(websocket)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a message that is none
            with suppress(RuntimeError, WebSocketDisconnect):  # it may be closed already
                await websocket.close(1003)

    async def execute_graphql_subscription(
        self,
        websocket: WebSocket,
        operation_id: str,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> tuple[Task[None] | None, GraphQLFormattedError | None]:
        if not isinstance(query, str):
            raise TypeError("a query is a text")
        refused = await run_in_threadpool(self._guard.refusal, websocket, query)
        if refused is not None:
            return None, {"message": refused.detail}
        return await super().execute_graphql_subscription(websocket, operation_id, query, variables, operation_name)


def _graphql_error(refusal: Refusal) -> JSONResponse:
    return JSONResponse({"data": None, "errors": [{"message": refusal.detail}]}, refusal.status)


def _succeeded(body: bytes) -> bool:
    """Whether an answer says so. Dagster answers 200 with an object of an error's type for what it did not do."""
    data = json.loads(body).get("data") or {}
    kinds = [str(found.get("__typename", "")) for found in data.values() if isinstance(found, dict)]
    return bool(data) and not any(re.search(r"Error|NotFound|Invalid|Conflict|Missing|Failure", kind) for kind in kinds)


def _wrong_query(request: Request) -> Refusal | None:
    try:
        variables = json.loads(request.query_params.get("variables") or "{}")
    except (ValueError, RecursionError):
        variables = None
    return None if isinstance(variables, dict) else Refusal(400, "variables must be an object, as JSON")


async def _wrong_body(request: Request) -> Refusal | None:
    """Why the body is none of a GraphQL request. Dagster would also take one in the URL, sent by a plain form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("application/json", "application/graphql"):
        return Refusal(415, "send application/json")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BYTES:
            return Refusal(413, f"a request has at most {MAX_BYTES} bytes")
    request._body = bytes(body)  # where Request.body() looks
    try:
        text = body.decode()
        data = json.loads(text) if kind == "application/json" else {"query": text}
    except (ValueError, RecursionError):
        return Refusal(400, "the body is no JSON")
    if not isinstance(data, dict) or not isinstance(data.get("query"), str):
        return Refusal(400, 'the body must be one object {"query": "…"}')
    if not isinstance(data.get("variables") or {}, dict) or not isinstance(data.get("operationName") or "", str):
        return Refusal(400, "variables must be an object, operationName a text")
    return None
