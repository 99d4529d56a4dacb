"""Fifty mails are one run; what fails in it fails alone, is named, and is all that a retry takes up."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from email.message import EmailMessage

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.events import DagsterEvent, DagsterEventType

from nova_pipelines.orchestration import sensors
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.fixtures.location import ATTRIBUTE, MODULE, forget_definitions, load_repository
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, ROOT, World, invoice_pdf

MAILS, BROKEN = 50, 27  # the twenty-seventh mail
JOB = "invoice_processing"


@pytest.fixture
def instance(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's own storage, where the commands find it too, with the configuration of the repository."""
    home = world.settings.nova_home / "dagster"
    home.mkdir(mode=0o700)
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    sensors._services.cache_clear()
    with dg.DagsterInstance.from_config(str(home)) as made:
        yield made
    sensors._services().close()
    sensors._services().databases.close()
    sensors._services.cache_clear()


def test_fifty_mails_are_one_run_and_a_broken_one_fails_alone(world: World, instance: dg.DagsterInstance):
    world.publish(INVOICE_PROCESSING)
    uids = world.user.deliver_all([mail(world, number) for number in range(1, MAILS + 1)])
    repository = load_repository()

    (request,) = tick(repository, instance)

    assert request.job_name == JOB
    assert executions_of(request) == list(range(1, MAILS + 1))
    assert request.tags.items() >= {"nova/batch": "50", "nova/client": "idom"}.items()
    # until the run is there a tick asks for the same one again: Dagster makes one run of a key
    assert [again.run_key for again in tick(repository, instance)] == [request.run_key]

    result = work(instance, request)

    assert not result.success
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert len(world.invoices()) == MAILS - 1
    assert sum(row.total_amount for row in world.invoices()) == 121 * (MAILS - 1)
    failed = [row for row in world.executions() if row.status != "completed"]
    assert [(row.id, row.status, row.failed_node) for row in failed] == [(BROKEN, "failed", "extract_invoice")]
    description, table = outcome(result)
    assert f"execution {BROKEN} at extract_invoice" in description
    assert f"nova executions retry {BROKEN}" in description
    assert table.count("| completed |") == MAILS - 1
    (line,) = [line for line in table.splitlines() if line.startswith(f"| {BROKEN} | failed |")]
    assert f"Factura {BROKEN}" in line
    assert "factura0.pdf" in line
    unread = [uid for uid, flags in world.user.flags().items() if "\\Seen" not in flags]
    assert unread == [uids[BROKEN - 1]]
    assert tick(repository, instance) == []

    Nova(world.settings.nova_home)("executions", "retry", str(BROKEN))

    (request,) = tick(repository, instance)
    assert executions_of(request) == [BROKEN]
    assert not work(instance, request).success  # the PDF is as broken as before, and nothing else was done again
    assert len(world.invoices()) == MAILS - 1
    rows = [(row.node_id, row.status) for row in world.chain(BROKEN)]
    assert rows.count(("mail_fetch", "success")) == 1
    assert rows.count(("extract_invoice", "failed")) == 2
    assert Nova(world.settings.nova_home).json("chain", "verify")["intact"]


def mail(world: World, number: int) -> EmailMessage:
    pdf = b"%PDF-1.7\nbroken" if number == BROKEN else invoice_pdf("121.00", number=f"F-{number}")
    return world.mail(pdf, subject=f"Factura {number}", Message_ID=f"<{number}@proveedores.example>")


def tick(repository: dg.RepositoryDefinition, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    """What the daemon would be asked for by the mailbox sensor now."""
    context = dg.build_sensor_context(instance=instance, repository_def=repository, sensor_name="mailbox_sensor")
    return list(repository.get_sensor_def("mailbox_sensor").evaluate_tick(context).run_requests or [])


def executions_of(request: dg.RunRequest) -> list[int]:
    return request.run_config["ops"]["start"]["config"]["executions"]


def work(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.JobExecutionResult:
    """Runs what was asked for, loaded as a run worker loads it, under the tags that the daemon adds."""
    forget_definitions()
    job = ReconstructableRepository.for_module(MODULE, ATTRIBUTE).get_reconstructable_job(JOB)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    return dg.execute_job(job, instance=instance, run_config={**request.run_config, **quiet}, tags=tags)


def outcome(result: dg.JobExecutionResult) -> tuple[str, str]:
    """What a person reads of the run: its failure, and the table of its items."""
    failures: list[DagsterEvent] = result.filter_events(lambda e: e.event_type is DagsterEventType.STEP_FAILURE)
    (failure,) = [event for event in failures if event.step_key == "run_outcome"]
    told = failure.step_failure_data.user_failure_data
    assert told is not None
    return told.description or "", str(told.metadata["items"].value)
