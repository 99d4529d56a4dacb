"""Dagster's entry: settings → databases → stored workflows as jobs, beside assets and checks. Wiring only."""

import dagster as dg

from nova_pipelines.database.session import open_databases
from nova_pipelines.orchestration.assets import ASSETS, SENSORS
from nova_pipelines.orchestration.checks import CHECKS
from nova_pipelines.orchestration.repository import NovaRepository
from nova_pipelines.settings import load_settings


@dg.repository(name="__repository__")  # pyright: ignore[reportArgumentType]  # takes a RepositoryData: its text says so
def nova() -> NovaRepository:
    settings = load_settings()
    databases = open_databases(settings.database_url, settings.facturas_database_url)
    return NovaRepository(settings, databases.nova, [*ASSETS, *CHECKS, *SENSORS])
