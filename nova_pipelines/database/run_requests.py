"""Pending executions in batches, each under a run key that is committed before anybody is asked for the run.

So whoever asks may die: its executions carry the key, and the same run is asked for again. Two that ask at the
same time share the executions between them, and none gets more than its client may have waiting.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update

from nova_pipelines.database.executions import due
from nova_pipelines.database.nova import Client, Execution
from nova_pipelines.database.session import Database

#: begins the keys of the sensor, and of the watcher; all others are of runs by hand (`nova run --wait`).
#: With 32 hexadecimal digits they fill the column of 36
REQUESTED, WATCHED = "req-", "wat-"
#: after this long without a claim a run by hand, or one that the watcher asked for, is taken for lost: its key is
#: asked for again. The watcher gives up its call long before
PATIENCE, WATCH_PATIENCE = timedelta(minutes=2), timedelta(minutes=1)

#: an execution that lost so many runs gets one for itself: if it is what kills them, the others are done without it
ALONE = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Executions of one workflow and one client that are kept for the run with this key."""

    key: str
    workflow_id: int
    executions: tuple[int, ...]
    slug: str | None
    #: the newest version (its id) that one of them was made for
    version_id: int = 0


def reserve(
    nova: Database,
    workflow_id: int,
    *,
    max_batch: int,
    max_waiting: int,
    prefix: str = REQUESTED,
    client_ids: Collection[int] | None = None,
    up_to_version: int | None = None,
) -> Iterator[Batch]:
    """Batches of what is pending and due, oldest first and the clients by turns, each committed when it is taken.

    A client has at most about `max_waiting` executions of a workflow asked for and not begun: what it has beyond
    that stays where it is. `client_ids`: only theirs; None: all, those of no client too. `up_to_version`: only of this
    version (its id) and older ones, as whoever asks has loaded no newer one; None: all.
    """
    for slug, numbers in _by_turns(nova, workflow_id, max_batch, max_waiting, client_ids, up_to_version):
        key = f"{prefix}{uuid.uuid4().hex}"
        free = Execution.run_id.is_(None) & (Execution.status == "pending")
        with nova.session() as session:
            session.execute(
                update(Execution)
                .where(Execution.id.in_(numbers), free)
                .values(run_id=key, requested_at=datetime.now(UTC))
            )
            # somebody else may have taken some of them since the look
            taken = session.scalars(select(Execution.id).where(Execution.run_id == key).order_by(Execution.id)).all()
        if taken:
            yield Batch(key, workflow_id, tuple(taken), slug)


def give_back(nova: Database, key: str) -> int:
    """Lets others ask for what is kept under a key whose run is certain not to come. Returns how many."""
    with nova.session() as session:
        kept = (Execution.run_id == key) & (Execution.status == "pending")
        found = session.scalars(select(Execution.id).where(kept).with_for_update()).all()
        session.execute(update(Execution).where(Execution.id.in_(found)).values(run_id=None, requested_at=None))
        return len(found)


def unclaimed(nova: Database, now: datetime | None = None) -> list[Batch]:
    """What was asked for so long ago that its run should have taken it.

    The sensor's ticks come one after the other, and a tick ends when its runs are made: what an earlier one asked
    for and is not there was lost with it. Others may still be on their way.
    """
    moment = now or datetime.now(UTC)
    query = (
        select(Execution.run_id, Execution.workflow_id, Execution.id, Client.slug, Execution.version_id)
        .outerjoin(Client, Client.id == Execution.client_id)
        .where(Execution.status == "pending", Execution.run_id.is_not(None), _late(moment))
        .order_by(Execution.id)
    )
    groups: dict[tuple[str, int], list[int]] = {}
    slugs: dict[tuple[str, int], str | None] = {}
    versions: dict[tuple[str, int], int] = {}
    with nova.read() as session:
        for run_key, workflow_id, execution_id, slug, version_id in session.execute(query):
            group = str(run_key), workflow_id
            groups.setdefault(group, []).append(execution_id)
            slugs.setdefault(group, slug)
            versions[group] = max(version_id, versions.get(group, 0))
    return [Batch(key[0], key[1], tuple(numbers), slugs[key], versions[key]) for key, numbers in groups.items()]


def _late(now: datetime) -> ColumnElement[bool]:
    watched = Execution.run_id.startswith(WATCHED, autoescape=True)
    return or_(
        Execution.run_id.startswith(REQUESTED, autoescape=True),
        and_(watched, Execution.requested_at < now - WATCH_PATIENCE),
        Execution.requested_at < now - PATIENCE,
    )


def _by_turns(
    nova: Database,
    workflow_id: int,
    max_batch: int,
    max_waiting: int,
    client_ids: Collection[int] | None,
    up_to_version: int | None,
) -> list[tuple[str | None, Sequence[int]]]:
    """The first batch of every client, then the second of every client, and so on."""
    batches: list[tuple[int, int, str | None, Sequence[int]]] = []
    for place, (slug, found) in enumerate(_pending(nova, workflow_id, max_waiting, client_ids, up_to_version)):
        together = [number for number, lost_runs in found if lost_runs < ALONE]
        pieces = [together[begin : begin + max_batch] for begin in range(0, len(together), max_batch)]
        pieces += [[number] for number, lost_runs in found if lost_runs >= ALONE]
        batches += [(turn, place, slug, piece) for turn, piece in enumerate(pieces)]
    return [(slug, numbers) for _, _, slug, numbers in sorted(batches, key=lambda batch: batch[:2])]


def _pending(
    nova: Database,
    workflow_id: int,
    max_waiting: int,
    client_ids: Collection[int] | None,
    up_to_version: int | None,
) -> list[tuple[str | None, list[tuple[int, int]]]]:
    """For each client (None: of no client) its oldest executions and how many runs each has lost, as many as it
    has room for."""
    mine = (Execution.workflow_id == workflow_id) & (Execution.status == "pending")
    if client_ids is not None:
        mine &= Execution.client_id.in_(client_ids)
    if up_to_version is not None:
        mine &= Execution.version_id <= up_to_version
    asked = select(Execution.client_id, func.count()).where(mine, Execution.run_id.is_not(None))
    rank = func.row_number().over(partition_by=Execution.client_id, order_by=Execution.id)
    ranked = select(Execution.id, Execution.client_id, Execution.lost_runs, rank.label("rank"))
    free = ranked.where(mine, Execution.run_id.is_(None), due()).subquery()
    query = (
        select(free.c.id, free.c.lost_runs, free.c.client_id, Client.slug)
        .outerjoin(Client, Client.id == free.c.client_id)
        .where(free.c.rank <= max_waiting)
        .order_by(free.c.id)
    )
    found: dict[int | None, tuple[str | None, list[tuple[int, int]]]] = {}
    with nova.read() as session:
        waiting = {row[0]: row[1] for row in session.execute(asked.group_by(Execution.client_id))}
        for number, lost_runs, client_id, slug in session.execute(query):
            numbers = found.setdefault(client_id, (slug, []))[1]
            if len(numbers) + waiting.get(client_id, 0) < max_waiting:
                numbers.append((number, lost_runs))
    return list(found.values())
