"""The journal: reads and writes the chain of work, and thereby decides what still has to be done.

A step asks it for its items; what the chain already holds as a success is not done again. All rows of a
step's items are written in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, insert, literal, select, update
from sqlalchemy.exc import IntegrityError

from nova_pipelines.compiler.chain_rows import (
    UPDATE,
    Record,
    chain_row,
    context_of,
    execution_change,
    fetch_blobs,
    last_rows,
    store_blobs,
)
from nova_pipelines.database.approvals import IN_APPROVAL, still_open
from nova_pipelines.database.nova import ChainRow, Client, Execution
from nova_pipelines.database.session import Database
from nova_pipelines.domain.chain import GENESIS
from nova_pipelines.domain.errors import Conflict
from nova_pipelines.nodes.base import ClientView
from nova_pipelines.nodes.services import client_view


@dataclass(frozen=True, slots=True)
class Entry:
    """One execution before a node. `done`: the chain holds a success for this node already, with `path`."""

    execution_id: int
    status: str
    context: dict[str, Any]
    client: ClientView | None
    done: bool
    path: str | None = None
    #: the node that had begun and left no row (see Journal.begin)
    begun: str | None = None
    #: the run that wrote the last row of its chain
    last_run: str | None = None
    #: who wants it to end
    cancelled_by: str | None = None


@dataclass(frozen=True, slots=True)
class PutOff:
    """An execution that cannot go on now and is to be taken up again at `until`."""

    execution_id: int
    until: datetime
    reason: str
    #: the node at which a person decides until then; None: it is taken up again by itself
    decided_at: str | None = None


@dataclass
class Journal:
    """The chain of work of the executions of one run."""

    nova: Database
    run_id: str
    #: runs of which this one is a retry: what they held is taken over
    ancestors: frozenset[str] = field(default_factory=frozenset)
    #: the key under which the sensor asked for this run
    run_key: str | None = None

    def claim(self, execution_ids: Sequence[int], version_id: int) -> list[int]:
        """Takes executions for this run, under this version; returns those it now holds, in order.

        An execution held by another run that is no ancestor is left to that run, and a cancelled one to nobody.
        """
        with self.nova.session() as session:
            # locked, so that of two runs that ask at the same time the second one sees what the first one took
            rows = session.scalars(
                select(Execution).where(Execution.id.in_(execution_ids)).order_by(Execution.id).with_for_update()
            ).all()
            held: list[int] = []
            for row in rows:
                if row.run_id not in (None, self.run_id, self.run_key, *self.ancestors):
                    continue
                if row.cancelled_at is not None:
                    _end_cancelled(row)
                    continue
                row.run_id, row.version_id = self.run_id, version_id
                row.waits_until = row.put_off_by = None
                if row.status == "pending":
                    row.status, row.error = "running", None
                    row.started_at = row.started_at or datetime.now(UTC)
                held.append(row.id)
            return held

    def held(self) -> list[int]:
        """The executions that this run, or a run it repeats, holds."""
        with self.nova.read() as session:
            return list(
                session.scalars(
                    select(Execution.id)
                    .where(Execution.run_id.in_([self.run_id, *self.ancestors]))
                    .order_by(Execution.id)
                )
            )

    def begin(self, execution_id: int, node_id: str) -> None:
        """Notes that a node with outside effects begins: if no row follows, nobody knows what it has done."""
        self._set(Execution.id == execution_id, begun_node=node_id)

    def withdraw(self, execution_id: int) -> None:
        """The node that had begun is certain to have done nothing."""
        self._set(Execution.id == execution_id, begun_node=None)

    def put_off(self, items: Sequence[PutOff]) -> None:
        """Gives executions back to whoever asks for runs, not before their time. What they have done stays."""
        for item in items:
            # no row in the chain: nothing has been done
            given_back: dict[str, Any] = {"run_id": None, "requested_at": None, "begun_node": None}
            with self.nova.session() as session:
                # a decision that came since the node looked finds this execution at work and leaves it as it is
                decided = item.decided_at is not None and not still_open(session, item.execution_id, item.decided_at)
                status = "pending" if decided or item.decided_at is None else IN_APPROVAL
                kept: dict[str, Any] = {"waits_until": None if decided else item.until, "put_off_by": self.run_id}
                mine = (Execution.id == item.execution_id) & (Execution.run_id == self.run_id)
                session.execute(
                    update(Execution)
                    .where(mine, Execution.cancelled_at.is_(None))
                    .values(status=status, error=item.reason[:2_000], **given_back, **kept)
                )
            self._set(
                (Execution.id == item.execution_id) & Execution.cancelled_at.is_not(None),
                status="failed",
                begun_node=None,
                completed_at=datetime.now(UTC),
                error=literal("cancelled by ") + Execution.cancelled_by,
            )

    def _set(self, which: ColumnElement[bool], **values: Any) -> None:
        with self.nova.session() as session:
            session.execute(update(Execution).where(which, Execution.run_id == self.run_id).values(**values))

    def cancelled(self, execution_ids: Sequence[int]) -> bool:
        """Whether one of these was cancelled, so that a run without anything to do is no error."""
        query = select(Execution.id).where(Execution.id.in_(execution_ids), Execution.cancelled_at.is_not(None))
        with self.nova.read() as session:
            return session.scalar(query.limit(1)) is not None

    def waiting(self, status: str = "pending") -> dict[int, datetime]:
        """The executions that this run has put off, and until when; with IN_APPROVAL: those that a person decides."""
        query = select(Execution.id, Execution.waits_until).where(
            Execution.put_off_by == self.run_id, Execution.status == status
        )
        with self.nova.read() as session:
            return {number: until for number, until in session.execute(query) if until is not None}

    def left_alone(self, execution_ids: Sequence[int]) -> list[str]:
        """Which of these executions this run does not hold, and why, as texts."""
        with self.nova.read() as session:
            query = select(Execution.id, Execution.run_id, Execution.status).where(Execution.id.in_(execution_ids))
            found = {row.id: row for row in session.execute(query)}
        others = [number for number in execution_ids if number not in found or found[number].run_id != self.run_id]
        return [
            f"execution {number} is held by run {found[number].run_id} ({found[number].status})"
            if number in found
            else f"there is no execution {number}"
            for number in others
        ]

    def goes_on(self) -> bool:
        """Whether any execution of this run is complete or can still become so."""
        with self.nova.read() as session:
            query = select(Execution.id).where(
                Execution.run_id.in_([self.run_id, *self.ancestors]),
                Execution.status.in_(["pending", "running", "completed"]),
            )
            return session.scalar(query.limit(1)) is not None

    def passed(self, node_id: str, path: str | None) -> list[int]:
        """The held executions that passed `node_id` along `path`: what an output of a step carries."""
        with self.nova.read() as session:
            query = (
                select(ChainRow.execution_id)
                .join(Execution, Execution.id == ChainRow.execution_id)
                .where(
                    Execution.run_id.in_([self.run_id, *self.ancestors]),
                    ChainRow.node_id == node_id,
                    ChainRow.status == "success",
                )
                .order_by(ChainRow.execution_id)
            )
            if path is not None:
                query = query.where(ChainRow.path_taken == path)
            return list(session.scalars(query))

    def open(self, node_id: str, execution_ids: Sequence[int]) -> list[Entry]:
        """The executions before `node_id`, each with its context (the last success's, or the initial)."""
        with self.nova.read() as session:
            executions = session.execute(
                select(
                    Execution.id,
                    Execution.status,
                    Execution.initial_context,
                    Execution.begun_node,
                    Client,
                    ChainRow.run_id,
                    Execution.cancelled_by,
                )
                .outerjoin(Client, Client.id == Execution.client_id)
                .outerjoin(ChainRow, (ChainRow.execution_id == Execution.id) & (ChainRow.seq == Execution.chain_length))
                .where(Execution.id.in_(execution_ids))
                .order_by(Execution.id)
            ).all()
            rows = last_rows(session, execution_ids, node_id)
            blobs = fetch_blobs(session, (row.output for row in rows.values() if row.node_id != node_id))
        entries: list[Entry] = []
        for execution_id, status, initial, begun, client, last_run, cancelled_by in executions:
            row = rows.get(execution_id)
            done = row is not None and row.node_id == node_id
            entries.append(
                Entry(
                    execution_id=execution_id,
                    status=status,
                    # an initial context is a user's as it stands: what looks like a reference in it is none
                    context={} if done else initial if row is None else context_of(row.output, blobs),
                    # the types of SQLAlchemy do not tell that an outer join may give None
                    client=client_view(client) if client is not None else None,  # pyright: ignore[reportUnnecessaryComparison]
                    done=done,
                    path=row.path_taken if row is not None and done else None,
                    begun=begun,
                    last_run=last_run,
                    cancelled_by=cancelled_by,
                )
            )
        return entries

    def record(self, records: Sequence[Record]) -> None:
        """Appends one row for each record and updates the executions: all of it, or nothing.

        Raises Conflict when another run holds one of them by now: a worker that was given up for dead must not
        go on beside the run that took over.
        """
        if not records:
            return
        blobs: dict[str, bytes] = {}
        now = datetime.now(UTC)
        wanted = Execution.id.in_([record.execution_id for record in records])
        columns = (Execution.id, Execution.chain_head, Execution.chain_length, Execution.run_id)
        heads = select(*columns).where(wanted).with_for_update()
        try:
            with self.nova.session() as session:
                # locked (SQLite: this transaction is the only writer), so the heads are true until the commit
                found = {row.id: row for row in session.execute(heads)}
                rows: list[dict[str, Any]] = []
                changes: list[dict[str, Any]] = []
                for record in records:
                    head = found.get(record.execution_id)
                    if head is None or head.run_id != self.run_id:
                        raise _taken(record.execution_id, head.run_id if head else None)
                    row = chain_row(
                        record,
                        self.run_id,
                        prev_hash=head.chain_head or GENESIS,
                        seq=head.chain_length + 1,
                        now=now,
                        blobs=blobs,
                    )
                    rows.append(row)
                    changes.append(execution_change(record, row, now))
                store_blobs(session, blobs)
                session.execute(insert(ChainRow), rows)
                session.connection().execute(UPDATE, changes)
        except IntegrityError as error:
            raise Conflict(
                "another run worked on one of these executions at the same time",
                remedy="nothing was recorded twice; look at the other run, then retry this one",
            ) from error


def _end_cancelled(row: Execution) -> None:
    """A run that worked on it is over, or had not begun: nobody else will end it."""
    if row.status == "running":
        row.status, row.failed_node = ("unknown", row.begun_node) if row.begun_node else ("failed", None)
        row.error, row.completed_at = f"cancelled by {row.cancelled_by}", datetime.now(UTC)


def _taken(execution_id: int, run_id: str | None) -> Conflict:
    holder = f"is held by {f'run {run_id}' if run_id else 'no run'} now"
    return Conflict(
        f"execution {execution_id} {holder}, so this run records nothing more for it",
        remedy="nothing was recorded twice; look at the other run",
    )
