"""Run workers that start warm: forked from a process that has Dagster and NOVA imported already.

Dagster's code server starts each run worker by multiprocessing's `spawn`: a new interpreter that imports
Dagster, SQLAlchemy and NOVA, 1.7 of the 3 CPU-s of a small run. Here its processes come from a `forkserver`
instead: one clean, single-threaded child of the code server that imported the same modules once and forks.
A worker still is a process of its own, and still builds its job from the pinned revision: the module of the
definitions is not among those that are loaded beforehand.

This module alone knows how Dagster's server makes processes (`DagsterApiServer._mp_ctx`, 1.13.27).
`NOVA_WARM_WORKERS=0` leaves Dagster as it is.
"""

import multiprocessing
import os
import sys
from multiprocessing.forkserver import ensure_running

PRELOAD = "nova_pipelines.orchestration.preload"


def in_code_server() -> bool:
    """Whether this process is a code server of Dagster's (`dagster api grpc`), which starts run workers."""
    return sys.argv[1:3] == ["api", "grpc"]


def warm_run_workers() -> bool:
    """Makes this code server fork its run workers; False where it stays as Dagster made it."""
    if not in_code_server() or os.environ.get("NOVA_WARM_WORKERS") == "0":
        return False
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return False
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload([PRELOAD])
    ensure_running()  # it imports while this server loads its definitions
    # the server holds the one context object of `spawn`; queues and events of it work with both kinds of process
    vars(multiprocessing.get_context("spawn"))["Process"] = forkserver.Process
    return True
