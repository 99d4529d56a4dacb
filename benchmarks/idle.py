"""`python -m benchmarks.idle`: what the watcher costs for each mailbox that only waits, in memory and CPU."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from sqlalchemy import select

from benchmarks.cpu import cpu_of
from benchmarks.home import ROOT, bench_home, publish_text
from benchmarks.latency import wait_for
from benchmarks.mailserver import settings_of
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.database.nova import WatcherRow
from nova_pipelines.nodes.services import Services
from nova_pipelines_tests.fixtures.dovecot import DovecotServer


def add_mailboxes(services: Services, dovecot: DovecotServer, numbers: range) -> None:
    for number in numbers:
        user = dovecot.new_user()
        with services.databases.nova.session() as session:
            client = add_client(session, name=f"Client {number}", slug=f"client-{number}")
            secret = {"password": user.password}
            set_credential(session, services.box(), client, "email", settings=settings_of(user), secret=secret)


def measure(services: Services, count: int, seconds: float) -> tuple[float, float]:
    """(resident MB, CPU seconds an hour) of a watcher with `count` idle mailboxes."""
    log = Path(os.environ["NOVA_HOME"]) / f"watch-{count}.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "nova_pipelines.cli.main", "watch"], stderr=out)
    try:
        wait_for(lambda: _connected(services) == count, f"{count} connections")
        time.sleep(15)  # the first searches go on for a while
        before = cpu_of(process.pid)
        time.sleep(seconds)
        cpu = (cpu_of(process.pid) - before) * 3600 / seconds
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024, cpu
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def _connected(services: Services) -> int | None:
    with services.databases.nova.read() as session:
        row = session.scalars(select(WatcherRow)).first()
        return row.connected if row else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mailboxes", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=40)
    given = parser.parse_args()
    console = Console()
    with bench_home() as services, DovecotServer("service imap-login {\n  process_min_avail = 1\n}\n") as dovecot:
        publish_text(services, (ROOT / "workflows" / "invoice_processing.yaml").read_text())
        few, many = max(1, given.mailboxes // 10), given.mailboxes
        add_mailboxes(services, dovecot, range(few))
        small = measure(services, few, given.seconds)
        add_mailboxes(services, dovecot, range(few, many))
        large = measure(services, many, given.seconds)
    for count, (memory, cpu) in ((few, small), (many, large)):
        console.print(f"{count} idle mailboxes: {memory:.0f} MB resident, {cpu:.0f} CPU seconds an hour")
    each = (large[0] - small[0]) / (many - few), (large[1] - small[1]) / (many - few)
    console.print(f"each mailbox more: {each[0] * 1024:.0f} KB, {each[1]:.2f} CPU seconds an hour")


if __name__ == "__main__":
    main()
