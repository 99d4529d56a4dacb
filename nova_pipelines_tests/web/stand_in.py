"""Stands where the application's Dagster is, for tests that are not about it. Real ones: test_stopping.py, api/."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Receive, Scope, Send

from nova_pipelines.compiler.dagster_calls import Asked
from nova_pipelines.database.run_requests import Batch
from nova_pipelines.domain.errors import TransientError


class StandIn:
    """A Dagster that is well, has loaded nothing, and takes no run."""

    def __init__(self) -> None:
        self.code_server = True
        self.location: str | None = None
        self.beats = {"SENSOR": time.time()}

    def asgi(self, guard: object) -> ASGIApp:
        async def page(scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"<html>"})

        return page

    def launch(self, job_name: str, start: str, batch: Batch) -> Asked:
        return Asked("refused", "no run here")

    def loaded_revision(self) -> int | None:
        return None

    def reload(self) -> str | None:
        return "there is nothing to reload"

    def ping_code_server(self) -> None:
        if not self.code_server:
            raise TransientError("the code server at c0de-host does not answer")

    def location_error(self) -> str | None:
        return self.location

    def heartbeats(self) -> dict[str, float]:
        return self.beats
