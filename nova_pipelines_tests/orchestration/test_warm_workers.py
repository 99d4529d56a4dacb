"""Run workers of a real code server: forked warm, each a process of its own, each with the pinned definitions."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks.home import bench_home, publish_text
from benchmarks.runs import code_server, run_job
from nova_pipelines.database.nova import Execution
from nova_pipelines.orchestration.warm_workers import warm_run_workers

TEXT = """name: Warm
nodes:
  - {{id: start, type: start, next: pick}}
  - {{id: pick, type: decision, expression: '{expression}', next: {{true: end, false: end}}}}
  - {{id: end, type: end}}
"""


@pytest.fixture
def _environment(monkeypatch: pytest.MonkeyPatch):
    for name in ("NOVA_HOME", "DAGSTER_HOME", "NOVA_MAX_BATCH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    return


def results(services) -> list[str]:
    with services.databases.nova.read() as session:
        rows = session.query(Execution).order_by(Execution.id).all()
        return [f"{row.status} {(row.result or {}).get('decision')}" for row in rows]


@pytest.mark.usefixtures("_environment")
def test_runs_are_forked_and_keep_the_pinned_version():
    with bench_home() as services:
        publish_text(services, TEXT.format(expression="true"))
        with code_server() as (context, server):
            first = run_job(context, server, "warm", {"context": {}})
            publish_text(services, TEXT.format(expression="false"))  # not loaded: the server was not told
            second = run_job(context, server, "warm", {"context": {}})
            names = subprocess.run(
                ["ps", "-o", "args=", "--ppid", str(server)], capture_output=True, text=True, check=True
            ).stdout
        assert "multiprocessing.forkserver" in names
        assert results(services) == ["completed true", "completed true"]
        assert min(first, second) < 2.0, "a forked worker imports nothing of Dagster's anew"


def test_elsewhere_nothing_is_changed(monkeypatch: pytest.MonkeyPatch):
    assert warm_run_workers() is False
    monkeypatch.setattr(sys, "argv", ["dagster", "api", "grpc"])
    monkeypatch.setenv("NOVA_WARM_WORKERS", "0")
    assert warm_run_workers() is False
