"""The chain of work as it lies in the database: read as raw text, so that no tampering can hide or crash it.

Checks chains against their hashes and shows them; knows nothing of how they are written (see `journal.py`).
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, LargeBinary, Select, Text, case, cast, func, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session
from sqlalchemy.types import NullType

from nova_pipelines.database.nova import Blob, ChainRow, Execution
from nova_pipelines.database.session import Database
from nova_pipelines.domain.chain import HASHED_FIELDS, LATER_FIELDS, verify

#: executions whose heads are held in memory at once, and rows fetched at once
_HEADS, _ROWS = 500, 100
_REFERENCE = re.compile(r'"\$blob":"([0-9a-f]{64})"')
_FIELDS = ("id", *HASHED_FIELDS, *LATER_FIELDS, "hash")


@dataclass(frozen=True, slots=True)
class Finding:
    """A place where what is stored is not what was written. None where it cannot be said."""

    execution_id: int | None
    seq: int | None
    row_id: int | None
    node_id: str | None
    reason: str


@dataclass(slots=True)
class AuditReport:
    """What an audit looked at and found."""

    executions: int = 0
    rows: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])

    @property
    def intact(self) -> bool:
        return not self.findings


def verify_chains(nova: Database, execution_id: int | None = None) -> AuditReport:
    """Checks the chain of one execution, or of all, and the big values that its rows refer to.

    Streams: what it holds in memory does not grow with the number of rows. Sees one snapshot of the database.
    """
    report = AuditReport()
    with nova.read() as session:
        for heads in _heads(session, execution_id):
            _verify_group(session, heads, report)
        if execution_id is None:
            _find_orphans(session, report)
    return report


def read_chain(session: Session, execution_id: int) -> list[dict[str, Any]]:
    """The rows of one execution in order, as plain values; `timestamp` in ISO, contexts as JSON text."""
    query = _select_rows(session).where(ChainRow.execution_id == execution_id)
    return [_row(raw) for raw in session.execute(query.order_by(ChainRow.seq, ChainRow.id))]


def read_json(text: Any) -> Any:
    """The value of a stored JSON text; of one that was made unreadable, the text itself."""
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


# ---------------------------------------------------------------- checking


def _heads(session: Session, execution_id: int | None) -> Iterator[dict[int, tuple[Any, Any]]]:
    """(head, length) by execution, in portions."""
    columns = [_raw(session, column) for column in (Execution.chain_head, Execution.chain_length)]
    query: Select[*tuple[Any, ...]] = select(Execution.id, *columns).order_by(Execution.id).limit(_HEADS)
    if execution_id is not None:
        query = query.where(Execution.id == execution_id)
    last = 0
    while True:
        rows = session.execute(query.where(Execution.id > last)).all()
        if not rows:
            return
        yield {row[0]: (_plain(row[1]), _plain(row[2])) for row in rows}
        last = rows[-1][0]


def _verify_group(session: Session, heads: dict[int, tuple[Any, Any]], report: AuditReport) -> None:
    first, last = min(heads), max(heads)
    query = _select_rows(session).where(ChainRow.execution_id.between(first, last))
    query = query.order_by(ChainRow.execution_id, ChainRow.seq, ChainRow.id)
    stream = session.execute(query, execution_options={"yield_per": _ROWS})
    chains = groupby((_row(raw) for raw in stream), key=lambda row: row["execution_id"])
    unseen = dict(heads)
    used: dict[str, Finding] = {}
    for execution_id, rows in chains:
        if execution_id in unseen:
            head, length = unseen.pop(execution_id)
            _verify_one(execution_id, rows, head, length, report, used)
    for execution_id, (head, length) in unseen.items():
        _verify_one(execution_id, iter(()), head, length, report, used)
    _verify_blobs(session, used, report)


def _verify_one(
    execution_id: int,
    rows: Iterator[dict[str, Any]],
    head: Any,
    length: Any,
    report: AuditReport,
    used: dict[str, Finding],
) -> None:
    nodes: dict[int, str] = {}
    strange: list[Finding] = []

    def passing() -> Iterator[dict[str, Any]]:
        for row in rows:
            report.rows += 1
            nodes[row["id"]] = str(row["node_id"])
            if type(row["seq"]) is not int:
                reason = "the row was changed: its place in the chain is no number"
                strange.append(Finding(execution_id, None, row["id"], str(row["node_id"]), reason))
                continue
            for digest in _references(row):
                used.setdefault(digest, Finding(execution_id, row["seq"], row["id"], str(row["node_id"]), ""))
            yield row

    report.executions += 1
    sound = type(length) is int and length >= 0
    if not sound:
        strange.append(Finding(execution_id, None, None, None, "the execution's recorded length is no number"))
    breaks = verify(execution_id, passing(), head=str(head), length=length if sound else 0)
    report.findings += strange
    report.findings += [
        Finding(execution_id, found.seq, found.row_id, nodes.get(found.row_id) if found.row_id else None, found.reason)
        for found in breaks
    ]


def _references(row: dict[str, Any]) -> set[str]:
    texts = (row["input_context"], row["output_result"])
    return {digest for text in texts if isinstance(text, str) for digest in _REFERENCE.findall(text)}


def _verify_blobs(session: Session, used: dict[str, Finding], report: AuditReport) -> None:
    """Big values lie outside of the rows, under their hash: a row is whole only if they are."""
    digests = sorted(used)
    for start in range(0, len(digests), _HEADS):
        portion = digests[start : start + _HEADS]
        query = select(Blob.sha256, Blob.data).where(Blob.sha256.in_(portion))
        found = {
            digest: hashlib.sha256(_bytes(data)).hexdigest()
            for digest, data in session.execute(query, execution_options={"yield_per": 10})
        }
        for digest in portion:
            if found.get(digest) != digest:
                state = "was changed" if digest in found else "is missing"
                place = used[digest]
                reason = f"a big value of the row's context {state} (blob {digest[:12]}…)"
                report.findings.append(Finding(place.execution_id, place.seq, place.row_id, place.node_id, reason))


def _find_orphans(session: Session, report: AuditReport) -> None:
    known = select(Execution.id).where(Execution.id == ChainRow.execution_id).exists()
    query = select(ChainRow.id, _raw(session, ChainRow.execution_id), _raw(session, ChainRow.node_id)).where(~known)
    for row_id, execution_id, node_id in session.execute(query.order_by(ChainRow.id)):
        number = execution_id if type(execution_id) is int else None
        reason = f"the row belongs to execution {_plain(execution_id)!r}, which does not exist"
        report.rows += 1
        report.findings.append(Finding(number, None, row_id, str(_plain(node_id)), reason))


# ---------------------------------------------------------------- reading


def _select_rows(session: Session) -> Select[*tuple[Any, ...]]:
    columns: list[ColumnElement[Any]] = []
    for name in _FIELDS:
        column = getattr(ChainRow, name)
        raw = _raw_time(session, column) if name == "timestamp" else _raw(session, column)
        columns.append(raw.label(name))
    return select(*columns)


def _is_sqlite(session: Session) -> bool:
    return session.get_bind().dialect.name == "sqlite"


def _raw(session: Session, column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    """What is stored, without any conversion that could fail on a value that should not be there.

    A column of SQLite may hold anything, text that is no UTF-8 among it; one of PostgreSQL only what its type
    allows, but JSON must be had as its very text.
    """
    if _is_sqlite(session):
        textual = func.typeof(column).in_(["text", "blob"])
        return type_coerce(case((textual, cast(column, LargeBinary)), else_=type_coerce(column, NullType)), NullType)
    return cast(column, Text) if column.key in ("input_context", "output_result") else column.expression


def _raw_time(session: Session, column: InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    if _is_sqlite(session):
        return _raw(session, column)
    # as text: psycopg2 cannot read every time that PostgreSQL can hold
    return func.to_char(func.timezone("UTC", column), "YYYY-MM-DD HH24:MI:SS.US")


def _row(raw: Any) -> dict[str, Any]:
    row = {name: _plain(value) for name, value in zip(_FIELDS, raw, strict=True)}
    row["timestamp"] = _iso(row["timestamp"])
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # JSON has no word for it, so a hash has none either
    return value


def _iso(stored: Any) -> Any:
    """`2026-08-03 10:00:00.000000` (UTC, as both databases give it) in the form that was hashed."""
    try:
        moment = datetime.fromisoformat(stored)
        exact = moment.tzinfo is None and f"{moment:%Y-%m-%d %H:%M:%S.%f}" == stored
    except (TypeError, ValueError):
        return stored
    # another spelling of the same time was not written by NOVA: it stays as it is and does not fit the hash
    return moment.replace(tzinfo=UTC).isoformat() if exact else stored


def _bytes(data: Any) -> bytes:
    return data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
