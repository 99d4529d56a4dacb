"""`make bench`: CPU seconds and ratios, all measured in one go on this machine. No figure is a test."""

from __future__ import annotations

import statistics
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from benchmarks import e2b_cost, mail, sandbox
from benchmarks.home import add_mailbox, bench_home, invoice_workflow, publish_text, waiting_mails
from benchmarks.runs import code_server, run_job

BATCHES = (1, 10, 50, 200)
TRIVIAL = """name: Trivial {number}
nodes:
  - {{id: start, type: start, next: a}}
  - {{id: a, type: decision, expression: 'true', next: {{true: b, false: c}}}}
  - {{id: b, type: decision, expression: 'true', next: {{true: d, false: d}}}}
  - {{id: c, type: decision, expression: 'true', next: {{true: d, false: d}}}}
  - {{id: d, type: decision, expression: 'true', next: {{true: e, false: f}}}}
  - {{id: e, type: decision, expression: 'true', next: {{true: end, false: end}}}}
  - {{id: f, type: decision, expression: 'true', next: {{true: end, false: end}}}}
  - {{id: end, type: end}}
"""


def invoices() -> list[tuple[int, float, float]]:
    """(batch, CPU s an invoice in all, CPU s an invoice without an engine)."""
    rows = []
    with bench_home() as services:
        compiled = invoice_workflow(services)
        credential = add_mailbox(services)
        with code_server() as (context, server):
            first = 0
            for batch in BATCHES:
                tries = []
                for _ in range(3):
                    ids = waiting_mails(services, compiled, credential, batch, first=first)
                    first += batch
                    tries.append(run_job(context, server, "invoice_processing", {"executions": ids}) / batch)
                rows.append((batch, statistics.median(tries), _floor(batch)))
    return rows


def _floor(batch: int) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.floor", str(batch)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def starts(counts: tuple[int, ...] = (10, 1000), runs: int = 5) -> list[tuple[int, float]]:
    """(stored workflows, CPU s of one run of eight trivial nodes)."""
    rows = []
    for count in counts:
        with bench_home() as services:
            for number in range(count):
                publish_text(services, TRIVIAL.format(number=number))
            with code_server() as (context, server):
                job = f"trivial_{count // 2}"
                run_job(context, server, job, {"context": {"n": 1}})  # the first one warms the server's caches
                figures = [run_job(context, server, job, {"context": {"n": 1}}) for _ in range(runs)]
                rows.append((count, statistics.median(figures)))
    return rows


def main() -> None:
    console = Console()
    table = Table(title="CPU seconds for one invoice, sandboxed, default launcher, SQLite (median of 3 runs)")
    for name in ("batch", "all processes", "no engine"):
        table.add_column(name, justify="right")
    for batch, whole, floor in invoices():
        table.add_row(str(batch), f"{whole:.4f}", f"{floor:.4f}")
    console.print(table)
    table = Table(title="CPU seconds of one run of 8 trivial nodes (median of 5 runs)")
    for name in ("stored workflows", "CPU s", "ratio"):
        table.add_column(name, justify="right")
    rows = starts()
    for count, cpu in rows:
        table.add_row(str(count), f"{cpu:.3f}", f"{cpu / rows[0][1]:.2f}")
    console.print(table)
    sandbox.main()
    e2b_cost.main()
    mail.main()


if __name__ == "__main__":
    main()
