"""Dagster for crash tests: an instance on SQLite, the code location, workers as processes, the daemon's retry.

Everything but the launcher is Dagster's own: a worker comes from a fork server, so that it costs half a second.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import dagster as dg
import pytest
from dagster._cli.job import _create_run
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
from dagster_shared.error import SerializableErrorInfo

from nova_pipelines_tests.crash.worker import Kill, work
from nova_pipelines_tests.fixtures.location import ATTRIBUTE, MODULE, forget_definitions
from nova_pipelines_tests.fixtures.world import ROOT

JOB, START = "invoice_processing", "start"
WORKER_SECONDS = 60
QUIET = {"console": {"config": {"log_level": "ERROR"}}}
PRELOAD = [
    "__main__",
    "dagster",
    "dagster._grpc.impl",
    "dagster._utils.hosted_user_process",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
    "dagster._core.run_coordinator.queued_run_coordinator",
    # all that nova_pipelines.definitions imports, but not itself: it reads the databases when it is imported
    "nova_pipelines.orchestration.assets",
    "nova_pipelines.orchestration.checks",
    "nova_pipelines.orchestration.repository",
    "nova_pipelines_tests.crash.worker",
]


class Engine:
    """Use it as a context, after the definitions were published: the code location is loaded then."""

    def __init__(self, instance: dg.DagsterInstance, log: Path) -> None:
        self.instance, self.log = instance, log
        self._workspace: WorkspaceProcessContext | None = None
        self._stack = ExitStack()
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(PRELOAD)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def workspace(self) -> WorkspaceProcessContext:
        if self._workspace is None:
            forget_definitions()
            target = LoadableTargetOrigin(executable_path=sys.executable, module_name=MODULE, attribute=ATTRIBUTE)
            origin = InProcessCodeLocationOrigin(target, location_name="nova")
            context = WorkspaceProcessContext(self.instance, InProcessWorkspaceLoadTarget(origin))
            self._workspace = self._stack.enter_context(context)
        return self._workspace

    def launch(
        self, executions: list[int] | None = None, *, job: str = JOB, tags: dict[str, str] | None = None, **config: Any
    ) -> str:
        """Creates a run, as a launch by hand or by the sensor does; returns its id."""
        if executions is not None:
            config["executions"] = executions
        location = self.workspace.create_request_context().get_code_location("nova")
        (repository,) = location.get_repositories().values()
        run = _create_run(
            self.instance,
            location,
            repository,
            repository.get_full_job(job),
            {"loggers": QUIET} | ({"ops": {START: {"config": config}}} if config else {}),
            tags,
            None,
            None,
        )
        return run.run_id

    def start(self, run_id: str, *kills: Kill) -> Any:
        """Starts the worker process of a run, which is created or queued."""
        run = self.run(run_id)
        event = DagsterEvent(event_type_value=DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
        self.instance.report_dagster_event(event, run_id=run_id)
        process = self._processes.Process(
            target=work, args=(self.instance.get_ref(), run_id, dict(os.environ), self.log, kills)
        )
        process.start()
        return process

    def work(self, run_id: str, *kills: Kill) -> int:
        """Runs the worker process to its end; returns its exit code (-9: it was killed)."""
        process = self.start(run_id, *kills)
        process.join(WORKER_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
            pytest.fail(f"the worker did not end within {WORKER_SECONDS} s:\n{self.log.read_text()[-4000:]}")
        code = process.exitcode
        process.close()
        return code

    def bury(self, run_id: str) -> None:
        """What the code server does when it finds a worker dead (`_check_for_orphaned_runs`)."""
        run = self.run(run_id)
        assert not run.is_finished
        self.instance.report_engine_event("Run execution process unexpectedly exited with exit code -9.", run)
        self.instance.report_run_failed(run)

    def retry(self, run_id: str) -> str | None:
        """The daemon's automatic retry of a failed run, by the daemon's own code; None: there is none."""
        records = self.instance.get_run_records(dg.RunsFilter(run_ids=[run_id]))
        for _ in consume_new_runs_for_automatic_reexecution(self.workspace, records, logging.getLogger("daemon")):
            pass
        return self.run(run_id).tags.get("dagster/auto_retry_run_id")

    def reexecute(self, run_id: str, strategy: ReexecutionStrategy = ReexecutionStrategy.FROM_FAILURE) -> str:
        """A person's re-execution, as the UI asks for it."""
        request = self.workspace.create_request_context()
        location = request.get_code_location("nova")
        (repository,) = location.get_repositories().values()
        parent = self.run(run_id)
        run = self.instance.create_reexecuted_run(
            parent_run=parent,
            request_context=request,
            code_location=location,
            remote_job=repository.get_full_job(parent.job_name),
            strategy=strategy,
            use_parent_run_tags=True,
        )
        return run.run_id

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def status(self, run_id: str) -> str:
        return self.run(run_id).status.value

    def events(self, run_id: str, kind: DagsterEventType) -> list[DagsterEvent]:
        entries = self.instance.all_logs(run_id, of_type=kind)
        return [entry.dagster_event for entry in entries if entry.dagster_event]

    def failures(self, run_id: str) -> list[str]:
        """The messages of a run's failed steps, with their causes."""
        texts = []
        for event in self.events(run_id, DagsterEventType.STEP_FAILURE):
            data = event.step_failure_data
            failure = data.user_failure_data
            texts.append(f"{failure.description if failure else ''} {_all(data.error)}")
        return texts


def _all(error: SerializableErrorInfo | None) -> str:
    return f"{error.message} {_all(error.cause)}" if error else ""


@pytest.fixture(scope="session")
def dagster_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DAGSTER_HOME with the repository's own dagster.yaml and its databases made."""
    home = tmp_path_factory.mktemp("dagster-template")
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    with pytest.MonkeyPatch.context() as environment, _instance_in(home, environment) as instance:
        assert instance.get_runs() == []
        assert instance.event_log_storage.get_maximum_record_id() in (0, None)
        assert instance.all_instigator_state() == []
    return home


def _instance_in(home: Path, environment: pytest.MonkeyPatch) -> dg.DagsterInstance:
    environment.setenv("DAGSTER_HOME", str(home))  # dagster.yaml refers to it
    return dg.DagsterInstance.from_config(str(home))


@pytest.fixture
def engine(dagster_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    home = tmp_path / "dagster"
    shutil.copytree(dagster_template, home)
    with _instance_in(home, monkeypatch) as instance, Engine(instance, tmp_path / "workers.log") as made:
        yield made
