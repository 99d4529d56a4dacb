"""From settings to services: the one place where the parts are put together."""

from __future__ import annotations

from functools import lru_cache

from nova_pipelines.adapters.sandbox.base import Sandbox
from nova_pipelines.adapters.sandbox.e2b_errors import CloudFault
from nova_pipelines.adapters.sandbox.e2b_gate import Gate
from nova_pipelines.adapters.sandbox.select import sandbox_for
from nova_pipelines.adapters.store import DocumentStore
from nova_pipelines.database.breaker import SharedBreaker
from nova_pipelines.database.sandboxes import SandboxPlaces
from nova_pipelines.database.secrets import open_box
from nova_pipelines.database.session import Database, open_databases
from nova_pipelines.nodes.services import MailPolicy, Services
from nova_pipelines.settings import Settings

#: the name of the backend that has a breaker and limits, in its tables
CLOUD = "e2b"


def build_services(settings: Settings, *, run_id: str | None = None, in_service: bool = False) -> Services:
    """The services of a process, or of a run. Connects to nothing yet. Raises ConfigurationError for wrong settings.

    `in_service`: the process stays up while a database is away, and waits for it; so does every run, which there is
    because the installation works.
    """
    databases = open_databases(
        settings.database_url, settings.facturas_database_url, in_service=in_service or run_id is not None
    )
    return Services(
        databases=databases,
        store=DocumentStore(settings.documents_url),
        box=lru_cache(maxsize=1)(lambda: open_box(settings)),
        backend=lru_cache(maxsize=1)(lambda: build_sandbox(settings, databases.nova, run_id=run_id)),
        max_mail_bytes=settings.nova_max_mail_bytes,
        mail_policy=MailPolicy(
            retry_seconds=settings.nova_mail_retry_seconds,
            give_up_seconds=settings.nova_mail_give_up_hours * 3_600,
            per_hour=settings.nova_mail_answers_per_hour,
            per_day=settings.nova_mail_answers_per_day,
        ),
        public_url=settings.public_url,
        session_seconds=float(settings.nova_run_max_seconds),
    )


def build_sandbox(settings: Settings, nova: Database, *, run_id: str | None = None) -> Sandbox:
    """The sandbox in force; `nova` is where all processes share the cloud's breaker and limits."""
    key = settings.e2b_api_key
    return sandbox_for(
        settings.sandbox,
        e2b_api_key=key.get_secret_value() if key else None,
        e2b_template=settings.e2b_template_id,
        state_folder=settings.nova_home,
        e2b_rates=settings.e2b_rates,
        e2b_gate=build_gate(settings, nova, run_id=run_id) if settings.sandbox == CLOUD else None,
        e2b_max_life_seconds=float(settings.nova_e2b_max_life_seconds),
    )


def build_gate(settings: Settings, nova: Database, *, run_id: str | None = None) -> Gate:
    return Gate(
        breaker=SharedBreaker(
            nova,
            CLOUD,
            counts=lambda error: isinstance(error, CloudFault),
            threshold=settings.nova_e2b_breaker_failures,
            seconds=settings.nova_e2b_breaker_seconds,
        ),
        places=SandboxPlaces(
            nova,
            backend=CLOUD,
            per_second=settings.nova_e2b_creates_per_second,
            ceiling=settings.nova_e2b_max_sandboxes,
            wait_seconds=settings.nova_e2b_wait_seconds,
            run_id=run_id,
        ),
    )
