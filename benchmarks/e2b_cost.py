"""What E2B costs: one sandbox for a run, against a sandbox for every node of every item, as the old system made them.

On the wire server of the tests, with a realistic cold start: the unmodified SDK and NOVA's backend, but no cloud.
`python -m benchmarks.e2b_cost`.
"""

from __future__ import annotations

import os
from decimal import Decimal

from rich.console import Console
from rich.table import Table

from benchmarks.home import bench_home
from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY, E2BWire

#: E2B's own figure for a custom template (nova-system.md, "Figures of the old system")
COLD_START = 2.0
NODES, ITEMS = 8, 20
#: the old way is the same for every item: a few are enough
OLD_ITEMS = 2
CODE = "import time; time.sleep(0.05); context['n'] = context.get('n', 0) + 1"


def one_session(sandbox: E2BSandbox) -> int:
    """All jobs of a run in one session; 10⁻⁹ dollars by the outcomes."""
    with sandbox.session() as session:
        return sum(session.run(Job(code=CODE)).cost_nano_usd for _ in range(NODES * ITEMS))


def a_sandbox_for_each(sandbox: E2BSandbox) -> int:
    """A session for each node, for OLD_ITEMS items, taken times what is left of ITEMS."""
    total = 0
    for _ in range(NODES * OLD_ITEMS):
        with sandbox.session() as session:
            total += session.run(Job(code=CODE)).cost_nano_usd
    return total * ITEMS // OLD_ITEMS


def measured() -> list[tuple[str, int, float, int]]:
    """(way, creates for all items, billed seconds by the wire server's record, estimated 10⁻⁹ dollars)."""
    wire = E2BWire()
    wire.cold_start = COLD_START
    try:
        os.environ |= wire.environment
        rates = load_settings().e2b_rates
        sandbox = E2BSandbox(api_key=KEY, rates=rates)
        rows = []
        for name, way, scale in (
            ("one for a run", one_session, 1),
            ("one for each node", a_sandbox_for_each, ITEMS // OLD_ITEMS),
        ):
            wire.clear()
            wire.cold_start = COLD_START
            cost = way(sandbox)
            rows.append((name, len(wire.creates) * scale, wire.billed_seconds() * scale, cost))
            wire.assert_nothing_left()
        return rows
    finally:
        wire.close()


def main() -> None:
    with bench_home():
        rows = measured()
    table = Table(title=f"{NODES} nodes × {ITEMS} items on E2B, cold start {COLD_START:g} s (wire server)")
    for name in ("sandboxes", "creates", "billed s", "estimated US $"):
        table.add_column(name, justify="left" if name == "sandboxes" else "right")
    for name, creates, seconds, cost in rows:
        table.add_row(name, str(creates), f"{seconds:.1f}", f"{cost * Decimal('1e-9'):.6f}")
    console = Console()
    console.print(table)
    (*_, new), (*_, old) = rows
    console.print(f"the estimated cost falls by {100 * (1 - new / old):.1f} % (target: at least 80 %)")


if __name__ == "__main__":
    main()
