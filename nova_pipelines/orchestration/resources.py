"""Dagster resources: the services of a run, and the policy of runs, from the settings."""

import logging
from collections.abc import Iterator

import dagster as dg

from nova_pipelines.compiler.job import RunPolicy
from nova_pipelines.nodes.services import ServicesFactory
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.orchestration.workers import WORKER, this_worker
from nova_pipelines.settings import Settings, load_settings


def _services(context: dg.InitResourceContext) -> Iterator[ServicesFactory]:
    run_id = context.run.run_id if context.run else None
    if run_id and context.instance:
        context.instance.add_run_tags(run_id, {WORKER: this_worker(run_id)})
    factory = ServicesFactory(lambda: build_services(load_settings(), run_id=run_id))
    try:
        yield factory
    finally:
        factory.close()


#: built in the run's own process from its environment: nothing secret passes through run config
services_resource = dg.ResourceDefinition(resource_fn=_services, description="NOVA's databases, mail and sandbox")


def run_policy(settings: Settings) -> RunPolicy:
    return RunPolicy(
        max_batch=settings.nova_max_batch,
        max_retries=settings.nova_max_retries,
        retry_delay_seconds=settings.nova_retry_delay_seconds,
        run_max_seconds=settings.nova_run_max_seconds,
    )


def sandbox_pool(settings: Settings) -> str | None:
    """Dagster's pool that bounds how many ops use the cloud at once; the local sandbox needs none."""
    return "e2b" if settings.sandbox == "e2b" else None


log = logging.getLogger("nova")
