"""Nothing is replaced: code server, daemon, sensor and launcher are real, and the worker is killed from outside."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import dagster as dg
import pytest
from dagster import DagsterEventType

from nova_pipelines.compiler.job import TAG_VERSION
from nova_pipelines.orchestration.workers import CODE_SERVER, WORKER
from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.ways import WAYS, assert_once
from nova_pipelines_tests.fixtures.location import MODULE
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, ROOT, World

T = TypeVar("T")
#: the machine may be busy: what is waited for usually takes some seconds
PATIENCE = 150.0


class Services:
    """Processes of one test, with a common log; ended with all their children."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> None:
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments], stdout=output, stderr=output, cwd=ROOT, start_new_session=True
            )
        self._processes.append(process)

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its own session: itself and its children
                process.wait()

    def wait_for(self, what: str, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + PATIENCE
        while True:
            found = look()
            if found:
                return found
            dead = [process.args for process in self._processes if process.poll() is not None]
            if dead or time.monotonic() > deadline:
                pytest.fail(f"{what} did not come ({dead} ended):\n{self.log.read_text(errors='replace')[-6000:]}")
            time.sleep(0.1)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    made = Services(tmp_path / "services.log")
    yield made
    made.stop()


@contextmanager
def locked(database: Path) -> Iterator[None]:
    """Nobody else can write to this database: who tries waits (30 s), and can be caught in the act."""
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


def worker_of(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The process of a run, from the message that Dagster logs when it starts."""
    for entry in instance.all_logs(run_id, of_type=DagsterEventType.ENGINE_EVENT):
        found = re.search(r"Started process for run \(pid: (\d+)\)", entry.message)
        if found:
            return int(found[1])
    return None


def test_the_daemon_retries_a_killed_worker(world: World, engine: Engine, services: Services, tmp_path: Path):
    world.publish(INVOICE_PROCESSING)
    uid = WAYS["low"].deliver(world)
    socket = tmp_path / "code.sock"
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(f"load_from: [{{grpc_server: {{socket: {socket}, location_name: nova}}}}]\n")
    instance, home = engine.instance, world.settings.nova_home
    with locked(home / "facturas.db"):
        services.start("dagster", "code-server", "start", "-m", MODULE, "-s", str(socket))
        services.wait_for("the code server", socket.exists)
        services.start("dagster._daemon", "run", "-w", str(workspace))
        # the sensor finds the mail, the daemon starts a run, and its worker hangs at the invoice
        services.wait_for("the row of `amount`", lambda: world.executions() and len(world.chain(1)) == 5)
        (first,) = instance.get_runs()
        assert "dagster/run_key" in first.tags
        # what tells that a run has lost its worker, before and after its mark (orchestration/workers.py)
        assert first.tags.keys() >= {TAG_VERSION, CODE_SERVER, WORKER}
        pid = services.wait_for("the worker", lambda: worker_of(instance, first.run_id))
        os.kill(pid, signal.SIGKILL)
        services.wait_for("the run's failure", lambda: instance.get_runs(dg.RunsFilter(statuses=[FAILURE])))
    services.wait_for("the retry", lambda: instance.get_runs(dg.RunsFilter(statuses=[SUCCESS])))
    retry, again = instance.get_runs()
    assert (again.run_id, again.status) == (first.run_id, FAILURE)
    assert (retry.parent_run_id, retry.tags["dagster/retry_number"]) == (first.run_id, "1")
    assert_once(world, [WAYS["low"]], [uid])
    assert {row.run_id for row in world.chain(1)} == {first.run_id, retry.run_id}


FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
