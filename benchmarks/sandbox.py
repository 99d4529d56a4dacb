"""What the local sandbox costs: `python -m benchmarks.sandbox`. All in one run and in turns, so that what else the
machine does falls on all of them alike."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cpu import children
from nova_pipelines.adapters.sandbox import self_test
from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.adapters.sandbox.local import LocalSandbox
from nova_pipelines.adapters.sandbox.local_guest import PROCESSES

ROUNDS, SLOW_ROUNDS, JOBS = 300, 15, 1000
#: forks by a small Python process that does nothing else: seconds of each, one a line asked for
FORKER = """
import os, sys, time
for _ in sys.stdin:
    began = time.perf_counter()
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    print(time.perf_counter() - began, flush=True)
"""
TRIVIAL = Job(code="context['total'] = 1", context={"a": 1})
HEAVY = "import pandas, pdfplumber"
WITH_PACKAGES = Job(code=f"{HEAVY}\ncontext['total'] = 1", context={"a": 1})


def timed(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def interpreter(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def measured() -> dict[str, list[float]]:
    """Seconds of each way, in turns."""
    figures: dict[str, list[float]] = {}
    with ExitStack() as stack:
        forker = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", FORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        plain, heavy = (stack.enter_context(LocalSandbox().session()) for _ in range(2))
        assert plain.run(TRIVIAL).ok
        assert heavy.run(WITH_PACKAGES).ok  # its first run imports them, once for the session

        assert forker.stdin is not None
        assert forker.stdout is not None
        stdin, stdout = forker.stdin, forker.stdout

        def fork() -> float:
            stdin.write("\n")
            stdin.flush()
            return float(stdout.readline())

        ways = {
            "bare fork": fork,
            "job in a warm session": lambda: timed(lambda: plain.run(TRIVIAL)),
            "the same, pdfplumber + pandas": lambda: timed(lambda: heavy.run(WITH_PACKAGES)),
        }
        slow = {
            "plain interpreter": lambda: timed(lambda: interpreter("pass")),
            "plain interpreter, pdfplumber + pandas": lambda: timed(lambda: interpreter(HEAVY)),
            "session, start to end": lambda: timed(lambda: LocalSandbox().untested_session().close()),
            "self-test": lambda: timed(lambda: self_test.probe(LocalSandbox(), PROCESSES)),
        }
        for number in range(ROUNDS):
            due = ways if number % (ROUNDS // SLOW_ROUNDS) else ways | slow
            for name, way in due.items():
                figures.setdefault(name, []).append(way())
    return figures


def leftovers() -> tuple[float, dict[str, int]]:
    """CPU milliseconds of a job, both sides, and what JOBS of them in one session left behind."""

    def state() -> dict[str, set[str]]:
        return {
            "processes": {str(pid) for pid in children(_own_pid())},
            "mounts": set(Path("/proc/self/mounts").read_text().splitlines()),
            "descriptors": {path.name for path in Path("/proc/self/fd").iterdir()},
            "files": {path.name for path in Path("/tmp").iterdir() if "nova" in path.name},  # noqa: S108
        }

    before, began = state(), _cpu()
    with LocalSandbox().session() as session:
        for _ in range(JOBS):
            assert session.run(TRIVIAL).ok
    cpu = (_cpu() - began) * 1000 / JOBS
    after = state()
    return cpu, {name: len(after[name] - before[name]) for name in before}


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def _cpu() -> float:
    usages = (resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    figures = measured()
    console = Console()
    table = Table(title=f"The local sandbox, ms of wall time ({ROUNDS} and {SLOW_ROUNDS} turns)")
    for name in ("what", "median", "least"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name, seconds in figures.items():
        table.add_row(name, f"{statistics.median(seconds) * 1000:.1f}", f"{min(seconds) * 1000:.1f}")
    console.print(table)
    median = {name: statistics.median(seconds) * 1000 for name, seconds in figures.items()}
    above = median["job in a warm session"] - median["bare fork"]
    ratio = median["plain interpreter, pdfplumber + pandas"] / median["the same, pdfplumber + pandas"]
    console.print(f"a job in a warm session: {above:.1f} ms above a bare fork (target: at most 15)")
    console.print(f"with pdfplumber and pandas: 1/{ratio:.0f} of a fresh interpreter (target: at most 1/15)")
    cpu, left = leftovers()
    said = ", ".join(f"{count} {name}" for name, count in left.items())
    console.print(f"{JOBS} jobs in one session: {cpu:.1f} ms CPU each; left behind: {said}")


if __name__ == "__main__":
    main()
