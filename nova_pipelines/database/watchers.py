"""Signs of life of the watchers: each writes its own row, anybody reads them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import WatcherRow
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import TransientError

#: a watcher gives a sign of life every BEAT_SECONDS, and is taken for dead without one for SILENT
BEAT_SECONDS = 10.0
SILENT = timedelta(seconds=60)


def beat(session: Session, watcher_id: str, **values: Any) -> None:
    """Writes this watcher's row: all columns of WatcherRow but `id` and `beat_at`. What the dead left goes away."""
    now = utc_now()
    session.execute(delete(WatcherRow).where(WatcherRow.id != watcher_id, WatcherRow.beat_at < now - SILENT))
    session.merge(WatcherRow(id=watcher_id, beat_at=now, **values))


def farewell(session: Session, watcher_id: str) -> None:
    """Takes the row away: this watcher ended as it should."""
    session.execute(delete(WatcherRow).where(WatcherRow.id == watcher_id))


def living_watchers(session: Session, *, now: datetime | None = None) -> list[WatcherRow]:
    """The watchers that are alive, the one that began last first; [] when none was started, or all were ended.

    Raises TransientError when one has died and no other is alive.
    """
    rows = session.scalars(select(WatcherRow).order_by(WatcherRow.started_at.desc(), WatcherRow.id)).all()
    alive = [row for row in rows if row.beat_at > (now or utc_now()) - SILENT]
    if rows and not alive:
        last = max(rows, key=lambda row: row.beat_at)
        raise TransientError(
            f"no sign of life of the watcher ({last.place}) since {last.beat_at:%Y-%m-%d %H:%M:%S} UTC",
            remedy="start it again (`nova up`, or `nova serve watch`); its log says why it ended. "
            "Meanwhile the mailbox sensor takes the mail in",
        )
    return alive


def watching_since(nova: Database, since: datetime) -> bool:
    """Whether a watcher that was started after `since` has given a sign of life."""
    with nova.read() as session:
        return session.scalar(select(WatcherRow.id).where(WatcherRow.started_at >= since).limit(1)) is not None
