"""Brings both databases to the tables of this version of NOVA, from wherever it is installed and called.

`alembic` on the command line does the same through the same environment (`migrations/env.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from nova_pipelines.database import migrations
from nova_pipelines.database.failures import MIGRATE
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings

NAMES = ("nova", "facturas")


def alembic_config(settings: Settings) -> Config:
    """Alembic's configuration without a file: works from any folder."""
    config = Config(attributes={"urls": _urls(settings)})
    folder = str(Path(next(iter(migrations.__path__))))
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def migrate(settings: Settings) -> dict[str, list[str]]:
    """Applies what is missing, all or nothing for each database; returns the revisions applied, by database.

    Raises ConfigurationError or TransientError; several processes may call it at once.
    """
    missing = pending(settings)
    if any(missing.values()):
        try:
            command.upgrade(alembic_config(settings), "head")
        except CommandError as error:
            raise ConfigurationError(f"the databases were not migrated: {error}") from error
    return missing


def current(settings: Settings, names: Sequence[str] = NAMES) -> dict[str, str | None]:
    """The revision of each database (`nova`, `facturas`); None where nothing was ever made.

    Makes no file. Raises ConfigurationError or TransientError for a database that cannot be reached.
    """
    return {name: _revision(url) for name, url in _urls(settings).items() if name in names}


def pending(settings: Settings, names: Sequence[str] = NAMES) -> dict[str, list[str]]:
    """The revisions that each database lacks, oldest first.

    Raises ConfigurationError for a database that is newer than this program.
    """
    known = known_revisions(settings)
    missing: dict[str, list[str]] = {}
    for name, revision in current(settings, names).items():
        if revision is not None and revision not in known:
            raise ConfigurationError(
                f"the {name} database is at revision {revision}, which this version of NOVA does not know",
                remedy="install the version of NOVA that made it, or a newer one",
            )
        missing[name] = known[known.index(revision) + 1 :] if revision else known
    return missing


def known_revisions(settings: Settings) -> list[str]:
    """All revisions of this version of NOVA, oldest first."""
    script = ScriptDirectory.from_config(alembic_config(settings))
    return [revision.revision for revision in script.walk_revisions()][::-1]


def require_migrated(session: Session, newest: str) -> None:
    """Raises ConfigurationError where the database of this session is not at the revision `newest`."""
    # not by Alembic: it makes a table object each time, which SQLAlchemy's cache of statements would keep
    revision = session.scalar(text("SELECT max(version_num) FROM alembic_version"))
    if revision != newest:
        raise ConfigurationError(f"the database is at revision {revision}, not {newest}", remedy=MIGRATE)


def _urls(settings: Settings) -> dict[str, str]:
    return {"nova": settings.database_url, "facturas": settings.facturas_database_url}


def _revision(url: str) -> str | None:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(str(parsed.database)).exists():
        return None
    database = Database(url)
    try:
        with database.read() as session:
            return MigrationContext.configure(session.connection()).get_current_revision()
    finally:
        database.close()
