"""Executions and their chains as plain data, as the command line and the HTTP API show them.

Puts big values back in their places; reads only.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.compiler.audit import read_chain, read_json
from nova_pipelines.compiler.blobs import references, unpack
from nova_pipelines.database.costs import cost_of
from nova_pipelines.database.executions import Listed
from nova_pipelines.database.nova import Blob
from nova_pipelines.domain.errors import PermanentError


def summary(listed: Listed) -> dict[str, Any]:
    """An execution without its contexts. Times in ISO, UTC."""
    execution = listed.execution
    return {
        "id": execution.id,
        "task_id": execution.task_id,
        "workflow_id": execution.workflow_id,
        "workflow": listed.workflow,
        "version": listed.version,
        "client": listed.client,
        "status": execution.status,
        "error": execution.error,
        "failed_node": execution.failed_node,
        "run_id": execution.run_id,
        "message_id": execution.message_id,
        "document_ordinal": execution.document_ordinal,
        "from": listed.sender,
        "subject": listed.subject,
        "created_at": iso(execution.created_at),
        "started_at": iso(execution.started_at),
        "completed_at": iso(execution.completed_at),
        "waits_until": iso(execution.waits_until),
    }


def detail(session: Session, listed: Listed) -> dict[str, Any]:
    """An execution with its initial context and with `context`, its final one.

    Of an execution that is not complete, `context` is what its last successful node left.
    """
    execution = listed.execution
    # an initial context is a user's as it stands: what looks like a reference in it is none
    initial = last = execution.initial_context
    if execution.result is not None:
        (last,) = unpack_all(session, [execution.result])
    else:
        done = [row for row in read_chain(session, execution.id) if row["status"] == "success" and row["output_result"]]
        if done:
            (last,) = unpack_all(session, [read_json(done[-1]["output_result"])])
    seconds, usd = cost_of(session, execution.id)
    cost = {"sandbox_seconds": seconds, "cost_usd": f"{usd:.9f}"}
    return {**summary(listed), **cost, "initial_context": initial, "context": last}


def chain_entries(session: Session, execution_id: int) -> list[dict[str, Any]]:
    """The rows of an execution's chain of work in order, with contexts as JSON values."""
    rows = read_chain(session, execution_id)
    names = ("input_context", "output_result")
    contexts = unpack_all(session, [read_json(row[name]) for row in rows for name in names])
    for index, row in enumerate(rows):
        row.update(zip(names, contexts[2 * index : 2 * index + 2], strict=True))
    return rows


def unpack_all(session: Session, packed: Iterable[Any]) -> list[Any]:
    """Contexts as they were. A big value that is missing or was changed is named in its place."""
    contexts = list(packed)
    wanted = {digest for context in contexts for digest in _references(context)}
    blobs: dict[str, bytes] = {}
    for start in range(0, len(wanted), 500):
        portion = sorted(wanted)[start : start + 500]
        rows = session.execute(select(Blob.sha256, Blob.data).where(Blob.sha256.in_(portion)))
        blobs |= {row.sha256: row.data for row in rows}
    return [_unpack(context, blobs) for context in contexts]


def _references(context: Any) -> set[str]:
    try:
        return references(context)
    except TypeError:  # tampered with: what should be a hash is an object
        return set()


def _unpack(context: Any, blobs: dict[str, bytes]) -> Any:
    try:
        return unpack(context, blobs.get)
    except (PermanentError, TypeError) as error:
        return {"$unreadable": str(error), "packed": context}


def iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None
