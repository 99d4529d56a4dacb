"""`make latency`: seconds from a mail's delivery by SMTP to its row in facturas, and where they go.

`nova up` with the default launcher on SQLite, one mail after the other: through the watcher, then by the mailbox
sensor alone (`--no-watch`). Figures are wall time: they are worth something on a quiet machine only.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import dagster as dg
from dagster import DagsterEventType
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

from benchmarks.home import ROOT, bench_home, publish_text
from benchmarks.mailserver import MailServer, mail_server, settings_of
from nova_pipelines.cli.up import free_port
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Credential, Execution, Message
from nova_pipelines.demo.pdfs import InvoiceSpec, Line, Party, draw_invoice
from nova_pipelines.nodes.services import Services

PATIENCE = 120.0
#: the steps on the way, in order; each part is named by the step that ends it
STEPS = (
    ("seen", "delivered → seen by IDLE"),
    ("ledger", "→ row in the ledger"),
    ("execution", "→ execution committed"),
    ("requested", "→ run key committed"),
    ("queued", "→ run queued by Dagster"),
    ("dequeued", "→ taken from the queue"),
    ("started", "→ worker began the run"),
    ("row", "→ row in facturas"),
)
#: what would lower each part, and at what price
LOWER = (
    (
        "→ row in the ledger",
        "by the sensor: Dagster evaluates sensors every 5 s, which cannot be set; the watcher does not wait",
    ),
    ("→ run queued by Dagster", "the code server is asked for the job's plan; 0.1 s on a quiet machine"),
    (
        "→ taken from the queue",
        "the queue is looked at every second (`dequeue_interval_seconds`); without a queue "
        "(`DefaultRunCoordinator`) nothing bounds the runs at one time",
    ),
    (
        "→ worker began the run",
        "a warm worker is forked, loads its job and opens its databases; a worker that lives on "
        "(Celery) saves about half of it and needs a broker",
    ),
    (
        "→ row in facturas",
        "four ops with their events and journal rows, and a PDF read in a sandbox; fewer nodes, or "
        "PostgreSQL in place of SQLite's one writer",
    ),
)


def mail(number: int) -> EmailMessage:
    spec = InvoiceSpec(
        supplier=Party("Suministros Ibéricos S.L.", "B12345674"),
        client=Party("IDOM", "A48283964"),
        number=f"L-{number}",
        issued=date(2026, 11, 2),
        lines=(Line("Material de oficina", Decimal(1), Decimal(200) + Decimal(number) / 100),),
    )
    message = EmailMessage()
    message["From"], message["To"] = "ana@proveedores.example", "facturas@idom.example"
    message["Subject"], message["Message-ID"] = f"Factura {number}", f"<latency-{number}@proveedores.example>"
    message["Date"] = datetime.now(UTC)
    message.set_content("Adjunto.")
    message.add_attachment(draw_invoice(spec), maintype="application", subtype="pdf", filename=f"{number}.pdf")
    return message


@contextmanager
def nova_up(*options: str) -> Iterator[Path]:
    """`nova up` until the block ends; its folder of logs."""
    home = Path(os.environ["NOVA_HOME"])
    command = [sys.executable, "-m", "nova_pipelines.cli.main", "up", "--port", str(free_port("127.0.0.1")), *options]
    output = home / "up.out"
    with output.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: process.poll() is not None or "NOVA is up" in output.read_text(), "nova up")
        if process.poll() is not None:
            raise SystemExit(output.read_text())
        yield home / "logs"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not come within {PATIENCE:g} s")
        time.sleep(0.05)
    return found


def prepare(services: Services, server: MailServer) -> None:
    with services.databases.nova.session() as session:
        client = add_client(session, name="IDOM", slug="idom", sender_whitelist=["@proveedores.example"])
        settings, secret = settings_of(server.user), {"password": server.user.password}
        set_credential(session, services.box(), client, "email", settings=settings, secret=secret)
    publish_text(services, (ROOT / "workflows" / "invoice_processing.yaml").read_text())


def measure(services: Services, server: MailServer, numbers: range, pause: float) -> dict[int, float]:
    """Sends mail after mail, each when the one before is through; number → moment of its delivery."""
    delivered = {}
    for number in numbers:
        delivered[number] = server.send(mail(number))
        wait_for(lambda number=number: _status(services, number) in ("completed", "failed"), f"mail {number}")
        # at no fixed place between two ticks of whatever ticks
        time.sleep(random.uniform(0.5, pause))  # noqa: S311 - no secret
    return delivered


def _status(services: Services, number: int) -> str | None:
    query = select(Execution.status).join(Message, Message.id == Execution.message_id)
    with services.databases.nova.read() as session:
        return session.scalar(query.where(Message.message_id == f"<latency-{number}@proveedores.example>"))


def steps_of(services: Services, instance: dg.DagsterInstance, delivered: dict[int, float], logs: Path) -> list[dict]:
    """The moments of every step, for each mail."""
    woken = _woken(logs / "watch.log")
    found = []
    for number, moment in delivered.items():
        with services.databases.nova.read() as session:
            message = session.scalars(
                select(Message).filter_by(message_id=f"<latency-{number}@proveedores.example>")
            ).one()
            execution = session.scalars(select(Execution).filter_by(message_id=message.id)).one()
        with services.databases.facturas.read() as session:
            invoice = session.scalars(select(Invoice).filter_by(processed_by_execution_id=execution.id)).one()
        assert execution.run_id is not None
        steps = {
            "delivered": moment,
            "ledger": message.created_at.timestamp(),
            "execution": execution.created_at.timestamp(),
            "requested": _stamp(execution.requested_at),
            "row": invoice.created_at.timestamp(),
            **_run(instance, execution.run_id),
        }
        seen = [at for at in woken if moment <= at <= steps["ledger"]]
        found.append(steps | ({"seen": seen[-1]} if seen else {}))
    return found


def _stamp(moment: datetime | None) -> float:
    assert moment is not None
    return moment.timestamp()


def _run(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    kinds = {
        DagsterEventType.PIPELINE_ENQUEUED: "queued",
        DagsterEventType.PIPELINE_STARTING: "dequeued",
        DagsterEventType.PIPELINE_START: "started",
    }
    found = {}
    for entry in instance.all_logs(run_id, of_type=set(kinds)):
        assert entry.dagster_event is not None
        found[kinds[entry.dagster_event.event_type]] = entry.timestamp
    return found


def _woken(log: Path) -> list[float]:
    if not log.exists():
        return []
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines if line["event"] == "woken"]


def show(console: Console, title: str, found: list[dict]) -> None:
    table = Table(title=title)
    for name in ("part (seconds)", "median", "p95", "longest"):
        table.add_column(name, justify="left" if name.startswith("part") else "right")
    before = "delivered"
    for step, name in STEPS:
        rows = [steps[step] - steps[before] for steps in found if step in steps and before in steps]
        if rows:
            table.add_row(name, *_figures(rows))
            before = step
    table.add_section()
    table.add_row("delivered → row in facturas", *_figures([steps["row"] - steps["delivered"] for steps in found]))
    console.print(table)
    shown = {name for _, name in STEPS}
    for name, text in LOWER:
        assert name in shown
        console.print(f"[bold]{name}[/bold]: {text}")


def _figures(rows: list[float]) -> list[str]:
    ordered = sorted(rows)
    p95 = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)) - 1)] if len(ordered) > 1 else ordered[0]
    return [f"{statistics.median(ordered):.2f}", f"{p95:.2f}", f"{ordered[-1]:.2f}"]


def run(console: Console, title: str, options: list[str], count: int, pause: float) -> None:
    with bench_home() as services, mail_server() as server:
        prepare(services, server)
        with nova_up(*options) as logs, dg.DagsterInstance.get() as instance:
            # what lay there before the first look is not taken: it must have been looked at
            wait_for(lambda: _searched(services), "the first search")
            measure(services, server, range(2), 1.0)  # the first ones fill the caches of everybody
            delivered = measure(services, server, range(2, 2 + count), pause)
            load = os.getloadavg()
            show(console, title, steps_of(services, instance, delivered, logs))
    console.print(f"load average of this machine at the end: {load[0]:.1f}, {load[1]:.1f} ({os.cpu_count()} cores)\n")


def _searched(services: Services) -> bool:
    with services.databases.nova.read() as session:
        return session.scalar(select(Credential.last_success_at)) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mails", type=int, default=30)
    parser.add_argument("--only", choices=["watcher", "sensor"])
    given = parser.parse_args()
    console = Console(width=100)
    if given.only != "sensor":
        run(console, f"through the watcher, {given.mails} single mails", [], given.mails, 3.0)
    if given.only != "watcher":
        run(console, f"by the sensor alone, {given.mails} single mails", ["--no-watch"], given.mails, 6.0)


if __name__ == "__main__":
    main()
