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

SAY = "from nova_pipelines.orchestration.workers import this_worker; print(this_worker(), flush=True); input()"


@pytest.fixture
def instance():
    with dg.instance_for_test() as made:
        yield made


def started(instance: dg.DagsterInstance, tags: dict[str, str], *, ago: float = 0.0) -> str:
    run = instance.create_run_for_job(dg.GraphDefinition(name="work").to_job(), tags=tags)
    for kind in ("PIPELINE_STARTING", "PIPELINE_START"):
        event = dg.DagsterEvent(event_type_value=kind, job_name="work")
        instance.report_dagster_event(event, run.run_id, timestamp=time.time() - ago)
    return run.run_id


def test_a_process_is_gone_when_it_has_ended_and_not_before():
    with subprocess.Popen(
        [sys.executable, "-c", SAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        mark = other.stdout.readline()
        assert not is_gone(mark)
        other.kill()
        other.wait()
    assert is_gone(mark)
    assert not is_gone(this_worker())


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
    assert is_gone(json.dumps(json.loads(this_worker()) | changes)) is gone


@pytest.mark.parametrize("mark", ["", "{", "[]", "{}", "null"])
def test_other_tags_are_no_marks(mark: str):
    assert not is_gone(mark)


def test_only_started_runs_without_a_worker_are_failed(instance: dg.DagsterInstance):
    dead = json.dumps(json.loads(this_worker()) | {"started": "1"})
    lost = started(instance, {WORKER: dead})
    others = [started(instance, {WORKER: this_worker()}), started(instance, {})]
    assert fail_runs_without_worker(instance) == [lost]
    assert fail_runs_without_worker(instance) == []
    statuses = {run.run_id: run.status.value for run in instance.get_runs()}
    assert statuses == {lost: "FAILURE", **dict.fromkeys(others, "STARTED")}


def test_a_worker_that_died_before_its_mark_is_noticed_too(instance: dg.DagsterInstance):
    """The storm found it: killed between the start of the run and the mark, together with its code server."""
    assert CODE_SERVER == GRPC_INFO_TAG
    ours = {TAG_VERSION: "1", CODE_SERVER: "{}"}
    lost = started(instance, ours, ago=90)
    others = [
        started(instance, ours),  # about to do so
        started(instance, {TAG_VERSION: "1"}, ago=90),  # of another launcher: who knows
        started(instance, {CODE_SERVER: "{}"}, ago=90),  # no job of ours
        started(instance, {**ours, WORKER: this_worker()}, ago=90),
    ]
    assert fail_runs_without_worker(instance) == [lost]
    statuses = {run.run_id: run.status.value for run in instance.get_runs()}
    assert statuses == {lost: "FAILURE", **dict.fromkeys(others, "STARTED")}
