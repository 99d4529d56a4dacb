"""What every command begins with: the settings, and databases that are there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nova_pipelines.database.session import Database, Databases, open_databases, require_file
from nova_pipelines.settings import Settings, load_settings


@contextmanager
def open_all(settings: Settings | None = None) -> Iterator[Databases]:
    """Both databases. Raises ConfigurationError where a SQLite file was never made: a command makes none."""
    settings = settings or load_settings()
    with open_databases(settings.database_url, settings.facturas_database_url) as databases:
        for database in (databases.nova, databases.facturas):
            require_file(database)
        yield databases


@contextmanager
def open_nova(settings: Settings | None = None) -> Iterator[Database]:
    """nova-db alone."""
    settings = settings or load_settings()
    database = Database(settings.database_url)
    try:
        require_file(database)
        yield database
    finally:
        database.close()
