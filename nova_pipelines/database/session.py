"""Engines and sessions of the two databases: how they connect, lock and fail. Knows no table.

On both databases a writing session is one transaction that commits at the end of its `with` block, and a
reading session sees one snapshot and cannot write.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet

from sqlalchemy import URL, Connection, Engine, Pool, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from nova_pipelines.database.failures import MIGRATE, describe, folder_failure, hide_quoted_statement, translate
from nova_pipelines.database.types import serialize_json
from nova_pipelines.domain.errors import ConfigurationError

BUSY_SECONDS = 30
CONNECT_SECONDS = 10
#: a connection that was used so short a time ago is taken for a living one
FRESH_SECONDS = 1.0

_engines: WeakSet[Engine] = WeakSet()
#: pools that a forked child got from its parent: kept for ever, since closing them would close the parent's
_inherited: list[Pool] = []
_making_file = threading.Lock()


def open_engine(url: str, *, migrating: bool = False, pooled: bool = True) -> Engine:
    """An engine for a SQLAlchemy URL of SQLite (a file) or PostgreSQL. Connects at first use only.

    `migrating`: no pool, and on SQLite no foreign keys, since a table is rebuilt by drop and rename.
    """
    parsed = make_url(url)
    options: dict[str, Any] = {
        "json_serializer": serialize_json,
        # the parameters of a failed statement are mails, invoices and tokens: not for logs
        "hide_parameters": True,
    }
    pooled = pooled and not migrating
    if not pooled:
        options["poolclass"] = NullPool
    if parsed.get_backend_name() == "sqlite":
        engine = create_engine(parsed, connect_args={"timeout": BUSY_SECONDS}, **options)
        _prepare_sqlite(engine, Path(str(parsed.database)), foreign_keys=not migrating)
    else:
        if pooled:
            options |= {"pool_size": 5, "max_overflow": 10}
        arguments = {"connect_timeout": CONNECT_SECONDS, "application_name": "nova"}
        own = {name: value for name, value in arguments.items() if name not in parsed.query}
        engine = create_engine(parsed, connect_args=own, **options)
        event.listen(engine, "handle_error", hide_quoted_statement)
        _ping_what_lay_idle(engine)
    _engines.add(engine)
    return engine


def _ping_what_lay_idle(engine: Engine) -> None:
    """`pool_pre_ping`, but not for a connection that answered a moment ago: a ping takes as long as a small query."""

    @event.listens_for(engine, "checkin")
    def put_back(_connection: Any, record: ConnectionPoolEntry) -> None:
        record.info["nova_answered"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def take_out(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        answered = record.info.get("nova_answered")
        if answered is None or time.monotonic() < answered + FRESH_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            # the pool makes a new one, and trusts none of those that are as old
            raise InvalidatePoolError(str(error)) from error


def _prepare_sqlite(engine: Engine, path: Path, *, foreign_keys: bool) -> None:
    """SQLAlchemy, not the driver, says when a transaction begins (its chapter on pysqlite, "Using SQLAlchemy
    to emit BEGIN"): the driver's legacy mode, the only one of Python 3.11, would leave DDL and SELECT out."""

    @event.listens_for(engine, "do_connect")
    def make_file(*_: object) -> None:
        private_folder(path.parent)
        _make_private_file(path)

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _: object) -> None:
        connection.isolation_level = None
        _switch_to_wal(connection)
        connection.execute(f"PRAGMA foreign_keys={'ON' if foreign_keys else 'OFF'}")
        connection.execute("PRAGMA synchronous=NORMAL")

    @event.listens_for(engine, "begin")
    def on_begin(connection: Connection) -> None:
        # A transaction that reads first and writes later fails at once ("database is locked") when another
        # one wrote in between, and no timeout helps. So writers queue up at their very beginning.
        reading = connection.get_execution_options().get("nova_reading", False)
        connection.exec_driver_sql(f"PRAGMA query_only={int(reading)}")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _switch_to_wal(connection: Any) -> None:
    """WAL stays with the file. The switch itself may fail at once when two processes try, so it is repeated."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
        return
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except connection.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def private_folder(folder: Path) -> None:
    """Makes a folder that only its owner may enter, with its parents; leaves one that is there as it is.

    Raises ConfigurationError.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise folder_failure(folder, error) from error


def _make_private_file(path: Path) -> None:
    """SQLite gives a new file the umask's mode: make it first, for its owner only (WAL and SHM follow it)."""
    with _making_file:  # no thread may connect meanwhile: closing a file drops its process's locks on it
        if path.exists():
            return
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            return  # another process was faster
        except OSError as error:
            raise folder_failure(path, error) from error


def _forget_parents_connections() -> None:
    for engine in list(_engines):
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents_connections)


class Database:
    """One database: its engine and its two kinds of session. Errors come out as those of `domain.errors`.

    `in_service`: it belongs to a running installation. Where it cannot be reached then, work waits (Unavailable); else
    that is taken for a mistake in its URL until it was reached once (ConfigurationError).
    """

    def __init__(self, url: str, *, pooled: bool = True, in_service: bool = False) -> None:
        self.engine = open_engine(url, pooled=pooled)
        self._in_service = in_service
        #: once reached, a failure to connect counts as passing
        self.was_reached = False
        self._writing = sessionmaker(self.engine, expire_on_commit=False)
        options: dict[str, Any] = {"nova_reading": True}
        if self.engine.dialect.name == "postgresql":
            options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = sessionmaker(self.engine.execution_options(**options), expire_on_commit=False)
        if "isolation_level" in options:
            options = {"isolation_level": "AUTOCOMMIT"}
        self._looking = sessionmaker(self.engine.execution_options(**options), expire_on_commit=False)
        event.listen(self._looking, "before_flush", _refuse_to_write)
        event.listen(self.engine, "connect", self._reached)

    def __repr__(self) -> str:
        return f"Database({describe(self.url)})"

    @property
    def url(self) -> URL:
        return self.engine.url

    def _reached(self, *_: object) -> None:
        self.was_reached = True

    @contextmanager
    def session(self) -> Iterator[Session]:
        """A transaction: commits at the end of the block, rolls back if the block raises.

        SQLite has one writer at a time, from its first statement to its commit: never open a second writing
        session inside a first one, and do nothing slow in between.
        """
        with self.translate_errors(), self._writing.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A snapshot to read from; a write fails. Changes of others show in the next reading session."""
        with self.translate_errors(), self._reading.begin() as session:
            yield session

    @contextmanager
    def look(self) -> Iterator[Session]:
        """Like `read`, for single queries: on PostgreSQL each sees its own moment, and there is no transaction whose
        beginning and end would take as long as the query. Raises RuntimeError where objects are to be written."""
        with self.translate_errors(), self._looking.begin() as session:
            yield session

    @contextmanager
    def translate_errors(self) -> Iterator[None]:
        """Turns what the database reports into ConfigurationError or TransientError; IntegrityError and
        errors in the use of SQLAlchemy pass as they are."""
        try:
            yield
        except DBAPIError as error:
            readable = translate(error, self.url, was_reached=self.was_reached, in_service=self._in_service)
            if readable is None:
                raise
            raise readable from error

    def close(self) -> None:
        self.engine.dispose()


def _refuse_to_write(*_: object) -> None:
    raise RuntimeError("a session that only looks has no transaction to write in")


@dataclass(frozen=True, slots=True)
class Databases:
    """The two databases of NOVA."""

    nova: Database
    facturas: Database

    def close(self) -> None:
        self.nova.close()
        self.facturas.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_databases(nova_url: str, facturas_url: str, *, in_service: bool = False) -> Databases:
    """Both databases by their SQLAlchemy URLs. Nothing is connected or made before the first session."""
    return Databases(Database(nova_url, in_service=in_service), Database(facturas_url, in_service=in_service))


def require_file(database: Database) -> None:
    """Raises ConfigurationError where a SQLite file was never made: opening it would make an empty one."""
    url = database.url
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        raise ConfigurationError(f"{describe(url)} does not exist yet", remedy=MIGRATE)
