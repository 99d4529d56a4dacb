"""Dagster in the web process: its UI and GraphQL as an ASGI application, and GraphQL for NOVA's own routes.

All private parts of Dagster that the web service needs stand here. The version is pinned exactly (pyproject.toml).
"""

from __future__ import annotations

import json
import re
from asyncio import Task
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.schema import create_schema
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLFormattedError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from nova_pipelines.compiler.dagster_calls import (
    LAUNCH,
    LOCATION,
    STATUS,
    DagsterStatus,
    launch_variables,
    read_launch,
    read_status,
)
from nova_pipelines.compiler.starting import Asked
from nova_pipelines.database.run_requests import Batch
from nova_pipelines.domain.errors import TransientError
from nova_pipelines.web.access import Refusal
from nova_pipelines.web.auth.graphql_rules import MAX_BYTES

#: seconds after which a statement of the UI on Dagster's database is ended; as `dagster-webserver` has it
STATEMENT_SECONDS = 15
#: connections to Dagster's database are opened anew after so many seconds
RECYCLE_SECONDS = 3600
#: milliseconds between two looks of an open page
POLL_MILLISECONDS = 2000


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


class Dagster:
    """Dagster's instance and workspace of this process. Use it by `with`; it may be asked by several threads."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self.instance = self._stack.enter_context(dg.DagsterInstance.get())
        self.instance.optimize_for_webserver(STATEMENT_SECONDS * 1000, RECYCLE_SECONDS, 20)
        target = WorkspaceFileTarget(paths=[str(self._workspace)])
        self.process = self._stack.enter_context(
            WorkspaceProcessContext(self.instance, workspace_load_target=target, version=__version__)
        )
        self._schema = create_schema()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def asgi(self, guard: Guard) -> Starlette:
        """The UI, GraphQL over http and websocket, and the other routes of `dagster-webserver`."""
        return GuardedWebserver(self.process, guard).create_asgi_app()

    def graphql(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """The data of a GraphQL answer. Blocks. Raises TransientError where Dagster could not answer."""
        with self.process.create_request_context() as context:
            result = self._schema.execute(query, variables=variables, context=context)
        if result.errors or result.data is None:
            reasons = "; ".join(error.message for error in result.errors or [])
            raise TransientError(f"Dagster could not answer: {reasons[:500]}", remedy="look into its log, try again")
        return result.data

    def launch(self, job_name: str, start: str, batch: Batch) -> Asked:
        """Asks for the run of a batch. Never raises for what Dagster says or does."""
        try:
            return read_launch(self.graphql(LAUNCH, launch_variables(job_name, start, batch)))
        except TransientError as error:
            return Asked("unknown", str(error))

    def status(self) -> DagsterStatus:
        """Of code location and daemons. Raises TransientError."""
        return read_status(self.graphql(STATUS))

    def reload(self) -> str | None:
        """Has the code server read the stored workflows again. Blocks for seconds. None: done; else why not."""
        self.process.reload_code_location(LOCATION)
        return self.status().location_error
