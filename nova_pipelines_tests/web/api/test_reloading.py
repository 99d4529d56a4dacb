"""When the code location is loaded again: soon, together, not for ever, and again after a failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import select, update

from nova_pipelines.compiler.beginning import Start, compiled_newest
from nova_pipelines.compiler.dagster_calls import Asked
from nova_pipelines.compiler.publishing import prepare, store
from nova_pipelines.database.nova import Execution, Workflow
from nova_pipelines.database.run_requests import Batch, unclaimed
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.database.workflows import catalog_revision
from nova_pipelines.nodes.assignment import new_execution
from nova_pipelines.orchestration.dispatch import repeat_requests, request_runs
from nova_pipelines.orchestration.loaded import Loaded
from nova_pipelines.web import launching, reloading
from nova_pipelines.web.launching import Launcher, Wanted, new_run_key
from nova_pipelines.web.reloading import Reloader
from nova_pipelines_tests.cli.conftest import arithmetic


class Location:
    """A code location that takes `seconds` to load what is stored; `refusing`: it keeps what it has."""

    def __init__(self, nova: Database, seconds: float = 0.0) -> None:
        self.nova, self.seconds, self.refusing = nova, seconds, False
        self.revision = 0
        self.began: list[float] = []

    def loaded_revision(self) -> int | None:
        return self.revision

    def reload(self) -> str | None:
        self.began.append(time.monotonic())
        with self.nova.read() as session:
            newest = catalog_revision(session)
        time.sleep(self.seconds)
        if not self.refusing:
            self.revision = newest
        return None


@contextmanager
def running(thread: Reloader | Launcher) -> Iterator[None]:
    thread.start()
    try:
        yield
    finally:
        thread.stop()
        thread.join(20)


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def publish(nova: Database, name: str = "Double It", factor: int = 2) -> int:
    """The revision that it brought."""
    with nova.session() as session:
        store(session, prepare(arithmetic(name, factor), source="test"))
        return catalog_revision(session)


def test_a_burst_is_loaded_together_and_ends_at_the_newest(databases: Databases):
    nova = databases.nova
    location = Location(nova, seconds=0.3)
    told = threading.Event()
    reloader = Reloader(nova, location, told.set)
    with running(reloader):
        for factor in range(40):
            revision = publish(nova, factor=factor)
            reloader.ask()
        wait_for(lambda: reloader.is_live(revision))
        assert told.is_set()
    assert 1 <= len(location.began) < 20
    gaps = [later - earlier for earlier, later in zip(location.began, location.began[1:], strict=False)]
    assert all(gap >= 0.6 for gap in gaps), "as long a pause as the reload took"


def test_one_post_is_loaded_at_once(databases: Databases):
    location = Location(databases.nova)
    reloader = Reloader(databases.nova, location)
    with running(reloader):
        asked = time.monotonic()
        revision = publish(databases.nova)
        reloader.ask()
        wait_for(lambda: reloader.is_live(revision))
    assert len(location.began) == 1
    assert location.began[0] - asked < 5.0


def test_what_others_stored_is_loaded_after_a_while(databases: Databases, monkeypatch: pytest.MonkeyPatch):
    """`nova workflow load` of another machine, or a web service that died between storing and loading."""
    monkeypatch.setattr(reloading, "LOOK", 0.05)
    monkeypatch.setattr(reloading, "PATIENCE", 0.3)
    location = Location(databases.nova)
    reloader = Reloader(databases.nova, location)
    with running(reloader):
        wait_for(lambda: not location.began or reloader.is_live(0))
        revision = publish(databases.nova)
        wait_for(lambda: reloader.is_live(revision))


def test_a_reload_that_brought_nothing_is_tried_again(databases: Databases, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reloading, "FIRST_WAIT", 0.05)
    location = Location(databases.nova)
    location.refusing = True
    reloader = Reloader(databases.nova, location)
    reloader._wait = 0.05
    with running(reloader):
        revision = publish(databases.nova)
        reloader.ask()
        wait_for(lambda: len(location.began) >= 2)
        assert not reloader.is_live(revision)
        location.refusing = False
        wait_for(lambda: reloader.is_live(revision))


# runs


def execution(nova: Database, key: str | None, workflow_id: int = 1, version_id: int = 1) -> int:
    with nova.session() as session:
        row = new_execution(workflow_id, version_id, None, {})
        row.run_id = key
        session.add(row)
        session.flush()
        return row.id


class Dagster:
    """What is asked of it; `outcome` is what it says."""

    def __init__(self, outcome: str = "started") -> None:
        self.outcome = outcome
        self.asked: list[Batch] = []

    def launch(self, _job: str, _start: str, batch: Batch) -> Asked:
        self.asked.append(batch)
        return Asked(self.outcome, "because")  # type: ignore[arg-type]


def wanted(nova: Database, revision: int) -> Wanted:
    key = new_run_key()
    return Wanted(execution(nova, key), key, None, Start(1, "double_it", "start", revision))


def test_a_run_is_asked_for_when_its_version_is_live_and_what_waits_goes_together(databases: Databases):
    nova, dagster, live = databases.nova, Dagster(), {1}
    publish(nova)
    launcher = Launcher(nova, live=lambda revision: revision in live, launch=dagster.launch, max_batch=3)
    new, old = wanted(nova, 2), [wanted(nova, 1) for _ in range(4)]
    for one in (new, *old):
        launcher.take(one)
    with running(launcher):
        wait_for(lambda: len(dagster.asked) == 2)
        assert [batch.executions for batch in dagster.asked] == [(2, 3, 4), (5,)]
        live.add(2)
        launcher.look_again()
        wait_for(lambda: len(dagster.asked) == 3)
    assert dagster.asked[2].executions == (new.execution_id,)
    with nova.read() as session:
        keys = {number: session.get_one(Execution, number).run_id for number in (1, 2, 3, 4, 5)}
    assert keys == {1: new.key, **dict.fromkeys((2, 3, 4), old[0].key), 5: old[3].key}


def test_what_was_cancelled_or_taken_meanwhile_is_not_asked_for(databases: Databases):
    nova, dagster = databases.nova, Dagster()
    publish(nova)
    waits = [wanted(nova, 1) for _ in range(3)]
    with nova.session() as session:
        session.execute(update(Execution).where(Execution.id == 1).values(status="failed", run_id=None))
        session.execute(update(Execution).where(Execution.id == 2).values(run_id="another"))
    launcher = Launcher(nova, live=lambda _: True, launch=dagster.launch, max_batch=50)
    for one in waits:
        launcher.take(one)
    with running(launcher):
        wait_for(lambda: dagster.asked)
    assert [batch.executions for batch in dagster.asked] == [(3,)]


def test_what_dagster_refuses_is_given_to_the_sensor_at_once(databases: Databases):
    nova, dagster = databases.nova, Dagster("refused")
    publish(nova)
    launcher = Launcher(nova, live=lambda _: True, launch=dagster.launch, max_batch=50)
    launcher.take(wanted(nova, 1))
    with running(launcher):
        wait_for(lambda: dagster.asked)
        wait_for(lambda: _key(nova, 1) is None)


def test_a_version_that_never_becomes_live_is_left_to_the_sensor(databases: Databases, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(launching, "PATIENCE", 0.2)
    nova, dagster = databases.nova, Dagster()
    publish(nova)
    launcher = Launcher(nova, live=lambda _: False, launch=dagster.launch, max_batch=50)
    launcher.take(wanted(nova, 1))
    with running(launcher):
        wait_for(lambda: not launcher._waiting)
    assert dagster.asked == []


def _key(nova: Database, number: int) -> str | None:
    with nova.read() as session:
        return session.get_one(Execution, number).run_id


def loaded(nova: Database) -> dict[str, Loaded]:
    """What the code location holds after a load."""
    with nova.read() as session:
        found = {one.job_name: compiled_newest(session, one) for one in session.scalars(select(Workflow))}
    return {name: Loaded(definition, compiled) for name, (_, definition, compiled) in found.items()}


def test_the_sensor_runs_no_execution_under_a_version_older_than_its_own(databases: Databases):
    """With the code location still at version 1, an execution of version 2 waits; older ones are run."""
    nova = databases.nova
    publish(nova)
    old = loaded(nova)
    publish(nova, factor=3)
    first, second = execution(nova, None, version_id=1), execution(nova, None, version_id=2)
    lost = execution(nova, "req-lost", version_id=2)

    def numbers(requests) -> list[int]:
        return [number for request in requests for number in request.run_config["ops"]["start"]["config"]["executions"]]

    assert numbers(request_runs(nova, old, max_batch=50)) == [first]
    assert [batch.executions for batch in unclaimed(nova) if batch.key == "req-lost"] == [(lost,)]
    assert lost not in numbers(repeat_requests(nova, old, lambda _: False))
    new = loaded(nova)
    assert lost in numbers(repeat_requests(nova, new, lambda _: False))
    assert numbers(request_runs(nova, new, max_batch=50)) == [second]
