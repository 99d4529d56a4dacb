"""Places for cloud sandboxes on both databases: the rate, the ceiling, the record."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from threading import Thread

import pytest
from sqlalchemy import select, text

from nova_pipelines.database import sandboxes
from nova_pipelines.database.sandbox_tables import SandboxRow
from nova_pipelines.database.sandboxes import SandboxPlaces, forget_old, live_count, maybe_alive
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.domain.errors import ConfigurationError, Unavailable
from nova_pipelines_tests.database.test_breaker import Clock


@pytest.fixture
def nova(databases: Databases) -> Database:
    return databases.nova


@pytest.fixture
def clock(nova: Database) -> Clock:
    """A day later than the migration."""
    clock = Clock()
    with nova.read() as session:
        refilled = session.scalars(select(sandboxes.SandboxGate.refilled_at)).one()
    clock.now = refilled + timedelta(days=1)
    return clock


def places(nova: Database, clock: Clock, **options) -> SandboxPlaces:
    """Whoever waits lets the clock run."""
    return SandboxPlaces(nova, now=clock, sleep=clock.passes, **options)


def test_creates_are_as_fast_as_the_account_allows_and_no_faster(nova: Database, clock: Clock):
    here, there = places(nova, clock), places(nova, clock)
    began, times = clock.now, []
    for one in (here, there, here, there):
        one.take(300)
        times.append((clock.now - began).total_seconds())
    assert times == pytest.approx([0, 1, 2, 3])


def test_pro_may_make_five_at_once_and_five_a_second(nova: Database, clock: Clock):
    one = places(nova, clock, per_second=5, ceiling=100)
    one.take(300)
    clock.passes(10)
    began = clock.now
    for _ in range(10):
        one.take(300)
    assert (clock.now - began).total_seconds() == pytest.approx(1)


def test_who_would_wait_too_long_comes_back_later(nova: Database, clock: Clock):
    places(nova, clock).take(300)
    with pytest.raises(Unavailable, match="a second are allowed") as caught:
        places(nova, clock, per_second=0.02).take(300)
    assert caught.value.after_seconds == pytest.approx(50)


def test_not_more_live_at_once_than_allowed(nova: Database, clock: Clock):
    one = places(nova, clock, ceiling=2)
    first, _ = one.take(300), one.take(60)
    began = clock.now
    with pytest.raises(Unavailable, match="2 sandboxes are running"):
        one.take(300)
    assert (clock.now - began).total_seconds() == pytest.approx(30)
    clock.passes(30)
    one.take(300)  # the second one's life is over: its worker was killed
    one.released(first)  # could not be ended: it may still live
    with pytest.raises(Unavailable):
        one.take(300)
    one.ended(first)
    one.take(300)


def test_the_record(nova: Database, clock: Clock):
    one = places(nova, clock, run_id="run-1")
    assert one.metadata.keys() == {"nova_installation", "nova_run"}
    assert one.metadata == places(nova, clock, run_id="run-1").metadata
    mark = one.take(300)
    one.alive(mark, "sandbox-1", 900)
    with nova.read() as session:
        (row,) = maybe_alive(session, clock.now)
        assert (row.mark, row.sandbox_id, row.run_id) == (mark, "sandbox-1", "run-1")
        assert row.alive_until == clock.now + timedelta(seconds=900)
        assert live_count(session, "e2b", clock.now) == 1
        assert live_count(session, "e2b", clock.now + timedelta(seconds=900)) == 0
    one.ended(mark)
    with nova.session() as session:
        assert maybe_alive(session, clock.now) == []
        forget_old(session, clock.now)
        assert session.scalars(select(SandboxRow.mark)).all() == [mark]
        forget_old(session, clock.now + timedelta(days=31))
        assert session.scalars(select(SandboxRow.mark)).all() == []


def test_many_at_once_never_get_one_place_twice(nova: Database, clock: Clock):
    answers: Counter[str] = Counter()

    def take() -> None:
        mine = SandboxPlaces(nova, ceiling=3, per_second=1000, wait_seconds=0, now=clock)
        try:
            mine.take(300)
            answers["place"] += 1
        except Unavailable:
            answers["none"] += 1

    places(nova, clock, per_second=1000).take(1)
    clock.passes(10)
    threads = [Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {"place": 3, "none": 5}


def test_a_database_that_is_not_migrated(nova: Database, clock: Clock):
    with nova.session() as session:
        session.execute(text("DELETE FROM sandbox_gates"))
    with pytest.raises(ConfigurationError, match="nova migrate"):
        places(nova, clock).take(300)
    with pytest.raises(ConfigurationError, match="nova migrate"):
        _ = places(nova, clock).metadata
