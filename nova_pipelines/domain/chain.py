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
#: fields that came later: a hash covers them only where one of them is set, so that older rows keep theirs
LATER_FIELDS = ("sandbox_seconds", "cost_nano_usd")


def canonical_json(value: Any) -> str:
    """The one text of a JSON value: what is stored and what the chain's hash is made of.

    Raises ValueError for NaN and infinities, TypeError for what is not JSON.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def row_hash(row: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over HASHED_FIELDS of `row`, and over LATER_FIELDS where any is set.

    `input_context` and `output_result` are JSON *texts* (or None), `timestamp` an ISO text in UTC.
    """
    later = [row.get(name) for name in LATER_FIELDS]
    values = [row[name] for name in HASHED_FIELDS]
    body = canonical_json(values + later if any(value is not None for value in later) else values)
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

    Rows carry HASHED_FIELDS, `id` and `hash`; `id` and `seq` are whole numbers, anything else may be tampered
    with. Returns every break found; an empty list means intact. What is not found: a chain of which all rows,
    its head and its length were made anew, or all were taken away.
    """
    walk = _Walk(execution_id)
    for row in rows:
        walk.take(row)
    return walk.end(head or GENESIS, length)


class _Walk:
    """The way along the rows of one chain."""

    def __init__(self, execution_id: int) -> None:
        self.execution_id = execution_id
        self.breaks: list[Break] = []
        self.seq = 0
        self.row_id = 0
        #: what the next row may follow: where a place is taken twice, either row may be the genuine one
        self.hashes = {GENESIS}

    def take(self, row: Mapping[str, Any]) -> None:
        seq, row_id = int(row["seq"]), int(row["id"])
        missing = seq - self.seq - 1
        if missing > 0:
            self._missing(self.seq + 1, seq - 1)
        elif missing < 0:
            self._found(seq, row_id, "a row was inserted: its place is taken twice")
        if row_id <= self.row_id:
            self._found(seq, row_id, "the row's id is not after that of the row before")
        if row["execution_id"] != self.execution_id:
            self._found(seq, row_id, f"the row belongs to another execution: {row['execution_id']!r:.40}")
        if not _hash_fits(row):
            self._found(seq, row_id, "the row was changed: its hash does not fit")
        elif missing == 0 and row["prev_hash"] not in self.hashes:
            self._found(seq, row_id, "the row does not follow the row before it: one of the two was changed")
        self.hashes = {str(row["hash"])} | (self.hashes if missing < 0 else set[str]())
        self.seq, self.row_id = max(seq, self.seq), row_id

    def end(self, head: str, length: int) -> list[Break]:
        if self.seq < length:
            self._missing(self.seq + 1, length)
        elif self.seq > length:
            self._found(length + 1, self.row_id, "a row was added after the recorded end")
        elif head not in self.hashes and not self.breaks:
            self._found(length, self.row_id or None, "the execution's recorded head does not fit its last row")
        return self.breaks

    def _missing(self, first: int, last: int) -> None:
        what = f"row {first} is missing" if first == last else f"rows {first} to {last} are missing"
        self._found(first, None, what)

    def _found(self, seq: int, row_id: int | None, reason: str) -> None:
        self.breaks.append(Break(self.execution_id, seq, row_id, reason))


def _hash_fits(row: Mapping[str, Any]) -> bool:
    try:
        return row_hash(row) == row["hash"]
    except (TypeError, ValueError, RecursionError):  # tampered with: no JSON value any more
        return False
