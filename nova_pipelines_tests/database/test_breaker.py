"""The shared breaker on both databases: what counts, when it opens, and that one trial goes through."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from nova_pipelines.database.breaker import SharedBreaker, breaker_view
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.domain.errors import CodeError, ConfigurationError, TransientError, Unavailable


class Down(Exception):
    """The service failed."""


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def nova(databases: Databases) -> Database:
    return databases.nova


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breaker(nova: Database, clock: Clock) -> SharedBreaker:
    """One process's own; they share nothing but the database."""
    return SharedBreaker(nova, "e2b", counts=lambda error: isinstance(error, Down), now=clock)


def view(nova: Database) -> tuple[str, int, bool]:
    with nova.read() as session:
        seen = breaker_view(session, "e2b", threshold=5, seconds=300)
    assert seen.failure_threshold == 5
    return seen.state, seen.failure_count, seen.is_healthy


def call(of: SharedBreaker, error: BaseException | None = None, *, longest: float = 60) -> str:
    def work() -> str:
        if error is not None:
            raise error
        return "done"

    return of.call(work, longest_seconds=longest)


def fail(of: SharedBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Down):
            call(of, Down())


def test_five_failures_in_a_row_open_it_for_everybody(nova: Database, clock: Clock):
    here, there = breaker(nova, clock), breaker(nova, clock)
    assert view(nova) == ("closed", 0, True)
    fail(here, 3)
    fail(there, 1)
    assert view(nova) == ("closed", 4, True)
    assert call(there) == "done"
    assert view(nova) == ("closed", 0, True)
    fail(here, 5)
    assert view(nova) == ("open", 5, False)
    for one in (here, there):
        with pytest.raises(Unavailable) as caught:
            call(one)
        assert caught.value.after_seconds == 300
        with pytest.raises(Unavailable):
            one.check()
    clock.passes(299)
    with pytest.raises(Unavailable) as caught:
        there.check()
    assert caught.value.after_seconds == 1


@pytest.mark.parametrize(
    "error", [CodeError("x"), TransientError("nova-db is busy"), KeyboardInterrupt(), Unavailable("x", after_seconds=1)]
)
def test_other_errors_say_nothing_about_the_service(nova: Database, clock: Clock, error: BaseException):
    here = breaker(nova, clock)
    fail(here, 4)
    for _ in range(6):
        with pytest.raises(type(error)):
            call(here, error)
    assert view(nova) == ("closed", 4, True)
    fail(here, 1)
    clock.passes(301)
    with pytest.raises(type(error)):
        call(here, error)
    assert view(nova)[0] == "open"
    assert call(here) == "done"  # the trial was given back
    assert view(nova) == ("closed", 0, True)


def test_half_open_lets_one_through_and_its_end_decides(nova: Database, clock: Clock):
    here, there = breaker(nova, clock), breaker(nova, clock)
    fail(here, 5)
    clock.passes(300)
    here.check()
    seen = []

    def trial() -> None:
        seen.append(view(nova)[0])
        with pytest.raises(Unavailable) as caught:
            call(there)
        seen.append(caught.value.after_seconds)
        raise Down

    with pytest.raises(Down):
        here.call(trial, longest_seconds=40)
    assert seen == ["half_open", 40]
    assert view(nova)[0] == "open"
    with pytest.raises(Unavailable) as caught:
        there.check()
    assert caught.value.after_seconds == 300  # anew from the failed trial
    clock.passes(300)
    assert call(there) == "done"
    assert view(nova) == ("closed", 0, True)


def test_a_trial_whose_process_died_does_not_block_for_ever(nova: Database, clock: Clock):
    here = breaker(nova, clock)
    fail(here, 5)
    clock.passes(300)
    assert here._enter(50) is not None  # and then SIGKILL
    clock.passes(49)
    with pytest.raises(Unavailable) as caught:
        call(here)
    assert caught.value.after_seconds == 1
    clock.passes(1)
    assert call(here) == "done"


def test_late_reports_change_nothing_of_an_open_breaker(nova: Database, clock: Clock):
    here, there = breaker(nova, clock), breaker(nova, clock)

    def late(error: Exception | None) -> None:
        def work() -> None:
            if view(nova)[0] == "closed":
                fail(there, 5)
                clock.passes(100)
            if error:
                raise error

        if error is None:
            here.call(work, longest_seconds=60)
        else:
            with pytest.raises(Down):
                here.call(work, longest_seconds=60)

    late(None)
    assert view(nova) == ("open", 5, False)
    with pytest.raises(Unavailable) as caught:
        here.check()
    assert caught.value.after_seconds == 200
    clock.passes(200)
    call(here)
    late(Down())
    with pytest.raises(Unavailable) as caught:
        here.check()
    assert caught.value.after_seconds == 200


def test_of_many_threads_one_gets_the_trial(nova: Database, clock: Clock):
    fail(breaker(nova, clock), 5)
    clock.passes(300)
    together, ended = threading.Barrier(6), threading.Barrier(6)
    answers: list[str] = []

    def one() -> None:
        mine = breaker(nova, clock)
        together.wait(20)
        try:
            answers.append(mine.call(lambda: str(ended.wait(20) >= 0), longest_seconds=60))
        except Unavailable:
            answers.append("refused")
            ended.wait(20)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["True"] + ["refused"] * 5


def test_a_database_that_is_not_migrated(nova: Database, clock: Clock):
    with nova.session() as session:
        session.execute(text("DELETE FROM circuit_breakers"))
    with pytest.raises(ConfigurationError, match="nova migrate"):
        breaker(nova, clock).check()
