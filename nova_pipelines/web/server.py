"""Serves the application with uvicorn."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

import uvicorn

from nova_pipelines.database.identities import OPEN_NOTICE, refuse_exposure
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.setting_values import split_list
from nova_pipelines.settings import Settings, load_settings
from nova_pipelines.web.app import create_app
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.dagster_ui import Dagster

log = logging.getLogger("nova.web")
#: seconds that requests get to end when the server is told to
GRACE_SECONDS = 2


def main() -> None:
    """Until a signal comes."""
    parser = argparse.ArgumentParser(prog="nova_pipelines.web")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args()
    try:
        _serve(load_settings(), given.workspace, given.host, given.port)
    except NovaError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


def _serve(settings: Settings, workspace: Path, host: str, port: int) -> None:
    services = build_services(settings)
    if refuse_exposure(services.databases.nova, settings, host):
        log.warning(OPEN_NOTICE)
    proxies = split_list(settings.nova_trusted_proxies)
    with Dagster(workspace) as dagster:
        uvicorn.run(
            create_app(WebContext(settings, services, dagster), host=host),
            host=host,
            port=port,
            log_level=settings.log_level.lower(),
            access_log=False,
            server_header=False,
            # uvicorn would believe every program of this machine
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    services.close()
    services.databases.close()
