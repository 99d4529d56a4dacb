"""Puts the application together: NOVA's routes, then Dagster's UI and GraphQL under everything else."""

from __future__ import annotations

from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import Scope

from nova_pipelines.web import errors, openapi, operation
from nova_pipelines.web.access import PUBLIC, Authenticate
from nova_pipelines.web.auth import installing
from nova_pipelines.web.auth.authentication import Authentication
from nova_pipelines.web.background import Background
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.kept import Kept
from nova_pipelines.web.routes import ROUTERS
from nova_pipelines.web.totals import Totals

VERSION = version("nova-pipelines")
DESCRIPTION = "Workflows, executions and their chain of work. The Dagster UI is on the same port."
#: first parts of paths that are NOVA's alone: what is unknown below them is 404, not Dagster's page
PREFIXES = ("clients", "workflows", "tasks", "executions", "invoices", "mailboxes", "health", "metrics", "approvals")
PREFIXES += ("pages", "login", "logout", "whoami", "docs", "redoc")

#: how old the health of the mailboxes may be: it takes ten queries
MAILBOXES_SECONDS = 1.0
#: all that a request may name: what a path does not know is 405, and never Dagster's page
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


def create_app(context: WebContext, *, host: str = "127.0.0.1", authenticate: Authenticate | None = None) -> FastAPI:
    """The whole ASGI application. `context.dagster` must be open as long as it serves.

    `host`: where it listens. `authenticate`: finds who asks in place of `Authentication`.
    """
    background = Background(context)
    app = FastAPI(
        title="NOVA",
        version=VERSION,
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=background.lifespan,
    )
    app.state.context, app.state.background, app.state.totals = context, background, Totals()
    app.state.mailboxes = Kept(MAILBOXES_SECONDS)
    errors.install(app)
    for router in (*installing.ROUTERS, *ROUTERS):
        app.include_router(router)
    app.include_router(_unknown())
    openapi.install(app)
    installing.mount_dagster(app, context, _methods)
    installing.install_auth(
        app, context, authenticate or Authentication(context.settings, context.services.databases.nova, host)
    )
    operation.install(app, context)
    return app


def _unknown() -> APIRouter:
    """Answers 404 below NOVA's own prefixes: Dagster's page would answer 200 for anything."""
    router = APIRouter(include_in_schema=False, dependencies=[Depends(PUBLIC)])

    def unknown(request: Request) -> None:
        if allowed := _methods(request.scope):
            raise HTTPException(405, f"{request.url.path} knows {allowed}", headers={"Allow": allowed})
        raise HTTPException(404, f"there is no {request.url.path} here; /docs lists what there is")

    for prefix in PREFIXES:
        for path in (f"/{prefix}", f"/{prefix}/{{rest:path}}"):
            router.add_api_route(path, unknown, methods=METHODS)
    return router


def _methods(scope: Scope) -> str:
    """The methods of what this path is, for one that is known with others only."""
    routes = [route for router in (*installing.ROUTERS, *ROUTERS) for route in router.routes]
    found = [route for route in routes if route.matches(scope)[0] is Match.PARTIAL]
    return ", ".join(sorted({method for route in found for method in getattr(route, "methods", ())}))
