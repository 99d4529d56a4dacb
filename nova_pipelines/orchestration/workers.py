"""Runs whose worker is gone without a word, as when the code server was killed with all its run workers.

Dagster's DefaultRunLauncher hears of a worker's death only from the code server that started it. So each run carries
a mark of its worker's process, which whoever lives on the same machine can look for: the sensors do, since they are
evaluated in the code server. Runs in containers of their own are DockerRunLauncher's matter.

A run may also stop on the way to its worker: the daemon makes a retry and then puts it into the queue, and what breaks
between the two leaves it NOT_STARTED; a worker that dies before its first event leaves it STARTING. Dagster gives up on
both after `start_timeout_seconds`, which has to leave room for a container; with our own launcher a minute is enough.
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
#: what is said of a run without a worker, by the status that it stands still in
_WHY = {
    dg.DagsterRunStatus.NOT_STARTED: "The run was made and never put into the queue: whoever made it was interrupted.",
    dg.DagsterRunStatus.STARTING: "The run's worker did not come: it was killed before its first word, or its host.",
    dg.DagsterRunStatus.STARTED: "The run's worker ended without a word: it was killed, or its host.",
}


def this_worker(run_id: str) -> str:
    """A mark of this process that no other one ever has: host, boot, PID namespace, PID and its start. It names its
    run, since Dagster gives a retry the tags of the run that failed."""
    return json.dumps({"run": run_id, **_here(), "pid": os.getpid(), "started": _started(os.getpid())})


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


def fail_runs_without_worker(instance: dg.DagsterInstance, now: float | None = None) -> list[str]:
    """Marks runs whose worker is gone, or never came, as failed, so that Dagster retries them; returns their ids.

    `now`: seconds since the epoch; None: now.
    """
    moment = time.time() if now is None else now
    records = instance.get_run_records(dg.RunsFilter(statuses=list(_WHY)), limit=MAX_RUNS)
    failed: list[str] = []
    for run_id in [record.dagster_run.run_id for record in records if _has_no_worker(record, moment)]:
        # it may have gone on, or ended well, between the look at the run and the look at its process
        again = instance.get_run_record_by_id(run_id)
        if again is not None and _has_no_worker(again, moment):
            instance.report_run_failed(again.dagster_run, _WHY[again.dagster_run.status])
            failed.append(run_id)
    return failed


def _has_no_worker(record: dg.RunRecord, now: float) -> bool:
    run = record.dagster_run
    if run.status not in _WHY:
        return False
    if _is_of(mark := run.tags.get(WORKER, ""), run.run_id):
        return is_gone(mark)
    if TAG_VERSION not in run.tags:
        return False
    started = run.status is dg.DagsterRunStatus.STARTED
    since = record.start_time if started else record.update_timestamp.timestamp()
    launched_here = CODE_SERVER in run.tags or run.status is dg.DagsterRunStatus.NOT_STARTED
    return launched_here and since is not None and now - since > MARK_SECONDS


def _is_of(mark: str, run_id: str) -> bool:
    try:
        return bool(json.loads(mark)["run"] == run_id)
    except (ValueError, KeyError, TypeError):  # none, or somebody else's tag
        return False


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
