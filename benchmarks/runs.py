"""Runs through Dagster's default launcher on SQLite, with a warm code server: what one invoice costs in all."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from benchmarks.cpu import children, cpu_of, own_cpu


@contextmanager
def code_server() -> Iterator[tuple[Any, int]]:
    """A request context on a warm code server of its own, and the server's pid."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = [sys.executable, "-m", "dagster", "api", "grpc", "-m", "nova_pipelines.definitions"]
    server = subprocess.Popen(
        [*program, "-h", "127.0.0.1", "-p", str(port), "--location-name", "nova", "--heartbeat-timeout", "600"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ,
    )
    try:
        _wait_for(port, server)
        instance = dg.DagsterInstance.get()
        target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="nova")
        with instance, WorkspaceProcessContext(instance, target) as process:
            yield process.create_request_context(), server.pid
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    from dagster._grpc.client import DagsterGrpcClient

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise SystemExit(f"the code server ended with {server.returncode}")
        try:
            DagsterGrpcClient(port=port, host="127.0.0.1").ping("")
        except Exception:  # noqa: BLE001 - whatever gRPC says while the server starts
            time.sleep(0.2)
        else:
            return
    raise SystemExit("the code server did not start")


def run_job(context: Any, server: int, job_name: str, config: dict[str, Any], start: str = "start") -> float:
    """CPU seconds of one run: launcher, run worker and all its children. Asserts that it succeeded."""
    instance = context.instance
    location = context.get_code_location("nova")
    job = location.get_repository("__repository__").get_full_job(job_name)
    known = _workers(server)
    before = cpu_of(server) + own_cpu()
    run_config = {"ops": {start: {"config": config}}}
    plan = location.get_execution_plan(job, run_config, step_keys_to_execute=None, known_state=None)
    run = instance.create_run(
        job_name=job_name,
        run_id=None,
        run_config=run_config,
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={},
        root_run_id=None,
        parent_run_id=None,
        step_keys_to_execute=None,
        execution_plan_snapshot=plan.execution_plan_snapshot,
        job_snapshot=job.job_snapshot,
        parent_job_snapshot=None,
        asset_selection=None,
        asset_check_selection=None,
        resolved_op_selection=None,
        op_selection=None,
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
        asset_graph=location.get_repository("__repository__").asset_graph,
    )
    instance.launch_run(run.run_id, context)
    deadline = time.monotonic() + 300
    while (status := instance.get_run_by_id(run.run_id).status) not in dg._core.storage.dagster_run.FINISHED_STATUSES:
        assert time.monotonic() < deadline, "the run did not end"
        time.sleep(0.5)  # few look-ups: they count as CPU of the run
    assert status is dg.DagsterRunStatus.SUCCESS, f"run {run.run_id} ended as {status}"
    # the CPU of a run worker stands in its parent's only when it was reaped
    while _workers(server) - known:
        assert time.monotonic() < deadline, "the run worker did not end"
        time.sleep(0.2)
    return cpu_of(server) + own_cpu() - before


def _workers(pid: int) -> set[int]:
    """The processes below a code server, without the two of multiprocessing's that stay."""
    below = {child for child in children(pid) if not any(word in _command_line(child) for word in STAYING)}
    forking = [child for child in children(pid) if b"forkserver" in _command_line(child)]
    return below | {worker for server in forking for worker in children(server)}


STAYING = (b"resource_tracker", b"forkserver")


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:  # it ended in between
        return b""
