"""The sensors as the daemon evaluates them: real mailboxes, a real instance, the repository of the code server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType
from sqlalchemy import select

from nova_pipelines.compiler.job import Compiled
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.database.executions import MAX_LOST_RUNS
from nova_pipelines.database.nova import Credential, Execution
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.orchestration import sensors
from nova_pipelines.orchestration.dispatch import PATIENCE
from nova_pipelines.orchestration.runs import ended_runs
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser
from nova_pipelines_tests.fixtures.location import load_repository
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf

RETRIES = {"run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}}


@pytest.fixture
def compiled(world: World) -> Compiled:
    return world.publish(INVOICE_PROCESSING)


@pytest.fixture
def repository(compiled: Compiled) -> Iterator[dg.RepositoryDefinition]:
    sensors._services.cache_clear()
    yield load_repository()
    sensors._services().close()
    sensors._services().databases.close()
    sensors._services.cache_clear()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(settings=RETRIES) as made:
        yield made


def tick(
    repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, cursor: str | None = None
) -> tuple[list[dg.RunRequest], str | None]:
    """One evaluation of the mailbox sensor: the runs that it asks for, and its cursor."""
    context = dg.build_sensor_context(
        instance=instance, repository_def=repository, cursor=cursor, sensor_name="mailbox_sensor"
    )
    done = repository.get_sensor_def("mailbox_sensor").evaluate_tick(context)
    return list(done.run_requests or []), done.cursor


def run(repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, request: dg.RunRequest) -> bool:
    """Runs what a tick asked for, under the tags that the daemon gives it."""
    assert request.job_name is not None
    job = repository.get_job(request.job_name)
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    return job.execute_in_process(request.run_config, instance=instance, tags=tags, raise_on_error=False).success


def add_mailbox(world: World, slug: str, user: MailUser, *, port: int | None = None) -> int:
    """A client with a mailbox; the number of its credential."""
    with world.services.databases.nova.session() as session:
        client = add_client(session, name=slug, slug=slug)
        first = session.get_one(Credential, 1).settings
        settings = {**first, "user": user.name, "imap_port": port or user.tls_port}
        return set_credential(
            session, world.services.box(), client, "email", settings=settings, secret={"password": user.password}
        ).id


def statuses(world: World) -> list[tuple[str, str | None]]:
    return [(row.status, row.run_id) for row in world.executions()]


# ---------------------------------------------------------------- mailboxes to runs


def test_a_tick_brings_mail_to_a_run(world: World, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance):
    uids = [world.deliver(invoice_pdf("242.00", number=f"F-{n}")) for n in range(2)]
    (request,), cursor = tick(repository, instance)
    assert request.run_config == {"ops": {"start": {"config": {"executions": [1, 2]}}}}
    assert statuses(world) == [("pending", request.run_key)] * 2
    (again,), cursor = tick(repository, instance, cursor)
    assert again.run_key == request.run_key  # no run came of it yet: the same one, which Dagster makes once
    assert run(repository, instance, request)
    assert [row.status for row in world.executions()] == ["completed"] * 2
    flags = world.user.flags()
    assert all("\\Seen" in flags[uid] for uid in uids)
    assert tick(repository, instance, cursor)[0] == []


def test_a_tick_that_died_before_dagster_had_the_run_is_made_good(
    world: World, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance
):
    world.deliver(invoice_pdf("242.00"))
    (lost,), _ = tick(repository, instance)  # and then nothing: the daemon died
    (again,), _ = tick(repository, instance)
    assert (again.run_key, again.run_config) == (lost.run_key, lost.run_config)
    assert run(repository, instance, again)
    assert tick(repository, instance)[0] == []
    assert len(world.invoices()) == 1


def test_a_run_that_exists_is_not_asked_for_again(
    world: World, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance
):
    world.deliver(invoice_pdf("242.00"))
    (request,), _ = tick(repository, instance)
    job = repository.get_job("invoice_processing")
    instance.create_run_for_job(job, tags={"dagster/run_key": str(request.run_key)}, run_config=request.run_config)
    with world.services.databases.nova.session() as session:
        session.get_one(Execution, 1).requested_at = datetime.now(UTC) - 2 * PATIENCE
    assert tick(repository, instance)[0] == []


def test_a_mailbox_that_is_down_keeps_no_other_from_being_read_or_flagged(
    world: World, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, dovecot: DovecotServer
):
    """The first of three mailboxes goes down after its mail was taken in: the others are read and flagged."""
    last = dovecot.new_user()
    add_mailbox(world, "empty", dovecot.new_user())
    add_mailbox(world, "last", last)
    world.deliver(invoice_pdf("242.00", number="F-1"))
    uid = last.deliver(world.mail(invoice_pdf("242.00", number="F-2")))
    requests, _ = tick(repository, instance)
    assert [request.tags["nova/client"] for request in requests] == ["idom", "last"]
    with closed_port() as port:
        with world.services.databases.nova.session() as session:
            session.get_one(Credential, 1).settings = {**session.get_one(Credential, 1).settings, "imap_port": port}
        assert all(run(repository, instance, request) for request in requests)
        assert [row.status for row in world.executions()] == ["completed"] * 2
        last.deliver(world.mail(invoice_pdf("363.00", number="F-3")))
        with world.services.databases.nova.session() as session:
            for message in world.messages():  # as if both runs had died before they could flag
                session.merge(message).flagged_at = None
        (request,), _ = tick(repository, instance)
        assert request.tags["nova/client"] == "last"
    assert [message.flagged_at is not None for message in world.messages()] == [False, True, False]
    assert "\\Seen" in last.flags()[uid]
    with world.services.databases.nova.read() as session:
        errors = {row.id: row.last_error for row in session.scalars(select(Credential))}
    assert f"127.0.0.1:{port}" in (errors[1] or "")
    assert errors[2] is errors[3] is None


def test_a_scan_is_bounded_and_goes_on_where_it_ended(
    world: World,
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    dovecot: DovecotServer,
    monkeypatch: pytest.MonkeyPatch,
):
    """Four mailboxes of nine seconds each, and twenty seconds for a tick: nobody is left out for ever."""
    for number in range(3):
        add_mailbox(world, f"client{number}", dovecot.new_user())
    passed, scanned = [0.0], []

    def slow_scan(services, credential_id, *args, **kwargs):
        scanned.append(credential_id)
        passed[0] += 9.0
        return scan_mailbox(services, credential_id, *args, **kwargs)

    monkeypatch.setattr(sensors, "scan_mailbox", slow_scan)
    monkeypatch.setattr(sensors, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))
    _, cursor = tick(repository, instance)
    assert scanned == [1, 2, 3]
    tick(repository, instance, cursor)
    assert scanned == [1, 2, 3, 4, 1, 2]


def test_a_full_mailbox_is_read_in_portions(world: World, compiled: Compiled):
    uids = [world.deliver(subject=f"Mail {number}") for number in range(5)]
    found = [scan_mailbox(world.services, 1, "INBOX", limit=2) for _ in range(4)]
    assert [(report.stored, report.complete) for report in found] == [(2, False), (2, False), (1, True), (0, True)]
    assert [message.uid for message in world.messages()] == uids
    world.deliver(subject="Too late")
    late = scan_mailbox(world.services, 1, "INBOX", deadline=time.monotonic() - 1)
    assert (late.stored, late.complete) == (0, False)


# ---------------------------------------------------------------- dead runs


def dead_run(
    repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, *, parent: dg.DagsterRun | None = None, **tags
) -> dg.DagsterRun:
    """A run that has failed without a failed step, as a killed worker's has."""
    made = instance.create_run_for_job(
        repository.get_job("invoice_processing"),
        tags={key.replace("__", "/"): value for key, value in tags.items()},
        parent_run_id=parent.run_id if parent else None,
        root_run_id=(parent.root_run_id or parent.run_id) if parent else None,
    )
    instance.report_dagster_event(
        DagsterEvent(event_type_value=DagsterEventType.RUN_START.value, job_name=made.job_name), made.run_id
    )
    instance.report_run_failed(made, "Run execution process unexpectedly exited with exit code -9.")
    return stored(instance, made.run_id)


def stored(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    found = instance.get_run_by_id(run_id)
    assert found is not None
    return found


def evaluate(repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """What the sensor of failed runs says about a run."""
    event = DagsterEvent(
        event_type_value=DagsterEventType.RUN_FAILURE.value, job_name=run.job_name, message="the worker died"
    )
    context = dg.build_run_status_sensor_context(
        sensor_name="failed_run_sensor", dagster_event=event, dagster_instance=instance, dagster_run=run
    )
    answer = repository.get_sensor_def("failed_run_sensor")(context)
    assert isinstance(answer, dg.SkipReason)
    return answer.skip_message or ""


@pytest.fixture
def four(world: World, compiled: Compiled) -> list[int]:
    return [world.execution(compiled) for _ in range(4)]


def test_executions_of_a_dead_run_wait_for_another_one(
    world: World, compiled: Compiled, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, four: list[int]
):
    run = dead_run(repository, instance, dagster__max_retries="0", dagster__run_key="key")
    assert run.tags["dagster/will_retry"] == "false"
    nova = world.services.databases.nova
    Journal(nova, run.run_id).claim(four[:2], compiled.version_id)
    with nova.session() as session:
        session.get_one(Execution, four[1]).status = "completed"
        session.get_one(Execution, four[2]).run_id = "key"  # the run died before it took it
        session.get_one(Execution, four[2]).lost_runs = MAX_LOST_RUNS
    assert f"run {run.run_id} left 2 executions" in evaluate(repository, instance, run)
    assert statuses(world) == [("pending", None), ("completed", run.run_id), ("failed", "key"), ("pending", None)]
    assert world.executions()[0].error == "the run ended (failure) before this execution did: the worker died"


def test_executions_of_a_run_that_is_retried_stay_open(
    world: World, compiled: Compiled, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, four: list[int]
):
    run = dead_run(repository, instance)
    assert run.tags["dagster/will_retry"] == "true"
    Journal(world.services.databases.nova, run.run_id).claim(four, compiled.version_id)
    assert "is retried" in evaluate(repository, instance, run)
    undecided = run._replace(tags={})
    assert "is retried" in evaluate(repository, instance, undecided)
    assert statuses(world) == [("running", run.run_id)] * 4


def test_what_a_dead_retry_never_took_over_is_asked_for_after_a_while(
    world: World,
    compiled: Compiled,
    repository: dg.RepositoryDefinition,
    instance: dg.DagsterInstance,
    four: list[int],
    monkeypatch: pytest.MonkeyPatch,
):
    """Held by the first run, whose retry died at its very start: nobody else would ever close them."""
    first = dead_run(repository, instance)
    Journal(world.services.databases.nova, first.run_id).claim(four[:3], compiled.version_id)
    retry = dead_run(repository, instance, parent=first, dagster__max_retries="0")
    instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": retry.run_id})
    Journal(world.services.databases.nova, retry.run_id, frozenset({first.run_id})).claim(four[:1], compiled.version_id)
    assert "left 1 executions" in evaluate(repository, instance, stored(instance, retry.run_id))
    assert [status for status, _ in statuses(world)] == ["pending", "running", "running", "pending"]
    tick(repository, instance)
    assert [status for status, _ in statuses(world)][:3] == ["pending", "running", "running"]
    monkeypatch.setattr(
        sensors, "ended_runs", lambda on, names, now, grace: ended_runs(on, names, now + 2 * grace, grace)
    )
    tick(repository, instance)
    assert [status for status, _ in statuses(world)] == ["pending"] * 4


def test_executions_of_living_and_of_unknown_runs_stay_open(
    world: World, compiled: Compiled, repository: dg.RepositoryDefinition, instance: dg.DagsterInstance, four: list[int]
):
    nova = world.services.databases.nova
    dead = dead_run(repository, instance)
    job = repository.get_job("invoice_processing")
    alive = instance.create_run_for_job(job, parent_run_id=dead.run_id, root_run_id=dead.run_id)
    instance.add_run_tags(dead.run_id, {"dagster/auto_retry_run_id": alive.run_id})
    queued = instance.create_run_for_job(job, tags={"dagster/run_key": "key"})
    assert not queued.is_finished
    Journal(nova, dead.run_id).claim(four[:1], compiled.version_id)
    Journal(nova, alive.run_id).claim(four[1:2], compiled.version_id)
    Journal(nova, "not in this instance").claim(four[2:3], compiled.version_id)
    with nova.session() as session:
        session.get_one(Execution, four[3]).run_id = "key"
    assert sensors.close_orphans(world.services, instance, datetime.now(UTC) + timedelta(days=1)) == 0
    assert [status for status, _ in statuses(world)] == ["running", "running", "running", "pending"]
