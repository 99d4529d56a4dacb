"""Prints what the local sandbox costs, as CPU milliseconds of all its processes and of the host's side.

Run it with `python -m nova_pipelines_tests.adapters.sandbox.timing`; the machine should be quiet.
"""

from __future__ import annotations

import resource
import time

from nova_pipelines.adapters.sandbox.base import Job, Task
from nova_pipelines.adapters.sandbox.local import LocalSandbox
from nova_pipelines_tests.adapters.sandbox.conftest import draw_pdf

JOBS = 200


def cpu_ms() -> float:
    usages = (resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages) * 1000


def cost(job: Job, count: int) -> tuple[float, float]:
    """CPU and wall milliseconds of one session with `count` jobs, closed."""
    before, started = cpu_ms(), time.perf_counter()
    with LocalSandbox().session() as session:
        for _ in range(count):
            assert session.run(job).ok
    return cpu_ms() - before, (time.perf_counter() - started) * 1000


def main() -> None:
    pdf = draw_pdf(["Factura 2026-17", *(f"line {number}  12,50 EUR" for number in range(15))])
    cost(Job(), 1)  # imports on the host's side
    start, start_wall = min(cost(Job(), 0) for _ in range(5))
    print(f"session start and end: {start:.0f} ms CPU, {start_wall:.0f} ms wall")  # noqa: T201
    jobs = {
        "trivial CODE job": Job(code="context['total'] = 1", context={"a": 1}),
        "PDF_TEXT of one page": Job(task=Task.PDF_TEXT, files={"document.pdf": pdf}),
    }
    for name, job in jobs.items():
        cpu, wall = min(cost(job, JOBS) for _ in range(3))
        print(f"{name}: {(cpu - start) / JOBS:.1f} ms CPU, {(wall - start_wall) / JOBS:.1f} ms wall")  # noqa: T201


if __name__ == "__main__":
    main()
