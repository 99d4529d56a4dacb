"""Which runs are asked for: every pending execution in exactly one, even if the one who asks dies."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import select, update

from nova_pipelines.cli.engine import new_run_key
from nova_pipelines.compiler.catalog import compile_version
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.database.nova import Execution, Workflow, WorkflowVersion
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.database.types import utc_now
from nova_pipelines.orchestration import dispatch
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


def test_one_tick_asks_for_a_bounded_number_of_runs(nova: Database):
    ids, _ = add_executions(nova, 45)
    first = carried(request_runs(nova, loaded(nova), max_batch=2))
    assert [len(batch) for batch in first] == [2] * 20
    second = carried(request_runs(nova, loaded(nova), max_batch=2))
    assert [number for batch in first + second for number in batch] == ids


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
    look = dispatch._batches

    def look_and_lose(*args):
        found = look(*args)
        Journal(nova, "by hand").claim(ids[:3], version_id)
        return found

    monkeypatch.setattr(dispatch, "_batches", look_and_lose)
    assert carried(request_runs(nova, loaded(nova), max_batch=3)) == [ids[3:]]


def test_a_request_that_got_lost_is_repeated_under_its_key(nova: Database):
    add_executions(nova, 3, client="idom")
    add_executions(nova, 2, client="acme")
    workflows = loaded(nova)
    lost = request_runs(nova, workflows, max_batch=2)  # committed; the tick dies before Dagster hears of it
    assert [len(batch) for batch in carried(lost)] == [2, 1, 2]
    again = repeat_requests(nova, workflows, never)
    assert [(request.run_key, request.job_name, request.run_config, request.tags) for request in again] == [
        (request.run_key, request.job_name, request.run_config, request.tags) for request in lost
    ]
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
