"""Alembic's environment for both databases: one history, each revision with a part for each.

Called by `alembic` from the repository's root and by `database/migrate.py`. All of it is one transaction for
each database, committed when both have got through.
"""

from __future__ import annotations

import logging
from logging.config import fileConfig
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from nova_pipelines.database.facturas import FacturasBase
from nova_pipelines.database.failures import describe, translate
from nova_pipelines.database.nova import NovaBase
from nova_pipelines.database.session import open_engine
from nova_pipelines.database.types import CanonicalJSON, ExactNumeric, UtcDateTime
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.settings import load_settings

METADATA = {"nova": NovaBase.metadata, "facturas": FacturasBase.metadata}
#: "NOVA", as a number: the lock that keeps two migrations of one PostgreSQL database apart
LOCK = 0x4E4F5641

logger = logging.getLogger("alembic.env")


def migrate_both() -> None:
    urls: dict[str, str] | None = context.config.attributes.get("urls")
    if urls is None:
        settings = load_settings()
        urls = {"nova": settings.database_url, "facturas": settings.facturas_database_url}
    connections: dict[str, Connection] = {}
    try:
        for name, url in urls.items():
            connections[name] = _begin(url)
        for name, connection in connections.items():
            logger.info("%s: %s", name, describe(connection.engine.url))
            _run(name, connection)
        for connection in connections.values():
            connection.commit()
    finally:
        for connection in connections.values():
            connection.close()  # rolls back what is not committed


def _begin(url: str) -> Connection:
    engine = open_engine(url, migrating=True)
    try:
        connection = engine.connect()
        connection.begin()
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    except DBAPIError as error:
        readable = translate(error, engine.url, was_reached=False)
        if readable is None:
            raise
        raise readable from error
    return connection


def _run(name: str, connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=METADATA[name],
        upgrade_token=f"{name}_upgrades",
        downgrade_token=f"{name}_downgrades",
        render_as_batch=True,
        render_item=_render_item,
        transactional_ddl=True,  # SQLite's too: open_engine emits BEGIN
    )
    context.run_migrations(engine_name=name)
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchone()
        if broken:
            raise CommandError(f"{name}: after the migration row {broken[1]} of {broken[0]} refers to nothing")


def _render_item(kind: str, item: Any, _: Any) -> str | Literal[False]:
    """A revision names plain types: it must mean the same when this project's classes have changed."""
    if kind != "type":
        return False
    if isinstance(item, CanonicalJSON):
        return "sa.JSON()"
    if isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if isinstance(item, ExactNumeric):
        return f"sa.Numeric({item.precision}, {item.scale})"
    return False


if context.is_offline_mode():
    raise CommandError("--sql is not offered: NOVA migrates two databases; run `alembic upgrade head` on copies")
if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.config.cmd_opts is None:  # called by migrate.py: its callers read NOVA's errors
    migrate_both()
else:
    try:
        migrate_both()
    except NovaError as error:  # Alembic prints this one without a traceback
        raise CommandError(str(error)) from error
