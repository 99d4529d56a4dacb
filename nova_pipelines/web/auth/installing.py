"""Puts authentication into the application, and refuses to build one with a route that names no rule."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI
from starlette.types import Scope

from nova_pipelines.web.access import Authenticate
from nova_pipelines.web.auth import docs, login, oidc
from nova_pipelines.web.auth.dagster_guard import DagsterGuard, GraphQLGuard
from nova_pipelines.web.auth.headers import SecurityHeaders
from nova_pipelines.web.auth.middleware import AuthMiddleware
from nova_pipelines.web.auth.recording import Recorder
from nova_pipelines.web.auth.routes_by_rule import ruled_routes
from nova_pipelines.web.context import WebContext

ROUTERS = (login.router, login.me, oidc.router, docs.router)


def mount_dagster(app: FastAPI, context: WebContext, known_methods: Callable[[Scope], str]) -> None:
    """Dagster under everything that is not NOVA's, for those who see all clients."""
    guard = GraphQLGuard(Recorder(context.services.databases.nova))
    app.mount("/", DagsterGuard(context.dagster.asgi(guard), known_methods))


def install_auth(app: FastAPI, context: WebContext, authenticate: Authenticate) -> None:
    """The last step of building an application. Raises RuntimeError for a route without exactly one rule."""
    unruled = [f"{methods} {path}" for methods, path, rules in ruled_routes(app) if len(rules) != 1]
    if unruled:
        raise RuntimeError(f"each route names one rule of web/access.py; these do not: {', '.join(unruled)}")
    nova, settings = context.services.databases.nova, context.settings
    app.add_middleware(AuthMiddleware, authenticate=authenticate, recorder=Recorder(nova))
    https = (settings.nova_public_url or "").startswith("https:")
    app.add_middleware(SecurityHeaders, https=https)  # added last: outermost
