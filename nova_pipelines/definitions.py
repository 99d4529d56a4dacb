"""Dagster's entry: settings → databases → stored workflows as jobs, beside assets and checks. Wiring only."""

import dagster as dg

from nova_pipelines.database.session import open_databases, require_file
from nova_pipelines.orchestration.assets import ASSETS, SENSORS
from nova_pipelines.orchestration.checks import CHECKS
from nova_pipelines.orchestration.live_reload import reload_in_place
from nova_pipelines.orchestration.repository import nova_repository
from nova_pipelines.orchestration.warm_workers import warm_run_workers
from nova_pipelines.settings import load_settings


def _repository() -> dg.RepositoryDefinition:
    settings = load_settings()
    databases = open_databases(settings.database_url, settings.facturas_database_url)
    require_file(databases.nova)  # opening it would make an empty one
    return nova_repository(settings, databases.nova, [*ASSETS, *CHECKS, *SENSORS])


warm_run_workers()
reload_in_place(__name__)
nova = _repository()
