"""Which runs are asked for: every pending execution in exactly one, even if the one who asks dies."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from nova_pipelines.cli.engine import new_run_key
from nova_pipelines.compiler.catalog import compile_version
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.database import run_requests
from nova_pipelines.database.nova import Execution, Workflow, WorkflowVersion
from nova_pipelines.database.run_requests import WATCH_PATIENCE, WATCHED, give_back, reserve
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.database.types import utc_now
from nova_pipelines.orchestration.dispatch import PATIENCE, repeat_requests, request_runs
from nova_pipelines.orchestration.loaded import Loaded
from nova_pipelines_tests.crash.rows import add_executions


@pytest.fixture
def nova(databases: Databases) -> Database:
    """On SQLite and on PostgreSQL."""
    return databases.nova


def loaded(nova: Database) -> dict[str, Loaded]:
    with nova.read() as session:
        found = {}
        for workflow in session.scalars(select(Workflow)):
            version = session.scalars(select(WorkflowVersion).filter_by(workflow_id=workflow.id)).one()
            definition, compiled = compile_version(
                version.definition, workflow_id=workflow.id, version_id=version.id, version=1, source="test"
            )
            found[workflow.job_name] = Loaded(definition, compiled)
        return found


def carried(requests: list) -> list[list[int]]:
    return [request.run_config["ops"]["start"]["config"]["executions"] for request in requests]


def keys(nova: Database) -> dict[int, str | None]:
    with nova.read() as session:
        return {row.id: row.run_id for row in session.execute(select(Execution.id, Execution.run_id))}


def age(nova: Database, by: timedelta) -> None:
    """Moves the clock: the runs were asked for that much earlier."""
    with nova.session() as session:
        for row in session.scalars(select(Execution).where(Execution.requested_at.is_not(None))):
            assert row.requested_at is not None
            row.requested_at -= by


def never(_run_key: str) -> bool:
    return False


def test_each_execution_goes_into_one_run_of_bounded_size(nova: Database):
    ids, _ = add_executions(nova, 120)
    requests = request_runs(nova, loaded(nova), max_batch=50)
    batches = carried(requests)
    assert [len(batch) for batch in batches] == [50, 50, 20]
    assert [number for batch in batches for number in batch] == ids
    assert keys(nova) == {
        number: request.run_key for request, batch in zip(requests, batches, strict=True) for number in batch
    }
    assert [request.tags["nova/batch"] for request in requests] == ["50", "50", "20"]
    assert request_runs(nova, loaded(nova), max_batch=50) == []


def test_no_more_is_asked_for_than_may_wait_for_one_client_and_it_goes_on_when_runs_begin(nova: Database):
    full, version_id = add_executions(nova, 45, client="full")
    small, _ = add_executions(nova, 3, client="small")
    workflows = loaded(nova)
    first = request_runs(nova, workflows, max_batch=5, max_waiting=20)
    # oldest first, and the small client's run stands behind one of the full client's, not behind all
    assert carried(first) == [full[0:5], small, full[5:10], full[10:15], full[15:20]]
    assert request_runs(nova, workflows, max_batch=5, max_waiting=20) == []
    Journal(nova, "a run", run_key=first[0].run_key).claim(full[:5], version_id)
    assert carried(request_runs(nova, workflows, max_batch=5, max_waiting=20)) == [full[20:25]]


def test_a_client_with_thousands_keeps_no_other_waiting(nova: Database):
    full, _ = add_executions(nova, 2_000, client="full")
    late, _ = add_executions(nova, 1, client="late")
    requests = request_runs(nova, loaded(nova), max_batch=50, max_waiting=200)
    assert [request.tags["nova/client"] for request in requests] == ["full", "late", "full", "full", "full"]
    assert sorted(number for batch in carried(requests) for number in batch) == [*full[:200], *late]


def test_two_clients_never_share_a_run(nova: Database):
    first, _ = add_executions(nova, 3, client="idom")
    second, _ = add_executions(nova, 2, client="acme")
    third, _ = add_executions(nova, 1)
    requests = request_runs(nova, loaded(nova), max_batch=50)
    assert carried(requests) == [first, second, third]
    assert [request.tags["nova/client"] for request in requests] == ["idom", "acme", "none"]


def test_only_what_waits_is_asked_for(nova: Database):
    ids, _ = add_executions(nova, 6)
    with nova.session() as session:
        for number, status in zip(ids, ("running", "completed", "failed", "needs_review", "unknown"), strict=False):
            session.execute(update(Execution).where(Execution.id == number).values(status=status))
    assert carried(request_runs(nova, loaded(nova), max_batch=50)) == [ids[5:]]


def test_executions_of_a_workflow_that_is_not_loaded_wait(nova: Database):
    add_executions(nova, 2)
    assert request_runs(nova, {}, max_batch=50) == []
    assert set(keys(nova).values()) == {None}


def test_what_a_run_by_hand_took_meanwhile_is_not_asked_for(nova: Database, monkeypatch: pytest.MonkeyPatch):
    ids, version_id = add_executions(nova, 4)
    look = run_requests._by_turns

    def look_and_lose(*args):
        found = look(*args)
        Journal(nova, "by hand").claim(ids[:3], version_id)
        return found

    monkeypatch.setattr(run_requests, "_by_turns", look_and_lose)
    assert carried(request_runs(nova, loaded(nova), max_batch=3)) == [ids[3:]]


def test_a_request_that_got_lost_is_repeated_under_its_key(nova: Database):
    add_executions(nova, 3, client="idom")
    add_executions(nova, 2, client="acme")
    workflows = loaded(nova)
    lost = request_runs(nova, workflows, max_batch=2)  # committed; the tick dies before Dagster hears of it
    assert [len(batch) for batch in carried(lost)] == [2, 2, 1]
    again = repeat_requests(nova, workflows, never)

    def by_key(requests: list) -> list[tuple]:
        return sorted((request.run_key, request.job_name, request.run_config, request.tags) for request in requests)

    assert by_key(again) == by_key(lost)
    assert request_runs(nova, workflows, max_batch=2) == []


def test_only_runs_that_never_came_to_be_are_asked_for_again(nova: Database):
    ids, version_id = add_executions(nova, 6)
    workflows = loaded(nova)
    queued, started, lost = request_runs(nova, workflows, max_batch=2)
    Journal(nova, "a run", run_key=started.run_key).claim(ids[2:4], version_id)
    again = repeat_requests(nova, workflows, lambda key: key == queued.run_key)
    assert [request.run_key for request in again] == [lost.run_key]


def test_a_run_by_hand_gets_time_to_come(nova: Database):
    ids, _ = add_executions(nova, 2)
    with nova.session() as session:
        for row in session.scalars(select(Execution)):
            row.run_id, row.requested_at = new_run_key(), utc_now()
    workflows = loaded(nova)
    assert repeat_requests(nova, workflows, never) == []
    age(nova, PATIENCE + timedelta(seconds=1))
    assert carried(repeat_requests(nova, workflows, never)) == [ids[:1], ids[1:]]


def test_a_requested_run_takes_what_carries_its_key_and_no_other_run_does(nova: Database):
    ids, version_id = add_executions(nova, 4)
    first, second = request_runs(nova, loaded(nova), max_batch=2)
    assert Journal(nova, "somebody else").claim(ids, version_id) == []
    assert Journal(nova, "run 2", run_key=second.run_key).claim(ids, version_id) == ids[2:]
    assert Journal(nova, "run 1", run_key=first.run_key).claim(ids, version_id) == ids[:2]


# ---------------------------------------------------------------- the watcher beside the sensor


def watched(nova: Database, **more):
    """A batch of the watcher: its key is committed, and nobody was asked for the run yet."""
    (batch,) = reserve(nova, 1, prefix=WATCHED, max_batch=50, max_waiting=200, **more)
    return batch


def test_what_the_watcher_asks_for_gets_time_to_come_and_is_then_repeated_under_its_key(nova: Database):
    ids, version_id = add_executions(nova, 3)
    workflows = loaded(nova)
    batch = watched(nova)
    assert batch.executions == tuple(ids)
    for _ in range(3):  # ticks of the sensor while the call is under way
        assert repeat_requests(nova, workflows, never) == request_runs(nova, workflows, max_batch=50) == []
    age(nova, WATCH_PATIENCE - timedelta(seconds=5))
    assert repeat_requests(nova, workflows, never) == []
    age(nova, timedelta(seconds=6))  # the watcher died between its commit and its call
    (again,) = repeat_requests(nova, workflows, never)
    assert (again.run_key, carried([again])) == (batch.key, [ids])
    assert repeat_requests(nova, workflows, lambda key: key == batch.key) == []
    # and if both runs came after all, the second one finds nothing that is its own
    assert Journal(nova, "first", run_key=batch.key).claim(ids, version_id) == ids
    assert Journal(nova, "second", run_key=batch.key).claim(ids, version_id) == []


def test_what_dagster_refused_is_the_sensors_at_its_next_tick(nova: Database):
    ids, version_id = add_executions(nova, 3)
    batch = watched(nova)
    Journal(nova, "a run", run_key=batch.key).claim(ids[:1], version_id)
    assert give_back(nova, batch.key) == 2
    assert carried(request_runs(nova, loaded(nova), max_batch=50)) == [ids[1:]]


def test_the_watcher_takes_only_what_it_is_told_to(nova: Database):
    add_executions(nova, 2, client="idom")
    mine, _ = add_executions(nova, 2, client="acme")
    assert watched(nova, client_ids=[2]).executions == tuple(mine)
    assert len(batch_key := watched(nova, client_ids=[1]).key) == 36, batch_key  # the column's length


@pytest.mark.parametrize("database_kind", ["postgresql", "sqlite"], indirect=True)
def test_two_watchers_and_the_sensor_take_each_execution_once(
    nova: Database, database_urls: tuple[str, str], tmp_path: Path
):
    """Two processes and this one, which take from the same executions at the same moment, while new ones come."""
    ids, _ = add_executions(nova, 60, client="idom")
    workflows = loaded(nova)
    stop = tmp_path / "stop"
    command = [sys.executable, "-m", "nova_pipelines_tests.orchestration.taker", database_urls[0], str(stop)]
    takers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for taker in takers:  # ready, and waiting for the other
            assert taker.stdout is not None
            assert taker.stdout.readline() == "ready\n"
        (tmp_path / "stop.go").touch()
        ours = []
        deadline = time.monotonic() + 60
        for client in ("acme", "late"):
            ours += carried(request_runs(nova, workflows, max_batch=1, max_waiting=7))
            ids += add_executions(nova, 20, client=client)[0]
        while None in keys(nova).values():
            ours += carried(request_runs(nova, workflows, max_batch=3, max_waiting=1000))
            assert time.monotonic() < deadline
        stop.touch()
        theirs = [json.loads(taker.communicate(timeout=30)[0]) for taker in takers]
    finally:
        for taker in takers:
            taker.kill()
            taker.wait()
    taken = [number for batches in (ours, *theirs) for batch in batches for number in batch]
    assert sorted(taken) == ids
    assert any(theirs), "one of the two got something"
