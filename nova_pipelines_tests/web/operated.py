"""An application of this process, for tests of what looks after it; Dagster says what a test wants."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Depends, FastAPI

from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import Settings
from nova_pipelines.web.access import PUBLIC, Principal, Refusal
from nova_pipelines.web.app import create_app
from nova_pipelines.web.context import WebContext
from nova_pipelines_tests.web.stand_in import StandIn

with warnings.catch_warnings():  # it would rather have a successor of httpx that few have
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


@contextmanager
def operated(
    settings: Settings, *, principal: Principal | None = None, more: tuple[str, object] | None = None
) -> Iterator[tuple[TestClient, StandIn, FastAPI]]:
    """A client of an application on these settings, as `principal`; `more`: path and function of one more route."""
    words, services = StandIn(), build_services(settings)
    context = WebContext(settings, services, words)  # type: ignore[arg-type]
    app = create_app(context, authenticate=lambda connection: principal or Refusal())
    if more:
        app.router.routes.insert(0, _route(*more))

    try:
        with TestClient(app, raise_server_exceptions=False) as client:
            yield client, words, app
    finally:
        services.close()
        services.databases.close()


def _route(path: str, function: object):
    made = FastAPI()
    made.add_api_route(path, function, methods=["GET", "POST"], dependencies=[Depends(PUBLIC)])  # type: ignore[arg-type]
    return made.router.routes[-1]


OPEN = Principal("open", "admin", "open")
