"""Dagster in the web process: its UI and GraphQL as an ASGI application, and GraphQL for NOVA's own routes.

All private parts of Dagster that the web service needs stand here. The version is pinned exactly (pyproject.toml).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_graphql.schema import create_schema
from dagster_webserver.version import __version__
from dagster_webserver.webserver import DagsterWebserver
from starlette.applications import Starlette
from starlette.requests import HTTPConnection

from nova_pipelines.compiler.dagster_calls import (
    LAUNCH,
    LOCATION,
    STATE_KEY,
    STATUS,
    TERMINATE,
    DagsterStatus,
    launch_variables,
    read_launch,
    read_status,
)
from nova_pipelines.compiler.starting import Asked
from nova_pipelines.compiler.tags import RUN_KEY
from nova_pipelines.database.run_requests import Batch
from nova_pipelines.domain.errors import TransientError

#: seconds after which a statement of the UI on Dagster's database is ended; as `dagster-webserver` has it
STATEMENT_SECONDS = 15
#: connections to Dagster's database are opened anew after so many seconds
RECYCLE_SECONDS = 3600
#: milliseconds between two looks of an open page
POLL_MILLISECONDS = 2000

#: whether this GraphQL document may be sent on this connection: None, or why not
Guard = Callable[[HTTPConnection, str, str | None], str | None]


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

    def asgi(self) -> Starlette:
        """The UI, GraphQL over http and websocket, and the other routes of `dagster-webserver`."""
        return DagsterWebserver(self.process, live_data_poll_rate=POLL_MILLISECONDS).create_asgi_app()

    def graphql(self, query: str, variables: dict[str, Any] | None = None) -> dict[str, Any]:
        """The data of a GraphQL answer. Blocks; not for a thread with an event loop, since some of Dagster's
        resolvers are coroutines. Raises TransientError where Dagster could not answer."""
        with self.process.create_request_context() as context:
            result = asyncio.run(self._schema.execute_async(query, variables=variables, context=context))
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
        """Has the code server read the stored workflows again. Blocks for a second or so. None: done; else why not."""
        if LOCATION not in self.process.get_current_workspace().code_location_entries:
            return f"the workspace names no code location {LOCATION!r}"
        self.process.reload_code_location(LOCATION)
        return self.status().location_error

    def loaded_revision(self) -> int | None:
        """The revision of the catalog whose versions are live; None: no code location is loaded. Does not block."""
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
        run_id = self._run_id(run)
        if run_id is None:
            return "there is no such run yet"
        try:
            answer: dict[str, Any] = self.graphql(TERMINATE, {"run": run_id})["terminateRun"]
        except TransientError as error:
            return str(error)
        if answer["__typename"] == "TerminateRunSuccess":
            return None
        return str(answer.get("message") or answer["__typename"])

    def _run_id(self, run: str) -> str | None:
        if self.instance.get_run_by_id(run) is not None:
            return run
        records = self.instance.get_run_records(dg.RunsFilter(tags={RUN_KEY: run}), limit=1)
        return records[0].dagster_run.run_id if records else None
