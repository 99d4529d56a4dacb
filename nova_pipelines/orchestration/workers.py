"""Runs whose worker is gone without a word, as when the code server was killed with all its run workers.

Dagster's DefaultRunLauncher hears of a worker's death only from the code server that started it. So each run carries
a mark of its worker's process, which whoever lives on the same machine can look for: the sensors do, since they are
evaluated in the code server. Runs in containers of their own are DockerRunLauncher's matter.
"""

import json
import os
import socket
import time
from pathlib import Path

import dagster as dg

from nova_pipelines.compiler.job import TAG_VERSION

WORKER = "nova/worker"
#: in this tag DefaultRunLauncher keeps which code server started the worker (`GRPC_INFO_TAG` of 1.13.27)
CODE_SERVER = ".dagster/grpc_info"
#: a worker marks its run before all else; one that has not done so after such a time has died before
MARK_SECONDS = 60.0
#: runs that one tick looks at
MAX_RUNS = 200


def this_worker() -> str:
    """A mark of this process that no other one ever has: host, boot, PID namespace, PID and its start."""
    return json.dumps({**_here(), "pid": os.getpid(), "started": _started(os.getpid())})


def is_gone(mark: str) -> bool:
    """True if it is certain that this worker has ended; False also where this host cannot know."""
    try:
        worker = json.loads(mark)
        if worker["host"] != socket.gethostname() or not worker["started"]:
            return False
        if any(worker[name] != value for name, value in _here().items()):
            return True  # this host, or its container, was started anew since
        return worker["started"] != _started(int(worker["pid"]))
    except (ValueError, KeyError, TypeError):  # somebody else's tag
        return False


def fail_runs_without_worker(instance: dg.DagsterInstance) -> list[str]:
    """Marks started runs whose worker is gone as failed, so that Dagster retries them; returns their ids."""
    records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]), limit=MAX_RUNS)
    gone = [record.dagster_run for record in records if _has_lost_its_worker(record)]
    failed: list[str] = []
    for run in gone:
        # it may have ended well between the look at the run and the look at its process
        current = instance.get_run_by_id(run.run_id)
        if current is not None and not current.is_finished:
            instance.report_run_failed(current, "The run's worker ended without a word: it was killed, or its host.")
            failed.append(run.run_id)
    return failed


def _has_lost_its_worker(record: dg.RunRecord) -> bool:
    tags = record.dagster_run.tags
    if mark := tags.get(WORKER):
        return is_gone(mark)
    ours = TAG_VERSION in tags and CODE_SERVER in tags
    return ours and record.start_time is not None and time.time() - record.start_time > MARK_SECONDS


def _here() -> dict[str, str]:
    return {"host": socket.gethostname(), "boot": _text("/proc/sys/kernel/random/boot_id"), "namespace": _link()}


def _started(pid: int) -> str:
    """The time when a process started, in ticks since the boot; empty if there is none, or it has ended."""
    fields = _text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 and fields[0] not in ("Z", "X") else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _link() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
