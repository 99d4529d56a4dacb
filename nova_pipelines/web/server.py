"""Serves the application with uvicorn."""

from __future__ import annotations

import argparse
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings
from nova_pipelines.web.access import Principal
from nova_pipelines.web.app import create_app
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.dagster_ui import Dagster

#: seconds that requests get to end when the server is told to
GRACE_SECONDS = 2


def main() -> None:
    """Until a signal comes."""
    parser = argparse.ArgumentParser(prog="nova_pipelines.web")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    settings = load_settings()
    services = build_services(settings)
    with Dagster(given.workspace) as dagster:
        uvicorn.run(
            _open(create_app(WebContext(settings, services, dagster)), given.host),
            host=given.host,
            port=given.port,
            log_level=settings.log_level.lower(),
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    services.close()
    services.databases.close()


def _open(app: ASGIApp, host: str) -> ASGIApp:
    """On loopback whoever asks may do everything. The authentication takes this place."""

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and host in ("127.0.0.1", "::1", "localhost"):
            scope.setdefault("state", {}).setdefault("principal", Principal("open", "admin", "open"))
        await app(scope, receive, send)

    return gate
