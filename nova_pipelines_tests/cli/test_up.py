"""`nova up`, for real: code server, daemon, web UI and watcher work, and nothing is left of them afterwards."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest

from nova_pipelines.cli.live import ask_status
from nova_pipelines.cli.processes import Family, ProgramDied
from nova_pipelines.cli.up import free_port
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import PROGRAM, Nova, arithmetic
from nova_pipelines_tests.fixtures.dovecot import MailUser
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, invoice_pdf

#: a loaded machine takes its time to start four programs; to end them takes 12 seconds at most
START_SECONDS, STOP_SECONDS = 150.0, 30.0


def wait_for(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> object:
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.1)


def processes_of(home: Path) -> dict[int, str]:
    """Every living process that was started for this NOVA_HOME, orphans too: by its environment."""
    marker = f"NOVA_HOME={home}\0".encode()
    found: dict[int, str] = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and int(folder.name) != os.getpid() and marker in _bytes(folder / "environ"):
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                if state != "Z":
                    found[int(folder.name)] = _bytes(folder / "cmdline").replace(b"\0", b" ").decode()
        except OSError:
            continue
    return found


def _bytes(path: Path) -> bytes:
    return path.read_bytes() + b"\0"


class Up:
    """A `nova up` that was started."""

    def __init__(self, nova: Nova) -> None:
        self.nova, self.port = nova, free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = nova.home / "up.out"
        with self.output.open("wb") as out:
            self.process = subprocess.Popen([*PROGRAM, "up", "--port", str(self.port)], stdout=out, stderr=out)

    def said(self) -> str:
        return self.output.read_text()

    def wait_until_up(self) -> None:
        wait_for(lambda: "NOVA is up" in self.said() or self.process.poll() is not None, "nova up")
        assert self.process.poll() is None, self.said()

    def execution(self, number: int) -> dict:
        return self.nova.json("executions", "show", str(number))

    def wait_for_status(self, number: int, status: str) -> dict:
        def reached() -> dict | None:
            shown = self.execution(number)
            assert shown["status"] in (status, "pending", "running"), shown
            return shown if shown["status"] == status else None

        return wait_for(reached, f"execution {number} to be {status}")

    def gone(self) -> None:
        wait_for(lambda: not processes_of(self.nova.home), "all processes to end", STOP_SECONDS)


@pytest.fixture
def up(nova: Nova) -> Iterator[Up]:
    started = Up(nova)
    try:
        started.wait_until_up()
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        for pid in processes_of(nova.home):
            os.kill(pid, signal.SIGKILL)


def sleeping_workflow(path: Path) -> Path:
    """Works for minutes: its run worker and its sandbox are alive when `nova up` ends."""
    definition = json.loads(arithmetic("Sleeper"))
    definition["nodes"][1] |= {"code": "import time; time.sleep(280)", "timeout": 290}
    path.write_text(json.dumps(definition))
    return path


def mail_by_the_watcher(up: Up, user: MailUser) -> None:
    """A client and a workflow with a mailbox are watched as soon as they are there; the watcher has the run started,
    the sensor beside it starts nothing more."""
    nova = up.nova
    nova("client", "add", "idom")
    place = ["--imap-host", user.host, "--imap-port", str(user.tls_port), "--ca-file", user.ca_file]
    nova("client", "credentials", "set", "idom", "email", *place, "--user", user.name, "--password-env", "THE_PASSWORD")
    assert "live now" in nova("workflow", "load", INVOICE_PROCESSING).out
    wait_for(lambda: watch_log(nova, "connected"), "the watcher's connection")
    wait_for(lambda: nova.json("client", "show", "idom")["credentials"][0]["last_success_at"], "the first search")
    for number in (3, 4):
        mail = EmailMessage()
        mail["From"], mail["Subject"] = "ana@proveedores.example", f"Factura {number}"
        mail.set_content("Adjunto.")
        pdf = invoice_pdf("242.00", number=f"F-{number}")
        mail.add_attachment(pdf, maintype="application", subtype="pdf", filename="factura.pdf")
        user.deliver(mail)
        wait_for(lambda number=number: len(nova.json("executions", "list")) == number, f"execution {number}")
        assert up.wait_for_status(number, "completed")["workflow"] == "Invoice Processing"
    requested = watch_log(nova, "run requested")
    asked = [(line["first"], line["executions"]) for line in requested]
    # a tick of the sensor may come first; together they start each once
    assert asked in ([(3, 1), (4, 1)], [(3, 1)], [(4, 1)])
    assert [up.execution(line["first"])["run_id"] for line in requested] == [line["run"] for line in requested]
    assert len(nova.json("executions", "list")) == 4


def watch_log(nova: Nova, event: str) -> list[dict]:
    lines = (nova.home / "logs" / "watch.log").read_text().splitlines()
    return [line for line in map(json.loads, lines) if line["event"] == event]


def stranger(url: str) -> int:
    request = urllib.request.Request(f"{url}/graphql?query=%7Bversion%7D")  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_day_with_nova(up: Up, tmp_path: Path, mail_user: MailUser, monkeypatch: pytest.MonkeyPatch):
    """Loaded while it runs, taken up by the daemon, looked at, and stopped by Ctrl-C with exit code 0."""
    nova = up.nova
    assert json.loads((nova.home / "up.json").read_text())["url"] == up.url
    status = ask_status(up.url, load_settings())
    assert status.location_loaded
    assert "SENSOR" in status.daemons

    assert "open: there is no key and no user" in up.said()
    # from here on a stranger is nobody, and what belongs to NOVA is let in
    nova("keys", "create", "ci", "--role", "viewer")
    wait_for(lambda: stranger(up.url) == 401, "NOVA to be closed", 10.0)

    path = tmp_path / "double.json"
    path.write_text(arithmetic())
    assert "live now" in nova("workflow", "load", path).out
    assert "within seconds" in nova("run", "double it", "--context", '{"amount": 60}').out
    assert up.wait_for_status(1, "completed")["context"]["result"] == 120

    path.write_text(arithmetic(factor=3))
    assert nova.json("workflow", "load", path)["live"] is True
    nova("run", "double it", "--context", '{"amount": 60}')
    shown = up.wait_for_status(2, "completed")
    assert (shown["version"], shown["context"]["result"]) == (2, 180)

    monkeypatch.setenv("THE_PASSWORD", mail_user.password)
    mail_by_the_watcher(up, mail_user)

    checks = {check["name"]: check for check in nova.json("doctor")["checks"]}
    assert checks["Dagster"]["message"] == f"code server, daemon and web UI answer at {up.url}"
    wait_for(
        lambda: nova.json("watch", "--check")["watcher"].startswith("alive, 1 of 1 mailboxes connected, last new mail"),
        "the watcher's next sign of life",
        60.0,
    )
    second = nova.program("up", "--port", str(free_port("127.0.0.1")), code=2)
    assert f"already at {up.url}" in second.err

    up.process.send_signal(signal.SIGINT)

    assert up.process.wait(STOP_SECONDS) == 0, up.said()
    assert processes_of(nova.home) == {}
    assert not (nova.home / "up.json").exists()
    assert {"code.log", "daemon.log", "web.log", "watch.log"} <= {file.name for file in (nova.home / "logs").iterdir()}


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.crash), signal.SIGKILL])
def test_no_orphan_while_a_run_is_at_work(up: Up, tmp_path: Path, number: signal.Signals):
    up.nova("workflow", "load", sleeping_workflow(tmp_path / "sleeper.json"))
    up.nova("run", "sleeper")
    wait_for(lambda: up.execution(1)["status"] == "running", "the run")
    entries = up.nova.json("chain", "show", "1")["entries"]
    wait_for(lambda: entries or up.nova.json("chain", "show", "1")["entries"], "the first node")
    before = processes_of(up.nova.home)
    assert len(before) >= 11, before  # up, four keepers, four programs, the code server's own child, the run worker

    up.process.send_signal(number)

    assert up.process.wait(STOP_SECONDS) == (0 if number == signal.SIGTERM else -signal.SIGKILL), up.said()
    up.gone()


@pytest.mark.crash
def test_if_one_dies_the_others_are_stopped(up: Up):
    (daemon,) = [pid for pid, line in processes_of(up.nova.home).items() if "keeper" not in line and "_daemon" in line]

    os.kill(daemon, signal.SIGKILL)

    assert up.process.wait(STOP_SECONDS) == 1
    assert "daemon ended by itself with exit code 137; its last lines were:" in up.said()
    assert str(up.nova.home / "logs" / "daemon.log") in up.said()
    up.gone()


def test_a_program_that_ends_is_named_with_its_last_words(tmp_path: Path):
    family = Family(tmp_path, dict(os.environ))
    family.start("fax")

    family.programs["fax"].wait(START_SECONDS)
    with pytest.raises(ProgramDied, match=r"fax ended by itself with exit code 2; its last lines were:\n.*fax") as died:
        family.check()

    assert str(tmp_path / "fax.log") in str(died.value.remedy)
    assert family.stop() == []


def test_a_port_in_use(nova: Nova):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = nova("up", "--port", str(port), code=2)

    assert f"port {port} on 127.0.0.1 cannot be used" in said.err
    assert "--port" in said.err
    assert not (nova.home / "logs").exists()


def test_before_the_first_migration(bare: Nova):
    said = bare("up", code=2)

    assert "not migrated: nova and facturas database" in said.err
    assert "nova migrate" in said.err
    assert not bare.home.exists()
