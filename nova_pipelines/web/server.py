"""Serves the application with uvicorn: its limits, its log, and an end within two seconds."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
import threading
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from nova_pipelines.adapters import logs
from nova_pipelines.database.identities import OPEN_NOTICE, refuse_exposure
from nova_pipelines.database.session import require_file
from nova_pipelines.domain.errors import NovaError, TransientError
from nova_pipelines.nodes.webhooks import Courier
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import Settings, load_settings
from nova_pipelines.web import sentry, tracing
from nova_pipelines.web.app import VERSION, create_app
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.dagster_ui import Dagster
from nova_pipelines.web.limits import configuration

#: seconds for everything that is to be done after the last request
CLOSE_SECONDS = 0.7

log = logging.getLogger("nova.web")


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
    sentry.start(settings, logs.set_up(settings), VERSION)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn has its own while it serves, and raises the signal once more at its end: that one must not end us
        signal.signal(number, lambda *_: None)
    traces = tracing.Tracing(settings) if tracing.wanted(settings) else None
    services = build_services(settings, in_service=True)
    require_file(services.databases.nova)
    try:
        if refuse_exposure(services.databases.nova, settings, host):
            log.warning(OPEN_NOTICE)
    except TransientError as error:  # it is asked with each request, and meanwhile nobody is let in
        log.error("nobody can be recognised yet: %s", error.message)
    courier = Courier(services, settings)
    with Dagster(workspace) as dagster:
        app: ASGIApp = create_app(WebContext(settings, services, dagster), host=host)
        courier.start()
        settle_memory()
        server = uvicorn.Server(configuration(traces.wrap(app) if traces else app, settings, host, port))
        server.run()
        closing = threading.Thread(target=_close, args=(courier, traces, settings), daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)
        log.info("the web service ends")
        logging.shutdown()
        # threads that wait for a database that hangs would keep the process, and hold nothing that is to be saved
        os._exit(0)


def settle_memory() -> None:
    """Ends what `__main__` begins: the collector of cycles is on, and no longer walks over what the start has made.

    That stays for ever, and a walk over it would stop every request for a fifth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def _close(courier: Courier, traces: tracing.Tracing | None, settings: Settings) -> None:
    courier.stop(0.3)
    if traces:
        traces.close()
    sentry.stop(settings)
