"""Runs whose worker is gone: told from those that live, and given to Dagster's retries."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.storage.tags import GRPC_INFO_TAG

from nova_pipelines.compiler.job import TAG_VERSION
from nova_pipelines.orchestration.workers import CODE_SERVER, WORKER, fail_runs_without_worker, is_gone, this_worker

SAY = "from nova_pipelines.orchestration.workers import this_worker; print(this_worker('r'), flush=True); input()"


@pytest.fixture
def instance():
    with dg.instance_for_test() as ready:
        yield ready


def test_a_process_is_gone_when_it_has_ended_and_not_before():
    with subprocess.Popen(
        [sys.executable, "-c", SAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        left = other.stdout.readline()
        assert not is_gone(left)
        other.kill()
        other.wait()
    assert is_gone(left)
    assert not is_gone(this_worker("r"))


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"host": "elsewhere", "pid": 999_999_999}, False),  # who knows
        ({"boot": "another"}, True),
        ({"namespace": "pid:[1]"}, True),
        ({"started": "1"}, True),  # another process has its number now
        ({"started": ""}, False),  # a system without /proc
        ({"pid": "x"}, False),
    ],
)
def test_what_a_mark_says(changes: dict[str, object], gone: bool):
    assert is_gone(json.dumps(json.loads(this_worker("r")) | changes)) is gone


@pytest.mark.parametrize("tag", ["", "{", "[]", "{}", "null"])
def test_other_tags_are_no_marks(tag: str):
    assert not is_gone(tag)


def made(instance: dg.DagsterInstance, tags: dict[str, str], *, kinds: tuple[str, ...] = (), ago: float = 0.0) -> str:
    run = instance.create_run_for_job(dg.GraphDefinition(name="work").to_job(), tags=tags)
    for kind in kinds:
        event = dg.DagsterEvent(event_type_value=kind, job_name="work")
        instance.report_dagster_event(event, run.run_id, timestamp=time.time() - ago)
    return run.run_id


def started(instance: dg.DagsterInstance, tags: dict[str, str], *, ago: float = 0.0) -> str:
    return made(instance, tags, kinds=("PIPELINE_STARTING", "PIPELINE_START"), ago=ago)


def mark(instance: dg.DagsterInstance, run_id: str, **changes: object) -> None:
    instance.add_run_tags(run_id, {WORKER: json.dumps(json.loads(this_worker(run_id)) | changes)})


def statuses(instance: dg.DagsterInstance) -> dict[str, str]:
    return {run.run_id: run.status.value for run in instance.get_runs()}


def test_only_started_runs_without_a_worker_are_failed(instance: dg.DagsterInstance):
    lost, alive = started(instance, {}), started(instance, {})
    mark(instance, lost, started="1")
    mark(instance, alive)
    others = [alive, started(instance, {})]
    assert fail_runs_without_worker(instance) == [lost]
    assert fail_runs_without_worker(instance) == []
    assert statuses(instance) == {lost: "FAILURE", **dict.fromkeys(others, "STARTED")}


def test_a_worker_that_died_before_its_mark_is_noticed_too(instance: dg.DagsterInstance):
    """The storm found it: killed between the start of the run and the mark, together with its code server."""
    assert CODE_SERVER == GRPC_INFO_TAG
    ours = {TAG_VERSION: "1", CODE_SERVER: "{}"}
    lost, alive = started(instance, ours, ago=90), started(instance, ours, ago=90)
    mark(instance, alive)
    others = [
        alive,
        started(instance, ours),  # about to do so
        started(instance, {TAG_VERSION: "1"}, ago=90),  # of another launcher: who knows
        started(instance, {CODE_SERVER: "{}"}, ago=90),  # no job of ours
    ]
    assert fail_runs_without_worker(instance) == [lost]
    assert statuses(instance) == {lost: "FAILURE", **dict.fromkeys(others, "STARTED")}


def test_the_mark_that_a_retry_inherits_says_nothing_about_its_own_worker(instance: dg.DagsterInstance):
    dead = json.dumps(json.loads(this_worker("the run before")) | {"started": "1"})
    ours = {TAG_VERSION: "1", CODE_SERVER: "{}", WORKER: dead}
    retry = started(instance, ours)
    assert fail_runs_without_worker(instance) == []
    assert fail_runs_without_worker(instance, time.time() + 90) == [retry]


def test_a_run_that_never_got_to_a_worker_is_failed_after_a_minute(instance: dg.DagsterInstance):
    """The storm found it: a retry was made, the database's line was cut, and nobody put it into the queue."""
    ours = {TAG_VERSION: "1", CODE_SERVER: "{}"}
    forgotten = made(instance, {TAG_VERSION: "1"})
    starting = made(instance, ours, kinds=("PIPELINE_STARTING",))
    others = {
        made(instance, {}): "NOT_STARTED",  # no job of ours
        made(instance, {TAG_VERSION: "1"}, kinds=("PIPELINE_STARTING",)): "STARTING",  # a container takes longer
    }
    assert fail_runs_without_worker(instance) == []
    assert set(fail_runs_without_worker(instance, time.time() + 90)) == {forgotten, starting}
    assert statuses(instance) == {forgotten: "FAILURE", starting: "FAILURE", **others}


def test_a_run_that_goes_on_while_it_is_looked_at_is_left_alone(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    slow = made(instance, {TAG_VERSION: "1"})
    look = instance.get_run_record_by_id

    def started_meanwhile(run_id: str) -> dg.RunRecord | None:
        monkeypatch.undo()
        instance.report_dagster_event(dg.DagsterEvent(event_type_value="PIPELINE_START", job_name="work"), run_id)
        return look(run_id)

    monkeypatch.setattr(instance, "get_run_record_by_id", started_meanwhile)
    assert fail_runs_without_worker(instance, time.time() + 90) == []
    assert statuses(instance) == {slow: "STARTED"}
