"""The audit chain: each row of an execution's chain of work carries the hash of the row before it.

Pure: it knows the fields of a row and how to hash and check them, not where rows are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: the hash before the first row
GENESIS = "0" * 64

#: what a hash covers, in this order; the two contexts as the JSON text that is stored
HASHED_FIELDS = (
    "execution_id",
    "seq",
    "node_id",
    "node_type",
    "code_executed",
    "input_context",
    "output_result",
    "execution_time",
    "status",
    "error_message",
    "decision_result",
    "path_taken",
    "run_id",
    "timestamp",
    "prev_hash",
)


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: what is stored and what the chain's hash is made of.

    Raises ValueError for NaN and infinities, TypeError for what is not JSON.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def row_hash(row: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over HASHED_FIELDS of `row`.

    `input_context` and `output_result` are JSON *texts* (or None), `timestamp` an ISO text in UTC.
    """
    body = canonical_json([row[name] for name in HASHED_FIELDS])
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, slots=True)
class Break:
    """A place where a chain does not hold. `row_id` is None where a row is missing."""

    execution_id: int
    seq: int
    row_id: int | None
    reason: str


def verify(execution_id: int, rows: Iterable[Mapping[str, Any]], *, head: str, length: int) -> list[Break]:
    """Checks one execution's rows (in order of `seq`) against its recorded head and length.

    Rows carry HASHED_FIELDS, `id` and `hash`. Returns every break found; an empty list means intact.
    """
    breaks: list[Break] = []
    previous, expected_seq, last_id = GENESIS, 1, 0
    for row in rows:
        seq, row_id = int(row["seq"]), int(row["id"])
        if seq > expected_seq:
            missing = f"{expected_seq}" if seq == expected_seq + 1 else f"{expected_seq} to {seq - 1}"
            breaks.append(Break(execution_id, expected_seq, None, f"row {missing} is missing"))
        elif seq < expected_seq:
            breaks.append(Break(execution_id, seq, row_id, "a row was inserted: its place is taken twice"))
        if row_id <= last_id:
            breaks.append(Break(execution_id, seq, row_id, "the row's id is not after that of the row before"))
        if row_hash(row) != row["hash"]:
            breaks.append(Break(execution_id, seq, row_id, "the row was changed: its hash does not fit"))
        elif seq == expected_seq and row["prev_hash"] != previous:
            breaks.append(Break(execution_id, seq, row_id, "the row does not follow the row before it"))
        previous, expected_seq, last_id = str(row["hash"]), seq + 1, row_id
    if expected_seq - 1 < length:
        breaks.append(Break(execution_id, expected_seq, None, f"rows {expected_seq} to {length} are missing"))
    elif expected_seq - 1 > length:
        breaks.append(Break(execution_id, length + 1, last_id, "a row was added after the recorded end"))
    elif previous != (head or GENESIS) and not breaks:
        breaks.append(Break(execution_id, length, last_id, "the execution's recorded head does not fit"))
    return breaks
