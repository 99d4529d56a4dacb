"""Places for cloud sandboxes, shared by all processes through nova-db: how fast they are created, how many live at
once, and a record of each that the reaper goes by. Knows not how a sandbox is made."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from nova_pipelines.database.sandbox_tables import SandboxGate, SandboxRow
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import ConfigurationError, Unavailable

#: how often a full house is looked at again, and when an execution that found it full comes back
LOOK_AGAIN_SECONDS, COME_BACK_SECONDS = 1.0, 30.0
KEEP_DAYS = 30


class SandboxPlaces:
    """Takes places for one run (or for no run). `wait_seconds` bounds how long a caller waits for one."""

    def __init__(
        self,
        nova: Database,
        *,
        backend: str = "e2b",
        per_second: float = 1.0,
        ceiling: int = 20,
        wait_seconds: float = 30.0,
        run_id: str | None = None,
        now: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._nova, self._backend, self._run_id = nova, backend, run_id
        self._per_second, self._ceiling, self._wait_seconds = per_second, ceiling, wait_seconds
        self._now, self._sleep = now, sleep

    @property
    def metadata(self) -> dict[str, str]:
        """What a sandbox carries of whose it is."""
        with self._nova.read() as session:
            found = {"nova_installation": installation(session, self._backend)}
        return found | ({"nova_run": self._run_id} if self._run_id else {})

    def take(self, alive_seconds: float) -> str:
        """A place for a sandbox that lives so long; its mark. Raises Unavailable when none is free in time."""
        waited = 0.0
        while True:
            mark, wait, reason = self._try(alive_seconds)
            if mark is not None:
                return mark
            if waited + wait > self._wait_seconds:
                raise Unavailable(f"E2B: {reason}", after_seconds=max(wait, COME_BACK_SECONDS))
            self._sleep(wait)
            waited += wait

    def _try(self, alive_seconds: float) -> tuple[str | None, float, str]:
        """(mark, 0, "") or (None, seconds to wait, why): one short transaction that locks the gate."""
        with self._nova.session() as session:
            gate = _gate(session.get(SandboxGate, self._backend, with_for_update=True), self._backend)
            now = self._now()
            if live_count(session, self._backend, now) >= self._ceiling:
                return None, LOOK_AGAIN_SECONDS, f"{self._ceiling} sandboxes are running, more are not allowed"
            elapsed = max(0.0, (now - gate.refilled_at).total_seconds())
            tokens = min(max(1.0, self._per_second), gate.tokens + elapsed * self._per_second)
            if tokens < 1:
                return None, (1 - tokens) / self._per_second, f"{self._per_second:g} sandboxes a second are allowed"
            gate.tokens, gate.refilled_at = tokens - 1, now
            row = SandboxRow(
                backend=self._backend,
                mark=str(uuid.uuid4()),
                run_id=self._run_id,
                created_at=now,
                alive_until=now + timedelta(seconds=alive_seconds),
            )
            session.add(row)
            return row.mark, 0.0, ""

    def alive(self, mark: str, sandbox_id: str, alive_seconds: float) -> None:
        """The sandbox is there, or lives longer now: so many seconds from now."""
        self._set(mark, sandbox_id=sandbox_id, alive_until=self._now() + timedelta(seconds=alive_seconds))

    def released(self, mark: str) -> None:
        """Nobody works in it any more, but it could not be ended: the reaper is to do it."""
        self._set(mark, released_at=self._now())

    def ended(self, mark: str) -> None:
        """It is certain to be gone: its place is free."""
        now = self._now()
        self._set(mark, released_at=now, ended_at=now)

    def _set(self, mark: str, **values: Any) -> None:
        with self._nova.session() as session:
            session.execute(update(SandboxRow).where(SandboxRow.mark == mark).values(**values))


def installation(session: Session, backend: str = "e2b") -> str:
    """Who this installation is, for the metadata of its sandboxes."""
    return _gate(session.get(SandboxGate, backend), backend).installation


def _gate(gate: SandboxGate | None, backend: str) -> SandboxGate:
    if gate is None:
        raise ConfigurationError(f"the limits of {backend!r} are not in the database", remedy="run `nova migrate`")
    return gate


def live_count(session: Session, backend: str, now: datetime) -> int:
    query = select(func.count()).select_from(SandboxRow)
    return session.scalar(query.where(SandboxRow.backend == backend, *_maybe_alive(now))) or 0


def maybe_alive(session: Session, now: datetime, backend: str = "e2b") -> list[SandboxRow]:
    """What is not known to be gone and may still live, the oldest first."""
    query = select(SandboxRow).where(SandboxRow.backend == backend, *_maybe_alive(now))
    return list(session.scalars(query.order_by(SandboxRow.id)))


def _maybe_alive(now: datetime) -> tuple[Any, ...]:
    return SandboxRow.ended_at.is_(None), SandboxRow.alive_until > now


def rows_by_mark(session: Session, marks: Iterable[str]) -> dict[str, SandboxRow]:
    rows = session.scalars(select(SandboxRow).where(SandboxRow.mark.in_(list(marks))))
    return {row.mark: row for row in rows}


def mark_ended(session: Session, marks: Iterable[str], now: datetime) -> None:
    """These are certain to be gone."""
    session.execute(
        update(SandboxRow)
        .where(SandboxRow.mark.in_(list(marks)), SandboxRow.ended_at.is_(None))
        .values(released_at=func.coalesce(SandboxRow.released_at, now), ended_at=now)
    )


def forget_old(session: Session, now: datetime) -> None:
    """Drops the rows of sandboxes whose life was over long ago."""
    session.execute(delete(SandboxRow).where(SandboxRow.alive_until < now - timedelta(days=KEEP_DAYS)))
