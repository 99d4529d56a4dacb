"""Puts the application together: NOVA's routes, then Dagster's UI and GraphQL under everything else."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.requests import Request
from starlette.routing import Match

from nova_pipelines.web import errors, openapi
from nova_pipelines.web.access import PUBLIC
from nova_pipelines.web.background import Background
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.limits import BodyLimit
from nova_pipelines.web.routes import ROUTERS
from nova_pipelines.web.totals import Totals

VERSION = version("nova-pipelines")
DESCRIPTION = "Workflows, executions and their chain of work. The Dagster UI is on the same port."
#: first parts of paths that are NOVA's alone: what is unknown below them is 404, not Dagster's page
PREFIXES = ("clients", "workflows", "tasks", "executions", "health", "metrics", "invoices", "mailboxes")

#: all that a request may name: what a path does not know is 405, and never Dagster's page
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def create_app(context: WebContext) -> FastAPI:
    """The whole ASGI application. `context.dagster` must be open as long as it serves."""
    background = Background(context)
    app = FastAPI(title="NOVA", version=VERSION, description=DESCRIPTION, lifespan=background.lifespan)
    app.state.context, app.state.background, app.state.totals = context, background, Totals()
    app.add_middleware(BodyLimit)
    errors.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.include_router(_unknown())
    openapi.install(app)
    app.mount("/", context.dagster.asgi())
    return app


def _unknown() -> APIRouter:
    """Answers 404 below NOVA's own prefixes: Dagster's page would answer 200 for anything."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(PUBLIC)])

    def unknown(request: Request) -> None:
        if allowed := _methods(request):
            raise HTTPException(405, f"{request.url.path} knows {allowed}", headers={"Allow": allowed})
        raise HTTPException(404, f"there is no {request.url.path} here; /docs lists what there is")

    for prefix in PREFIXES:
        for path in (f"/{prefix}", f"/{prefix}/{{rest:path}}"):
            router.add_api_route(path, unknown, methods=METHODS)
    return router


def _methods(request: Request) -> str:
    """The methods of what this path is, for one that is known with others only."""
    routes = [route for router in ROUTERS for route in router.routes]
    found = [route for route in routes if route.matches(request.scope)[0] is Match.PARTIAL]
    return ", ".join(sorted({method for route in found for method in getattr(route, "methods", ())}))
