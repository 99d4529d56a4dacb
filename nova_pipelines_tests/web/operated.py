"""An application of this process, for tests of what looks after it; Dagster says what a test wants."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Depends, FastAPI
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from nova_pipelines.domain.errors import TransientError
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import Settings
from nova_pipelines.web.access import PUBLIC, Principal
from nova_pipelines.web.app import create_app
from nova_pipelines.web.context import WebContext

with warnings.catch_warnings():  # it would rather have a successor of httpx that few have
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


class Words:
    """What Dagster would say, where a test is not about Dagster. Real ones: test_stopping.py."""

    def __init__(self) -> None:
        self.code_server = True
        self.location: str | None = None
        self.beats = {"SENSOR": time.time()}

    def asgi(self) -> ASGIApp:
        async def page(scope: Scope, _receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"<html>"})

        return page

    def ping_code_server(self) -> None:
        if not self.code_server:
            raise TransientError("the code server at c0de-host does not answer")

    def location_error(self) -> str | None:
        return self.location

    def heartbeats(self) -> dict[str, float]:
        return self.beats


@contextmanager
def operated(
    settings: Settings, *, principal: Principal | None = None, more: tuple[str, object] | None = None
) -> Iterator[tuple[TestClient, Words, FastAPI]]:
    """A client of an application on these settings, as `principal`; `more`: path and function of one more route."""
    words, services = Words(), build_services(settings)
    app = create_app(WebContext(settings, services, words))  # type: ignore[arg-type]
    if more:
        app.router.routes.insert(0, _route(*more))

    async def known(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            scope.setdefault("state", {})["principal"] = principal
            assert HTTPConnection(scope).scope is scope
        await app(scope, receive, send)

    try:
        with TestClient(known, raise_server_exceptions=False) as client:
            yield client, words, app
    finally:
        services.close()
        services.databases.close()


def _route(path: str, function: object):
    made = FastAPI()
    made.add_api_route(path, function, methods=["GET", "POST"], dependencies=[Depends(PUBLIC)])  # type: ignore[arg-type]
    return made.router.routes[-1]


OPEN = Principal("open", "admin", "open")
