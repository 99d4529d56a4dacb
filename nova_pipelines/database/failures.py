"""What an error of a database means: which of NOVA's errors it becomes, and in which words.

Knows drivers' codes and messages, no table. A password never gets into a message.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import URL, ExceptionContext
from sqlalchemy.exc import DBAPIError, IntegrityError

from nova_pipelines.domain.errors import ConfigurationError, NovaError, TransientError, Unavailable

MIGRATE = "run `nova migrate`"

#: SQLSTATE, or its class of two characters (PostgreSQL's appendix A) → what is the matter
_PASSING = {
    "53100": "disk full",
    "53300": "too many connections",
    "40": "a transaction lost against another one",
    "55P03": "a lock was not to be had",
    "57P": "the server is stopping or starting",
    "08": "the connection was lost",
}
_PASSING_SQLITE = {
    "SQLITE_FULL": "disk full",
    "SQLITE_BUSY": "the database is locked by another process",
    "SQLITE_LOCKED": "the database is locked",
}
#: texts when a connection fails: libpq hands on no SQLSTATE then. Refused for good, and passing
_REFUSED = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
_BUSY_AT_CONNECT = ("starting up", "shutting down", "in recovery mode", "too many clients", "connection slots")

#: bytes; SQLite's shared memory grows by 32 KiB
_SMALLEST_FREE = 64 * 1024

#: work that waits for a database that is away is taken up again after so long
COME_BACK_SECONDS = 30.0

_QUOTE = re.compile(r"\nLINE \d+: .*(?:\n\s*\^)?")


def describe(url: URL) -> str:
    """The database for a reader: file, or name, host and port; no user, no password."""
    if url.get_backend_name() == "sqlite":
        return f"SQLite database {url.database}"
    host = url.host or url.query.get("host") or "the local socket"
    port = f":{url.port}" if url.port else ""
    return f"PostgreSQL database {url.database} at {host}{port}"


def translate(error: DBAPIError, url: URL, *, was_reached: bool, in_service: bool = False) -> NovaError | None:
    """NOVA's error for an error of the driver; None where the caller must see the original.

    `was_reached`: this process had a connection before, so that an unreachable server may come back. `in_service`: it
    is one of a running installation, so that work waits for it.
    """
    if isinstance(error, IntegrityError):
        return None
    if url.get_backend_name() == "sqlite":
        return _sqlite_failure(error, url)
    return _postgres_failure(error, url, was_reached, in_service)


def _sqlite_failure(error: DBAPIError, url: URL) -> NovaError | None:
    where, reason = describe(url), str(error.orig)
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    if "no such table" in reason or "no such column" in reason:
        return _not_migrated(where)
    for prefix, meaning in _PASSING_SQLITE.items():
        if name.startswith(prefix):
            return _passing(where, meaning, reason)
    if name.startswith("SQLITE_IOERR"):
        if _is_full(url):  # the shared memory of WAL could not grow: SQLite has no word of its own for it
            return _passing(where, "disk full", reason)
        return TransientError(f"{where}: the disk failed: {reason}", remedy="check the disk and try again")
    if name.startswith("SQLITE_READONLY") and not reason.startswith("attempt to write a readonly database"):
        return ConfigurationError(f"{where}: {reason}", remedy="make file and folder writable for NOVA's user")
    if name.startswith("SQLITE_CANTOPEN"):
        remedy = "check that it is a file, and that NOVA's user may read and write it and its folder"
        return ConfigurationError(f"{where} cannot be opened: {reason}", remedy=remedy)
    if name in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        remedy = "restore it from a backup, or name another file"
        return ConfigurationError(f"{where} is no sound database: {reason}", remedy=remedy)
    return None


def _is_full(url: URL) -> bool:
    try:
        return shutil.disk_usage(Path(str(url.database)).parent).free < _SMALLEST_FREE
    except OSError:
        return False


def _postgres_failure(error: DBAPIError, url: URL, was_reached: bool, in_service: bool) -> NovaError | None:
    where = describe(url)
    state = str(getattr(error.orig, "pgcode", None) or "")
    reason = _first_line(error.orig, url)
    if state in ("42P01", "42703", "3F000"):  # undefined table, column, schema
        return _not_migrated(where)
    for prefix, meaning in _PASSING.items():
        if state.startswith(prefix):
            return _passing(where, meaning, reason)
    if error.connection_invalidated:
        return _passing(where, "the connection was lost", reason)
    if state or error.statement is not None:  # not a failure to connect
        return None
    remedy = "check that the server runs, and the host, port, name and password in its URL"
    if in_service and not any(text in reason for text in _REFUSED):
        # tries of seconds would be over before a server has started again: the work waits, and fails nothing
        return Unavailable(f"{where} is not reachable: {reason}", after_seconds=COME_BACK_SECONDS, remedy=remedy)
    if any(text in reason for text in _BUSY_AT_CONNECT):
        return _passing(where, "the server takes no connection now", reason)
    if was_reached and not any(text in reason for text in _REFUSED):
        return TransientError(f"{where} is not reachable any more: {reason}", remedy=remedy)
    return ConfigurationError(f"{where} is not reachable: {reason}", remedy=remedy)


def hide_quoted_statement(context: ExceptionContext) -> None:
    """A `handle_error` hook for PostgreSQL. psycopg2 writes parameters into the statement, and the server
    quotes a line of it (`LINE 1: …`) in its errors: mails or tokens could get into logs that way."""
    for error in (context.original_exception, context.sqlalchemy_exception):
        if error is not None:
            error.args = tuple(_QUOTE.sub("", arg) if isinstance(arg, str) else arg for arg in error.args)


def _first_line(original: Any, url: URL) -> str:
    text = (str(original).strip().splitlines() or ["no reason given"])[0]
    return text.replace(url.password, "***") if url.password and len(url.password) > 2 else text


def _passing(where: str, meaning: str, reason: str) -> TransientError:
    remedies = {
        "disk full": "free some space; the work is taken up again",
        "too many connections": "raise max_connections of the server, or run fewer processes",
    }
    return TransientError(f"{where}: {meaning} ({reason})", remedy=remedies.get(meaning, "try again"))


def _not_migrated(where: str) -> ConfigurationError:
    return ConfigurationError(f"{where} lacks tables or columns of this version of NOVA", remedy=MIGRATE)


def folder_failure(path: Path, error: OSError) -> ConfigurationError:
    remedy = "make its folder writable for NOVA's user, or set NOVA_HOME to another folder"
    return ConfigurationError(f"{path} cannot be made: {error.strerror or error}", remedy=remedy)
