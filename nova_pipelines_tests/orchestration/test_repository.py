"""The code location: every stored workflow, pinned to what was launched, and none that breaks the others."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.repository_definition import RepositoryLoadData
from sqlalchemy import text

from nova_pipelines.database.workflows import deactivate, find_workflow
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.orchestration.repository import STATE_KEY, NovaRepository
from nova_pipelines_tests.fixtures.location import load_repository, reconstruct_repository
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World


def definition(word: str, *, name: str = "Word") -> dict[str, Any]:
    return {
        "name": name,
        "nodes": [
            {"id": "start", "type": "start"},
            {"id": word, "type": "action", "code": f"context['word'] = {word!r}"},
            {"id": "end", "type": "end"},
        ],
        "edges": [{"from": "start", "to": word}, {"from": word, "to": "end"}],
    }


def nodes(repository: dg.RepositoryDefinition, job: str = "word") -> set[str]:
    return {node.name for node in repository.get_job(job).nodes} - {"run_outcome"}


def data(repository: dg.RepositoryDefinition) -> NovaRepository:
    found = repository._repository_data
    assert isinstance(found, NovaRepository)
    return found


def test_a_worker_gets_what_was_launched_whatever_was_published_since(world: World):
    world.publish(definition("first"))
    served = load_repository()
    pin = served.repository_load_data
    assert isinstance(pin, RepositoryLoadData)
    assert pin.reconstruction_metadata[STATE_KEY].data == "1"
    world.publish(definition("second"))
    world.publish(INVOICE_PROCESSING)
    worker = reconstruct_repository(pin)
    assert nodes(worker) == nodes(served) == {"start", "first", "end"}
    assert worker.get_job("word").tags["nova/version"] == "1"
    assert not worker.has_job("invoice_processing")
    reloaded = load_repository()
    assert nodes(reloaded) == {"start", "second", "end"}
    assert reloaded.get_job("word").tags["nova/version"] == "2"
    assert reloaded.has_job("invoice_processing")
    assert nodes(reconstruct_repository(pin)) == {"start", "first", "end"}  # still


def test_a_reconstructed_job_runs_the_version_it_was_launched_with(world: World):
    world.publish(definition("first"))
    pin = load_repository().repository_load_data
    world.publish(definition("second"))
    job = reconstruct_repository(pin).get_job("word")
    config = {"ops": {"start": {"config": {"context": {"n": 1}}}}}
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(config, instance=instance).success
    assert world.result(1) == {"n": 1, "word": "first"}


def test_a_worker_reads_one_workflow_of_many(world: World):
    for number in range(5):
        world.publish(definition("node", name=f"Workflow {number}"))
    worker = reconstruct_repository(load_repository().repository_load_data)
    worker.get_job("workflow_3")
    assert list(data(worker)._jobs) == ["workflow_3"]


def test_a_deleted_workflow_is_not_offered_but_a_queued_run_finds_it(world: World):
    world.publish(definition("first"))
    world.publish(INVOICE_PROCESSING)
    pin = load_repository().repository_load_data
    with world.services.databases.nova.session() as session:
        deactivate(session, find_workflow(session, "word"))
    assert "word" not in load_repository().job_names
    assert nodes(reconstruct_repository(pin)) == {"start", "first", "end"}


def store_by_hand(world: World, name: str, stored: dict[str, Any]) -> None:
    """A row as an older or newer NOVA, or a person with SQL, would leave it: nothing checks it here."""
    values = {
        "name": name,
        "job": name.lower(),
        "definition": canonical_json(stored),
        "now": "2026-01-01 00:00:00.000000",
    }
    with world.services.databases.nova.session() as session:
        session.execute(text("UPDATE catalog SET revision = revision + 1"))
        session.execute(
            text(
                "INSERT INTO workflows (name, job_name, graph_definition, is_active, created_at, updated_at)"
                " VALUES (:name, :job, :definition, true, :now, :now)"
            ),
            values,
        )
        session.execute(
            text(
                "INSERT INTO workflow_versions"
                " (workflow_id, number, revision, definition, source, source_format, sha256, created_at)"
                " SELECT w.id, 1, c.revision, :definition, '', 'json', 'x', :now"
                " FROM workflows w, catalog c WHERE w.name = :name"
            ),
            values,
        )


def fax(broken: dict[str, Any]) -> None:
    broken["nodes"][1] = {"id": "first", "type": "fax", "number": "1"}


def loop(broken: dict[str, Any]) -> None:
    broken["edges"].append({"from": "first", "to": "start"})


def empty(broken: dict[str, Any]) -> None:
    broken.clear()


@pytest.mark.parametrize("spoil", [fax, loop, empty])
def test_a_definition_that_no_longer_compiles_is_left_out_and_said(
    world: World, caplog: pytest.LogCaptureFixture, spoil: Any
):
    world.publish(definition("first"))
    broken = json.loads(json.dumps(definition("first", name="Broken")))
    spoil(broken)
    store_by_hand(world, "Broken", broken)
    world.publish(INVOICE_PROCESSING)
    with caplog.at_level(logging.ERROR, "nova"):
        repository = load_repository()
        assert sorted(name for name in repository.job_names if not name.startswith("__")) == [
            "invoice_processing",
            "word",
        ]
        assert {job.name for job in repository.get_all_jobs()} >= {"invoice_processing", "word"}
    (record,) = caplog.records
    assert "workflow broken (version 1) is left out" in record.getMessage()
    worker = reconstruct_repository(repository.repository_load_data)
    assert nodes(worker) == {"start", "first", "end"}


def test_many_workflows_load(world: World, capsys: pytest.CaptureFixture[str]):
    count = 200
    for number in range(count):
        world.publish(definition("node", name=f"Workflow {number}"))
    began = time.process_time()
    repository = load_repository()
    assert len(repository.get_all_jobs()) >= count
    loaded = time.process_time() - began
    began = time.process_time()
    worker = reconstruct_repository(repository.repository_load_data)
    worker.get_job("workflow_77")
    started = time.process_time() - began
    with capsys.disabled():
        print(f"\n{count} workflows: {loaded:.2f} CPU-s to load, {started:.3f} for a worker's one")  # noqa: T201
    assert len(data(worker)._jobs) == 1
    assert started < loaded / 5
