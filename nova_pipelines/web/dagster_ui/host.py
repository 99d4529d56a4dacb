"""Dagster's instance and workspace in the web process: what serves the UI, and GraphQL for NOVA's own routes."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.version import __version__
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from nova_pipelines.compiler.dagster_calls import (
    LAUNCH,
    LOCATION,
    STATE_KEY,
    STATUS,
    TERMINATE,
    Asked,
    DagsterStatus,
    launch_variables,
    read_launch,
    read_status,
)
from nova_pipelines.compiler.tags import RUN_KEY
from nova_pipelines.database.run_requests import Batch
from nova_pipelines.domain.errors import TransientError
from nova_pipelines.web.dagster_ui.webserver import Guard, GuardedWebserver, graphql_schema
from nova_pipelines.web.tracing import span

#: seconds after which a statement of the UI on Dagster's database is ended; as `dagster-webserver` has it
STATEMENT_SECONDS = 15
#: connections to Dagster's database are opened anew after so many seconds
RECYCLE_SECONDS = 3600
#: seconds that the start waits for Dagster's database, and between two tries to open it
OPEN_SECONDS, RETRY_SECONDS = 20.0, 2.0
#: seconds that the code server may take to say who it is
PING_SECONDS = 2

log = logging.getLogger("nova.web")


class Dagster:
    """Dagster's instance and workspace of this process. Use it by `with`; it may be asked by several threads.

    Where Dagster's database cannot be reached it opens later, by itself: until then whatever needs it is refused with
    TransientError, and the rest of the web service serves.
    """

    def __init__(self, workspace: Path, *, patience: float = OPEN_SECONDS) -> None:
        self._workspace, self._patience = workspace, patience
        self._stack = ExitStack()
        self._closing, self._settled = threading.Event(), threading.Event()
        self._problem: str | None = "it is being opened"
        self._app: ASGIApp | None = None

    def __enter__(self) -> Self:
        self._schema = graphql_schema()
        # a daemon thread: a database that hangs must not keep the process
        threading.Thread(target=self._open_when_possible, name="open dagster", daemon=True).start()
        self._settled.wait(self._patience)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._problem is None:
            self._stack.close()

    def _open_when_possible(self) -> None:
        while not self._closing.is_set():
            try:
                with ExitStack() as stack:
                    self._open(stack)
                    self._stack = stack.pop_all()
                self._problem = None
            except Exception as error:  # noqa: BLE001 - of any database and driver
                self._problem = f"{type(error).__name__}: {error}"[:500]
                log.warning("Dagster's instance cannot be opened yet: %s", self._problem)
            self._settled.set()
            if self._problem is None or self._closing.wait(RETRY_SECONDS):
                return

    def _open(self, stack: ExitStack) -> None:
        self.instance = stack.enter_context(dg.DagsterInstance.get())
        self.instance.optimize_for_webserver(STATEMENT_SECONDS * 1000, RECYCLE_SECONDS, 20)
        target = WorkspaceFileTarget(paths=[str(self._workspace)])
        self.process = stack.enter_context(
            WorkspaceProcessContext(self.instance, workspace_load_target=target, version=__version__)
        )

    def require_open(self) -> None:
        """Raises TransientError while Dagster's instance is not open."""
        if self._problem is not None:
            raise TransientError(
                f"Dagster's database cannot be reached: {self._problem}", remedy="it is tried again by itself"
            )

    def asgi(self, guard: Guard) -> ASGIApp:
        """The UI, GraphQL over http and websocket, and the other routes of `dagster-webserver`."""

        async def late(scope: Scope, receive: Receive, send: Send) -> None:
            if self._problem is not None:
                await _refuse(scope, receive, send)
                return
            if self._app is None:
                self._app = GuardedWebserver(self.process, guard).create_asgi_app()
            await self._app(scope, receive, send)

        return late

    def ping_code_server(self) -> None:
        """Raises TransientError where the code server does not answer within PING_SECONDS."""
        (origin,) = WorkspaceFileTarget(paths=[str(self._workspace)]).create_origins()
        if not isinstance(origin, GrpcServerCodeLocationOrigin):
            raise TransientError(f"{self._workspace} names no code server", remedy="let `nova serve web` write it")
        try:
            origin.create_client().get_server_id(timeout=PING_SECONDS)
        except DagsterUserCodeUnreachableError as error:
            raise TransientError(f"the code server does not answer: {error}", remedy="look into code.log") from error

    def location_error(self) -> str | None:
        """Why this process has not loaded the code location; None: it has. Raises TransientError."""
        self.require_open()
        entry = self.process.create_request_context().get_location_entry(LOCATION)
        if entry is None or entry.load_error is not None:
            return entry.load_error.message if entry and entry.load_error else "it is not in the workspace"
        return None if entry.code_location is not None else "it is being loaded"

    def heartbeats(self) -> dict[str, float]:
        """Daemon → time of its last heartbeat (epoch seconds), of those that must run. Asks Dagster's database."""
        self.require_open()
        beats = self.instance.get_daemon_heartbeats()
        required = self.instance.get_required_daemon_types()
        return {name: beats[name].timestamp if name in beats else 0.0 for name in required}

    def graphql(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """The data of a GraphQL answer. Blocks; not for a thread with an event loop, since some of Dagster's
        resolvers are coroutines. Raises TransientError where Dagster could not answer."""
        self.require_open()
        with self.process.create_request_context() as context:
            result = asyncio.run(self._schema.execute_async(query, variables=variables, context=context))
        if result.errors or result.data is None:
            reasons = "; ".join(error.message for error in result.errors or [])
            raise TransientError(f"Dagster could not answer: {reasons[:500]}", remedy="look into its log, try again")
        return result.data

    def launch(self, job_name: str, start: str, batch: Batch) -> Asked:
        """Asks for the run of a batch. Never raises for what Dagster says or does."""
        try:
            with span("nova.launch", job=job_name, run_key=batch.key, executions=len(batch.executions)):
                return read_launch(self.graphql(LAUNCH, launch_variables(job_name, start, batch)))
        except TransientError as error:
            return Asked("unknown", str(error))

    def status(self) -> DagsterStatus:
        """Of code location and daemons. Raises TransientError."""
        return read_status(self.graphql(STATUS))

    def reload(self) -> str | None:
        """Has the code server read the stored workflows again. Blocks for a second or so. None: done; else why not."""
        self.require_open()
        if LOCATION not in self.process.get_current_workspace().code_location_entries:
            return f"the workspace names no code location {LOCATION!r}"
        self.process.reload_code_location(LOCATION)
        return self.status().location_error

    def loaded_revision(self) -> int | None:
        """The revision of the catalog whose versions are live; None: no code location is loaded. Does not block."""
        if self._problem is not None:
            return None
        location = self.process.get_current_workspace().code_location_entries.get(LOCATION)
        if location is None or location.code_location is None:
            return None
        for repository in location.code_location.get_repositories().values():
            found = (repository.repository_snap.metadata or {}).get(STATE_KEY)
            if found is not None:
                return int(str(found.value))
        return None

    def end_run(self, run: str) -> str | None:
        """Ends the run with this id, or the one that was asked for under this key. None: it ends; else why not."""
        try:
            run_id = self._run_id(run)
            if run_id is None:
                return "there is no such run yet"
            answer: dict[str, Any] = self.graphql(TERMINATE, {"run": run_id})["terminateRun"]
        except TransientError as error:
            return str(error)
        if answer["__typename"] == "TerminateRunSuccess":
            return None
        return str(answer.get("message") or answer["__typename"])

    def _run_id(self, run: str) -> str | None:
        self.require_open()
        if self.instance.get_run_by_id(run) is not None:
            return run
        records = self.instance.get_run_records(dg.RunsFilter(tags={RUN_KEY: run}), limit=1)
        return records[0].dagster_run.run_id if records else None


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    """While Dagster's database is away: its pages and GraphQL only, all else of this service goes on."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1013, "reason": "try again later"})
        return
    body = {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "Dagster's database cannot be reached; it is tried again by itself",
    }
    answer = JSONResponse(body, 503, {"Retry-After": "5"}, media_type="application/problem+json")
    await answer(scope, receive, send)
