"""`nova demo`: the main job on real servers on this machine, through the commands that a user would type."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

import nova_pipelines
from nova_pipelines.database.session import Databases, open_databases
from nova_pipelines.demo import results, show
from nova_pipelines.demo.mails import CLIENT, WHITELIST, DemoMail, demo_mails, send_all
from nova_pipelines.demo.servers import DemoServers
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import load_settings

#: variables that lead to a user's own NOVA, which the demo must not touch
PRIVATE = re.compile(
    r"^(DATABASE_URL|FACTURAS_DATABASE_URL|REDIS_URL|GMAIL_.*|E2B_.*|DAGSTER_HOME|NOVA_(?!SANDBOX$).*)$"
)
PATIENCE_SECONDS = 240.0
PASSWORD_VARIABLE = "DEMO_MAIL_PASSWORD"  # noqa: S105 - the name of a variable
BROKEN = """name: Broken
nodes:
  - {id: start, type: start, next: fetch}
  - {id: fetch, type: mail_fech, next: end}
  - {id: amount, type: decision, expression: 'context.total >', next: {true: end}}
  - {id: end, type: end, timeout: -1}
"""


def run_demo(*, keep: bool = False, port: int | None = None, console: Console | None = None) -> int:
    """Runs the demo; 0 if every mail came to what it must. `keep` only serves what an earlier demo left.

    Raises ConfigurationError when something is missing on this machine.
    """
    console = console or Console(soft_wrap=False)
    home = load_settings().nova_home / "demo"
    environment = {name: value for name, value in os.environ.items() if not PRIVATE.match(name)}
    environment |= {"NOVA_HOME": str(home)}
    workflow = Path(nova_pipelines.__file__).parent.parent / "workflows" / "invoice_processing.yaml"
    if not workflow.is_file():
        raise ConfigurationError(
            "the demo's workflow is not here", remedy="run the demo from a checkout of the project"
        )
    with DemoServers(home / "mail") as servers:
        console.print(
            f"IMAP on {servers.imap_host}:{servers.imap_port}, SMTP on {servers.smtp_host}:{servers.smtp_port}"
        )
        _set_up(console, environment, servers, home, workflow)
        with _nova_up(console, environment, home, port or _free_port()) as url:
            if keep:
                return _keep(console, url)
            databases = _databases(home)
            try:
                return _demonstrate(console, environment, servers, databases, url)
            finally:
                databases.close()


def _set_up(console: Console, environment: dict[str, str], servers: DemoServers, home: Path, workflow: Path) -> None:
    broken = home / "workflows" / "broken.yaml"
    broken.parent.mkdir(parents=True, exist_ok=True)
    broken.write_text(BROKEN, encoding="utf-8")
    nova = _Nova(console, environment | {PASSWORD_VARIABLE: servers.password})
    nova("migrate")
    if nova("client", "show", "idom", quiet=True, may_fail=True):
        senders = [part for sender in WHITELIST for part in ("--allow-sender", sender)]
        nova("client", "add", "idom", "--name", CLIENT.name, "--email", servers.user, *senders)
    nova(
        "client", "credentials", "set", "idom", "email",
        "--imap-host", servers.imap_host, "--imap-port", str(servers.imap_port), "--imap-tls", "none",
        "--smtp-host", servers.smtp_host, "--smtp-port", str(servers.smtp_port), "--smtp-tls", "none",
        "--user", servers.user, "--address", servers.user, "--password-env", PASSWORD_VARIABLE,
    )  # fmt: skip
    console.print("[dim]A broken definition lies beside the good one: it is refused, the other is loaded.[/]")
    nova("workflow", "load", str(workflow), str(broken), may_fail=True)


class _Nova:
    """Runs `nova …` in a process of its own and shows the command and what it printed."""

    def __init__(self, console: Console, environment: dict[str, str]) -> None:
        self._console, self._environment = console, environment

    def __call__(self, *words: str, quiet: bool = False, may_fail: bool = False) -> int:
        if not quiet:
            self._console.print(f"[bold green]$[/] [bold]nova {' '.join(words)}[/]", highlight=False)
        done = subprocess.run(
            [sys.executable, "-m", "nova_pipelines.cli.main", *words],
            env=self._environment | {"COLUMNS": str(self._console.width)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if not quiet:
            text = (done.stdout + done.stderr).rstrip()
            self._console.print(text, markup=False, highlight=False)
        if done.returncode and not may_fail:
            raise ConfigurationError(
                f"`nova {words[0]}` ended with {done.returncode}", remedy="see what it printed above"
            )
        return done.returncode


@contextmanager
def _nova_up(console: Console, environment: dict[str, str], home: Path, port: int) -> Iterator[str]:
    """`nova up` until the block ends."""
    console.print(f"[bold green]$[/] [bold]nova up --port {port}[/]", highlight=False)
    log = home / "nova-up.log"
    # the keeper ends `nova up` with this process, even if that is killed
    keeper = [sys.executable, "-m", "nova_pipelines.cli.keeper", str(os.getpid())]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*keeper, sys.executable, "-m", "nova_pipelines.cli.main", "up", "--port", str(port)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            tail = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
            raise ConfigurationError(f"nova up ended: {tail}", remedy=f"the whole log is {log}")
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):  # noqa: S310 - loopback
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ConfigurationError(f"the Dagster UI did not answer at {url}", remedy=f"look into {log}")


def _demonstrate(
    console: Console, environment: dict[str, str], servers: DemoServers, databases: Databases, url: str
) -> int:
    mails = demo_mails(series=secrets.token_hex(2))
    before = len(servers.answers())
    send_all(servers, mails)
    console.print(f"\n{len(mails)} mails sent; the watcher sees them at once")
    _progress(console, databases, mails)
    found = results.outcomes(databases, mails)
    executions = [outcome.execution.id for outcome in found if outcome.execution]
    low = next((o.execution.id for o in found if o.execution and o.result.get("decision") == "low_amount"), 0)
    show.print_all(
        console,
        found,
        servers.answers()[before:],
        (low, results.chain_rows(databases, low)),
        results.invoices(databases, executions),
    )
    nova = _Nova(console, environment)
    console.print()
    broken_chain = nova("chain", "verify", may_fail=True)
    runs = sorted({str(outcome.execution.run_id) for outcome in found if outcome.execution})
    console.print("\nIn the Dagster UI ([bold]make up[/] keeps it running):")
    for run in runs:
        console.print(f"  {url}/runs/{run}", highlight=False)
    wrong = [outcome for outcome in found if not outcome.right]
    for outcome in wrong:
        console.print(f"[red]not as expected:[/] {outcome.mail.name}: expected {outcome.expected}", highlight=False)
    answered = sum(expected.answered for mail in mails for expected in mail.expected)
    sent = len(servers.answers()) - before
    if sent != answered:
        console.print(f"[red]{sent} answers were mailed, {answered} expected[/]")
    good = not wrong and not broken_chain and sent == answered
    console.print(f"\n[bold]{len(found) - len(wrong)} of {len(found)} documents as expected[/]")
    return 0 if good else 1


def _progress(console: Console, databases: Databases, mails: Sequence[DemoMail]) -> None:
    """Shows how many mails are through, until all are or patience ends."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("mails processed", total=len(mails))
        while time.monotonic() < deadline:
            seen = results.ledger(databases, mails)
            done = sum(row.done for rows in seen.values() for row in rows)
            progress.update(task, completed=done)
            if done == len(mails):
                return
            time.sleep(0.5)
    console.print("[red]not all mails were processed in time[/]: the tables show how far it came")


def _keep(console: Console, url: str) -> int:
    console.print(f"\nNOVA runs at [bold]{url}[/]: Ctrl-C stops it", highlight=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.pause()
    console.print("stopping")
    return 0


def _databases(home: Path) -> Databases:
    return open_databases(f"sqlite:///{home / 'nova.db'}", f"sqlite:///{home / 'facturas.db'}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
