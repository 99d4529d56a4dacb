"""A circuit breaker whose state all processes share, in nova-db. pybreaker decides when it opens and closes; here
stand its storage, and the compare-and-set that lets exactly one trial through. Knows not what it protects."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import pybreaker
from sqlalchemy import ColumnElement, update
from sqlalchemy.orm import Session

from nova_pipelines.database.sandbox_tables import BreakerRow
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import ConfigurationError, Unavailable

CLOSED, OPEN, HALF_OPEN = "closed", "open", "half_open"
#: who finds a trial under way asks again after this long at most
ASK_AGAIN_SECONDS = 60.0
#: as pybreaker spells them
_SPELT = {CLOSED: pybreaker.STATE_CLOSED, OPEN: pybreaker.STATE_OPEN, HALF_OPEN: pybreaker.STATE_HALF_OPEN}
_NAMED = {spelt: name for name, spelt in _SPELT.items()}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BreakerView:
    """The state of a breaker: `closed`, `open` or `half_open`, and when it lets the next call through if it is open."""

    state: str
    failure_count: int
    failure_threshold: int
    opens_again_at: datetime | None

    @property
    def is_healthy(self) -> bool:
        return self.state == CLOSED


def breaker_view(session: Session, name: str, *, threshold: int, seconds: float) -> BreakerView:
    """What the breaker's row says. Raises ConfigurationError when there is none: the database is not migrated."""
    row = _row(session.get(BreakerRow, name), name)
    again = None
    if row.state != CLOSED:
        again = row.trial_until if row.state == HALF_OPEN else _due(row, seconds)
    return BreakerView(row.state, row.failures, threshold, again)


class SharedBreaker:
    """`counts` tells which errors are failures of what is protected; all others say nothing about it: they neither
    open nor close the breaker. Unavailable is raised in place of a call that is not let through."""

    def __init__(
        self,
        nova: Database,
        name: str,
        *,
        counts: Callable[[BaseException], bool],
        threshold: int = 5,
        seconds: float = 300.0,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._nova, self._name, self._now = nova, name, now
        self._counts, self._threshold, self._seconds = counts, threshold, seconds

    def check(self) -> None:
        """Raises Unavailable while no call would be let through. Takes nothing."""
        with self._nova.read() as session:
            self._refuse(_row(session.get(BreakerRow, self._name), self._name))

    def call(self, work: Callable[[], T], *, longest_seconds: float) -> T:
        """Does `work`, or raises Unavailable. A trial whose process dies blocks the others for `longest_seconds`."""
        trial = self._enter(longest_seconds)
        storage = _Storage(self._nova, self._name, self._now)

        def watched() -> T:
            try:
                return work()
            except BaseException as error:
                storage.silent = not self._counts(error)
                raise

        breaker = pybreaker.CircuitBreaker(
            fail_max=self._threshold,
            reset_timeout=self._seconds,
            exclude=[lambda error: not self._counts(error)],
            state_storage=storage,
            throw_new_error_on_trip=False,
        )
        try:
            return breaker.call(watched)
        except pybreaker.CircuitBreakerError as error:  # another process opened it since `_enter`
            raise self._unavailable(self._seconds) from error
        finally:
            if trial is not None:
                self._give_back(trial)

    def _enter(self, longest_seconds: float) -> str | None:
        """Lets a call in; when an open breaker's time has come, exactly one of all processes, for the trial."""
        with self._nova.read() as session:
            if _row(session.get(BreakerRow, self._name), self._name).state == CLOSED:
                return None
        with self._nova.session() as session:
            row = _row(session.get(BreakerRow, self._name, with_for_update=True), self._name)
            self._refuse(row)
            if row.state == CLOSED:
                return None
            row.state, row.trial = HALF_OPEN, str(uuid.uuid4())
            row.trial_until = self._now() + timedelta(seconds=longest_seconds)
            return row.trial

    def _refuse(self, row: BreakerRow) -> None:
        if row.state == CLOSED:
            return
        until = row.trial_until if row.state == HALF_OPEN else _due(row, self._seconds)
        wait = (until - self._now()).total_seconds() if until else 0.0
        if wait > 0:
            raise self._unavailable(min(wait, ASK_AGAIN_SECONDS) if row.state == HALF_OPEN else wait)

    def _unavailable(self, seconds: float) -> Unavailable:
        return Unavailable(
            f"the circuit breaker of {self._name} is open: it failed {self._threshold} times in a row and is left "
            "alone for a while",
            after_seconds=seconds,
        )

    def _give_back(self, trial: str) -> None:
        """A trial that ended without a word about the service: the next caller may try at once."""
        with self._nova.session() as session:
            mine = (BreakerRow.name == self._name) & (BreakerRow.trial == trial) & (BreakerRow.state == HALF_OPEN)
            session.execute(update(BreakerRow).where(mine).values(state=OPEN, trial=None, trial_until=None))


def _row(row: BreakerRow | None, name: str) -> BreakerRow:
    if row is None:
        raise ConfigurationError(f"the circuit breaker {name!r} is not in the database", remedy="run `nova migrate`")
    return row


def _due(row: BreakerRow, seconds: float) -> datetime | None:
    return row.opened_at + timedelta(seconds=seconds) if row.opened_at else None


class _Storage(pybreaker.CircuitBreakerStorage):
    """pybreaker's view of a row, made for one call: each write is one statement, so that none is lost between
    processes. What a late call reports changes nothing of a breaker that others have opened meanwhile."""

    def __init__(self, nova: Database, name: str, now: Callable[[], datetime]) -> None:
        super().__init__(name)
        self._nova, self._now = nova, now
        #: the call said nothing about the service
        self.silent = False
        self._successes = 0

    def _read(self) -> BreakerRow:
        with self._nova.read() as session:
            return _row(session.get(BreakerRow, self.name), self.name)

    def _write(self, *conditions: ColumnElement[bool], **values: Any) -> None:
        with self._nova.session() as session:
            session.execute(update(BreakerRow).where(BreakerRow.name == self.name, *conditions).values(**values))

    @property
    def state(self) -> str:
        return _SPELT[self._read().state]

    @state.setter
    def state(self, state: str) -> None:
        self._write(state=_NAMED[state], trial=None, trial_until=None)

    @property
    def counter(self) -> int:
        return self._read().failures

    def increment_counter(self) -> None:
        self._write(failures=BreakerRow.failures + 1)

    def reset_counter(self) -> None:
        if not self.silent and self.counter:
            self._write(BreakerRow.state != OPEN, failures=0)

    @property
    def success_counter(self) -> int:
        return self._successes

    def increment_success_counter(self) -> None:
        self._successes += not self.silent

    def reset_success_counter(self) -> None:
        self._successes = 0

    @property
    def opened_at(self) -> datetime | None:
        return self._read().opened_at

    @opened_at.setter
    def opened_at(self, datetime: datetime) -> None:
        # our own clock, which tests set
        self._write(BreakerRow.state != OPEN, opened_at=self._now())
