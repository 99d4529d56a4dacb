"""NOVA with E2B as its sandbox, as a whole: one sandbox for a run, its cost in the chain, waiting while E2B is down,
processes that share what they know, and the cancel of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from sqlalchemy import update

from nova_pipelines.cli.costs import add_up
from nova_pipelines.compiler.job import Compiled
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.compiler.step import StepResult, Work, walk
from nova_pipelines.database.breaker import breaker_view
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.sandbox_tables import BreakerRow
from nova_pipelines.database.types import utc_now
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.orchestration.dispatch import request_runs
from nova_pipelines.orchestration.loaded import Loaded
from nova_pipelines_tests.adapters.sandbox.e2b_wire import E2BWire
from nova_pipelines_tests.crash.engine import Engine, dagster_template, engine
from nova_pipelines_tests.fixtures.world import World

__all__ = ["dagster_template", "engine"]

EIGHT_NODES = """name: Eight Nodes
nodes:
  - {id: start, type: start, next: double}
  - {id: double, type: action, code: "context['n'] *= 2", next: big}
  - {id: big, type: decision, expression: context.n > 20, next: {true: high, false: low}}
  - {id: high, type: action, code: "context['way'] = 'high'", next: parity}
  - {id: low, type: action, code: "context['way'] = 'low'", next: parity}
  - id: parity
    type: decision
    code: "context['branch_decision'] = context['n'] % 4 == 0"
    next: {true: mark, false: end}
  - {id: mark, type: action, code: "context['marked'] = True", next: end}
  - {id: end, type: end}
"""
ONE_NODE = """name: One Node
nodes:
  - {id: start, type: start, next: work}
  - {id: work, type: action, code: "context['done'] = True", next: end}
  - {id: end, type: end}
"""


def run(cloud: World, compiled: Compiled, ids: list[int], run_id: str = "run-1") -> dict[str, StepResult]:
    """A run's own services and session, closed with it, around the real steps and journal."""
    with build_services(cloud.settings, run_id=run_id) as services, services.databases:
        journal = Journal(services.databases.nova, run_id)
        held = journal.claim(ids, compiled.version_id)
        return walk(Work(compiled.plan, compiled.workflow_id, journal, services), held)


def breaker_state(cloud: World) -> str:
    with cloud.services.databases.nova.read() as session:
        return breaker_view(session, "e2b", threshold=5, seconds=300).state


def passes(cloud: World, seconds: float) -> None:
    """Moves the clock of the breaker and of what waits."""
    with cloud.services.databases.nova.session() as session:
        session.execute(update(BreakerRow).values(opened_at=utc_now() - timedelta(seconds=seconds)))
        session.execute(update(Execution).values(waits_until=utc_now() - timedelta(seconds=1)))


def test_eight_nodes_over_twenty_items_make_exactly_one_create(cloud: World, wire: E2BWire):
    compiled = cloud.publish(EIGHT_NODES)
    ids = [cloud.execution(compiled, {"n": n}, client=None) for n in range(1, 21)]
    run(cloud, compiled, ids)
    assert {row.status for row in cloud.executions()} == {"completed"}
    assert cloud.result(ids[11]) == {
        "n": 24,
        "way": "high",
        "marked": True,
        "branch_decision": True,
        "decision": "true",
    }
    (create,) = wire.creates
    assert create["metadata"]["nova_run"] == "run-1"
    assert create["allow_internet_access"] is False
    wire.assert_nothing_left()

    # and its whole life but the tail stands in the chain
    jobs = [row for number in ids for row in cloud.chain(number) if row.sandbox_seconds is not None]
    assert len(jobs) == 20 * 3 + 10
    seconds = sum(row.sandbox_seconds or 0 for row in jobs)
    assert seconds == pytest.approx(wire.billed_seconds(), rel=0.05, abs=0.3)
    with cloud.services.databases.nova.read() as session:
        (cost,) = add_up(session)
    assert (cost.workflow, cost.executions) == ("Eight Nodes", 20)
    assert float(cost.usd) == pytest.approx(seconds * 0.00003025, rel=0.001)


def test_executions_wait_while_the_breaker_is_open_and_go_on_later(cloud: World, wire: E2BWire):
    compiled = cloud.publish(ONE_NODE)
    ids = [cloud.execution(compiled, client=None) for _ in range(7)]
    wire.faults["create"].extend([500] * 5)
    result = run(cloud, compiled, ids)["work"]
    # `walk` takes every try for the last one: five items found E2B down, then the breaker knew it
    assert [failure.execution_id for failure in result.failures] == ids[:5]
    assert breaker_state(cloud) == "open"
    waiting = cloud.executions()[5:]
    assert [(row.status, row.run_id) for row in waiting] == [("pending", None)] * 2
    assert all(timedelta(seconds=280) < row.waits_until - utc_now() < timedelta(seconds=301) for row in waiting)
    assert "circuit breaker of e2b is open" in (waiting[0].error or "")
    assert wire.creates == []

    loaded = {compiled.plan.job_name: Loaded(None, compiled)}  # type: ignore[arg-type]
    nova = cloud.services.databases.nova
    assert request_runs(nova, loaded, max_batch=50) == []
    passes(cloud, 301)
    (request,) = request_runs(nova, loaded, max_batch=50)
    assert request.run_config["ops"]["start"]["config"]["executions"] == ids[5:]
    with build_services(cloud.settings) as services, services.databases:
        journal = Journal(services.databases.nova, "run-2", run_key=request.run_key)
        held = journal.claim(ids[5:], compiled.version_id)
        walk(Work(compiled.plan, compiled.workflow_id, journal, services), held)
    assert [row.status for row in cloud.executions()] == ["failed"] * 5 + ["completed"] * 2
    assert breaker_state(cloud) == "closed"
    wire.assert_nothing_left()


def test_executions_wait_while_all_places_are_taken(cloud: World, wire: E2BWire, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        cloud, "settings", cloud.settings.model_copy(update={"nova_e2b_max_sandboxes": 1, "nova_e2b_wait_seconds": 0.0})
    )
    compiled = cloud.publish(ONE_NODE)
    ids = [cloud.execution(compiled, client=None) for _ in range(2)]
    with build_services(cloud.settings, run_id="other") as other, other.databases:
        mark = other.backend().gate.places.take(300)  # type: ignore[attr-defined]
        run(cloud, compiled, ids[:1])
        assert cloud.executions()[0].status == "pending"
        assert "1 sandboxes are running" in (cloud.executions()[0].error or "")
        other.backend().gate.places.ended(mark)  # type: ignore[attr-defined]
    run(cloud, compiled, ids, "run-2")
    assert [row.status for row in cloud.executions()] == ["completed"] * 2
    assert len(wire.creates) == 1


# ---------------------------------------------------------------- several processes


class Process:
    """A process of its own that runs jobs in its own session when told to, and says what came of each."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nova_pipelines_tests.end_to_end.cloud_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self) -> None:
        assert self._line() == "ready"

    def tell(self, jobs: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{jobs}\n")
        self._process.stdin.flush()

    def answers(self, count: int) -> list[str]:
        return [self._line() for _ in range(count)]

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the process ended"
        return line

    def close(self) -> None:
        self._process.communicate(timeout=60)


@contextmanager
def processes(count: int) -> Iterator[list[Process]]:
    made = [Process() for _ in range(count)]
    try:
        for process in made:
            process.ready()
        yield made
    finally:
        for process in made:
            process.close()


def test_faults_in_one_process_open_the_breaker_in_the_others_and_one_trial_goes_through(cloud: World, wire: E2BWire):
    with processes(3) as made:
        first, *others = made
        wire.faults["create"].extend([500] * 5)
        first.tell(5)
        assert first.answers(5) == ["CloudBusy"] * 5
        for process in others:
            process.tell(1)
            assert process.answers(1) == ["Unavailable"]
        assert wire.faults["create"] == wire.faults["none"]  # all five were used, and no more was asked

        passes(cloud, 301)
        wire.faults["create"].append("hold")
        before = wire.requests
        for process in made:
            process.tell(1)
        until(lambda: wire.requests > before)
        until(lambda: breaker_state(cloud) == "half_open")
        refused = read_until_one_is_left(made)
        assert refused == ["Unavailable"] * 2
        assert wire.requests == before + 1
        wire.release.set()
        until(lambda: breaker_state(cloud) == "closed")
    wire.assert_nothing_left()
    assert len(wire.creates) == 1


def read_until_one_is_left(made: list[Process]) -> list[str]:
    """What all but one answer, while that one's trial is held."""
    import selectors

    answers: list[str] = []
    with selectors.DefaultSelector() as selector:
        for process in made:
            selector.register(process._process.stdout, selectors.EVENT_READ, process)  # type: ignore[arg-type]
        while len(answers) < len(made) - 1:
            ready = selector.select(timeout=30)
            assert ready, f"only {answers} answered"
            for key, _ in ready:
                answers += key.data.answers(1)
                selector.unregister(key.fileobj)
    return answers


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# ---------------------------------------------------------------- cancel


def test_the_cancel_of_a_run_kills_its_sandbox(cloud: World, wire: E2BWire, engine: Engine):
    """A real run worker gets SIGINT, as Dagster's launchers send it, in the middle of a job."""
    cloud.publish(ONE_NODE.replace("context['done'] = True", "import time; time.sleep(60)"))
    run_id = engine.launch(job="one_node", context={})
    worker = engine.start(run_id)
    until(lambda: any(sandbox.groups for sandbox in wire.sandboxes.values()), 60)
    began = time.monotonic()
    engine.instance.report_run_canceling(engine.run(run_id))
    os.kill(worker.pid, signal.SIGINT)
    worker.join(60)
    assert time.monotonic() - began < 30
    assert engine.status(run_id) == "CANCELED"
    assert wire.sandboxes == {}
    assert wire.creates[0]["metadata"]["nova_run"] == run_id
    wire.assert_nothing_left()
    status = subprocess.run(
        [sys.executable, "-m", "nova_pipelines.cli.main", "sandbox", "status", "--json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(status.stdout)["sessions"] == []
