"""From settings to services: the one place where the parts are put together."""

from __future__ import annotations

from functools import lru_cache

from nova_pipelines.adapters.sandbox.base import Sandbox
from nova_pipelines.adapters.sandbox.select import sandbox_for
from nova_pipelines.adapters.store import DocumentStore
from nova_pipelines.database.secrets import open_box
from nova_pipelines.database.session import open_databases
from nova_pipelines.nodes.services import Services
from nova_pipelines.settings import Settings


def build_services(settings: Settings) -> Services:
    """The services of a process. Connects to nothing yet. Raises ConfigurationError for wrong settings."""
    return Services(
        databases=open_databases(settings.database_url, settings.facturas_database_url),
        store=DocumentStore(settings.documents_url),
        box=lru_cache(maxsize=1)(lambda: open_box(settings)),
        backend=lru_cache(maxsize=1)(lambda: build_sandbox(settings)),
        max_mail_bytes=settings.nova_max_mail_bytes,
        session_seconds=float(settings.nova_run_max_seconds),
    )


def build_sandbox(settings: Settings) -> Sandbox:
    key = settings.e2b_api_key
    return sandbox_for(
        settings.sandbox,
        e2b_api_key=key.get_secret_value() if key else None,
        e2b_template=settings.e2b_template_id,
        state_folder=settings.nova_home,
    )
