"""Rows of the chain of work as they lie in the database: made from records, and read back as contexts.

Knows neither runs nor what is to be done (see `journal.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Text, bindparam, cast, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nova_pipelines.compiler.blobs import KEY, THRESHOLD, pack, references, unpack
from nova_pipelines.database.nova import Blob, ChainRow, Execution
from nova_pipelines.database.types import JsonText
from nova_pipelines.domain.chain import canonical_json, row_hash

#: statuses that only a person (`nova executions retry`) leads out of
CLOSED = frozenset({"needs_review", "unknown"})


@dataclass(frozen=True, slots=True)
class Record:
    """What a node did with one execution, as it will stand in the chain of work."""

    execution_id: int
    node_id: str
    node_type: str
    status: str  # success | failed | needs_review | unknown | stopped
    before: dict[str, Any]
    after: dict[str, Any] | None
    seconds: float
    code: str | None = None
    decision: str | None = None
    path: str | None = None
    error: str | None = None
    #: what its sandbox cost; None: it used none
    sandbox_seconds: float | None = None
    cost_nano_usd: int | None = None
    #: the execution is complete with this row
    final: bool = False


def chain_row(
    record: Record, run_id: str, *, prev_hash: str, seq: int, now: datetime, blobs: dict[str, bytes]
) -> dict[str, Any]:
    """The values of a row with its hash. Big values of its contexts are put into `blobs`."""
    before = _stored_text(record.before, blobs)
    after = None if record.after is None else _stored_text(record.after, blobs)
    row: dict[str, Any] = {
        "execution_id": record.execution_id,
        "seq": seq,
        "node_id": record.node_id,
        "node_type": record.node_type,
        "code_executed": record.code,
        "input_context": before,
        "output_result": after,
        "execution_time": round(record.seconds, 6),
        "status": record.status,
        "error_message": record.error,
        "decision_result": record.decision,
        "path_taken": record.path,
        "run_id": run_id,
        "timestamp": now.isoformat(),
        "prev_hash": prev_hash,
        "sandbox_seconds": None if record.sandbox_seconds is None else round(record.sandbox_seconds, 6),
        "cost_nano_usd": record.cost_nano_usd,
    }
    return row | {
        "hash": row_hash(row),
        "input_context": JsonText(before),
        "output_result": None if after is None else JsonText(after),
        "timestamp": now,
    }


def _stored_text(context: dict[str, Any], blobs: dict[str, bytes]) -> str:
    """A context as it is stored: big values packed away; most contexts have none and are written once."""
    text = canonical_json(context)
    if KEY not in text and len(text.encode()) <= THRESHOLD:
        return text
    return canonical_json(pack(context, blobs))


def last_rows(session: Session, execution_ids: Sequence[int], node_id: str) -> dict[int, Any]:
    """For each execution its success row of `node_id` if there is one, else its last success row."""
    columns = (
        ChainRow.execution_id,
        ChainRow.node_id,
        cast(ChainRow.output_result, Text).label("output"),
        ChainRow.path_taken,
    )
    success = (ChainRow.execution_id.in_(execution_ids)) & (ChainRow.status == "success")
    last = (
        select(ChainRow.execution_id, func.max(ChainRow.seq).label("seq"))
        .where(success)
        .group_by(ChainRow.execution_id)
        .subquery()
    )
    found = {
        row.execution_id: row
        for row in session.execute(
            select(*columns).join(last, (last.c.execution_id == ChainRow.execution_id) & (last.c.seq == ChainRow.seq))
        )
    }
    here = session.execute(select(*columns).where(success, ChainRow.node_id == node_id))
    return found | {row.execution_id: row for row in here}


def fetch_blobs(session: Session, texts: Iterable[str]) -> dict[str, bytes]:
    """The big values that stored contexts refer to. Most refer to none, which their text shows."""
    wanted = {digest for text in texts if KEY in text for digest in references(json.loads(text))}
    if not wanted:
        return {}
    rows = session.execute(select(Blob.sha256, Blob.data).where(Blob.sha256.in_(wanted)))
    return {row.sha256: row.data for row in rows}


def context_of(text: str, blobs: dict[str, bytes]) -> dict[str, Any]:
    stored = json.loads(text)
    return unpack(stored, blobs.get) if KEY in text else stored


def store_blobs(session: Session, blobs: dict[str, bytes]) -> None:
    if not blobs:
        return
    # another run may store the same value at the same time; in order, so that two runs never wait for each other
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    rows = [{"sha256": digest, "data": blobs[digest]} for digest in sorted(blobs)]
    session.execute(dialect.insert(Blob).on_conflict_do_nothing(), rows)


def execution_change(record: Record, row: dict[str, Any], now: datetime) -> dict[str, Any]:
    status = "completed" if record.final else "running" if record.status == "success" else record.status
    return {
        "b_id": record.execution_id,
        "b_head": row["hash"],
        "b_status": status,
        "b_error": record.error,
        "b_node": record.node_id if record.error else None,
        "b_result": row["output_result"] if record.final or record.status in CLOSED else None,
        "b_completed": now if status != "running" else None,
    }


UPDATE = (
    update(Execution)
    .where(Execution.id == bindparam("b_id"))
    .values(
        chain_head=bindparam("b_head"),
        chain_length=Execution.chain_length + 1,
        status=bindparam("b_status"),
        error=bindparam("b_error"),
        failed_node=bindparam("b_node"),
        result=bindparam("b_result"),
        completed_at=bindparam("b_completed"),
        begun_node=None,
    )
)
