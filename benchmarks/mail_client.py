"""One measurement of the mail intake in a process of its own: `python -m benchmarks.mail_client WHAT`, JSON on stdout.

The mailbox is that of credential 1 in the NOVA of the environment. Seconds are of this process alone: the server's
are not counted.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

from nova_pipelines.adapters.imap import Mailbox
from nova_pipelines.database.nova import MailFolder, Message
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings


def peak_mb() -> float:
    """The most memory that this process had so far (proc(5), VmHWM)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def open_mailbox(services: Services) -> Mailbox:
    return Mailbox(services.mailbox(1))


def first_poll(services: Services) -> dict[str, float]:
    """Of a full inbox: 200 mails into ledger and store; then the headers of all."""
    before, cpu = peak_mb(), time.process_time()
    report = scan_mailbox(services, 1, "INBOX")
    scanned, peak = time.process_time() - cpu, peak_mb()
    assert (report.stored, report.complete) == (200, False), report
    with open_mailbox(services) as mailbox:
        state = mailbox.select("INBOX")
        cpu = time.process_time()
        headers = mailbox.headers(mailbox.candidates(1))
        triage = time.process_time() - cpu
    assert len(headers) == state.uidnext - 1
    return {"cpu": scanned, "peak": peak, "before": before, "headers": triage, "headers_peak": peak_mb()}


def steady(services: Services) -> dict[str, float]:
    """Milliseconds of a poll that finds nothing new, on an open connection; all mails are in the ledger."""
    with open_mailbox(services) as mailbox:
        state = mailbox.select("INBOX")
        _know_all(services, state.uidvalidity, state.uidnext)
        cpu = time.process_time()
        assert scan_mailbox(services, 1, "INBOX", mailbox=mailbox).new == 0
        first = time.process_time() - cpu
        times = []
        cpu = time.process_time()
        for _ in range(100):
            begin = time.perf_counter()
            assert scan_mailbox(services, 1, "INBOX", mailbox=mailbox).new == 0
            times.append(1000 * (time.perf_counter() - begin))
        each = 10 * (time.process_time() - cpu)
        search = []
        for _ in range(100):
            begin = time.perf_counter()
            mailbox.candidates(state.uidnext)
            search.append(1000 * (time.perf_counter() - begin))
    return {"first_cpu": first, "cpu": each, "median": statistics.median(times), "search": statistics.median(search)}


def _know_all(services: Services, uidvalidity: int, uidnext: int) -> None:
    place = {"credential_id": 1, "folder": "INBOX", "uidvalidity": uidvalidity}
    with services.databases.nova.session() as session:
        session.add_all(Message(**place, client_id=1, uid=uid, status="assigned") for uid in range(1, uidnext))
        session.add(MailFolder(**place, first_uid=uidnext))


def attachment(services: Services) -> dict[str, float]:
    """A small mail, then a big one."""
    peaks, seconds = [], []
    for _ in range(2):
        cpu = time.process_time()
        assert scan_mailbox(services, 1, "INBOX", limit=1).stored == 1
        seconds.append(time.process_time() - cpu)
        peaks.append(peak_mb())
    return {"small": peaks[0], "large": peaks[1], "cpu": seconds[1]}


if __name__ == "__main__":
    measured = {"first_poll": first_poll, "steady": steady, "attachment": attachment}[sys.argv[1]]
    services = build_services(load_settings())
    try:
        print(json.dumps(measured(services)))
    finally:
        services.close()
        services.databases.close()
