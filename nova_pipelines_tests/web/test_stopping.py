"""Real processes and real databases: `/health` names what was stopped within five seconds, and is well again by itself.

The web service is started first, with the code server away, and stays up through all of it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from nova_pipelines.cli.up import free_port
from nova_pipelines.database.migrate import migrate
from nova_pipelines.settings import normalise_database_url
from nova_pipelines_tests.fixtures.postgres import clean_environment, settings_for
from nova_pipelines_tests.fixtures.tcp_postgres import TcpPostgres

#: what the issue asks for; and what a loaded machine may take to start a program again
WITHIN, RECOVERED = 5.0, 60.0
PROGRAM = [sys.executable, "-m", "nova_pipelines.cli.main", "serve"]


class House:
    """`nova serve code`, `daemon` and `web` on two databases of their own."""

    def __init__(self, home: Path, nova: str, facturas: str) -> None:
        self.home, self.port, self.code_port = home, free_port("127.0.0.1"), free_port("127.0.0.1")
        self.environment = {
            **os.environ,
            "NOVA_HOME": str(home),
            "DATABASE_URL": nova,
            "FACTURAS_DATABASE_URL": facturas,
            "NOVA_CODE_PORT": str(self.code_port),
            "NOVA_SANDBOX": "unsafe-subprocess",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, program: str) -> None:
        port = {"web": self.port, "code": self.code_port}.get(program)
        with (self.home / f"{program}.log").open("ab") as log:
            self.processes[program] = subprocess.Popen(
                [*PROGRAM, program, *(["--port", str(port)] if port else [])],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, program: str) -> None:
        """The keeper and all below it, in one moment."""
        process = self.processes.pop(program)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def ask(self, path: str = "/health") -> tuple[int, dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return 0, {}

    def wait(self, what: str, seconds: float, check: Callable[[int, dict[str, Any]], bool]) -> float:
        """How long it took until `/health` was so. Fails with the logs after `seconds`."""
        began = time.monotonic()
        while True:
            status, body = self.ask()
            took = time.monotonic() - began
            if check(status, body):
                return took
            if took > seconds:
                logs = "\n".join(f"== {log.name}\n{log.read_text()[-3000:]}" for log in self.home.glob("*.log"))
                pytest.fail(f"{what}: not within {seconds} s; {status} {body}\n{logs}")
            time.sleep(0.1)

    def well(self, what: str = "healthy") -> float:
        return self.wait(what, RECOVERED, lambda status, _: status == 200)

    def down(self, component: str) -> float:
        return self.wait(
            f"{component} is named", WITHIN, lambda status, body: status == 503 and component in body["reasons"]
        )


@contextmanager
def database(server: TcpPostgres) -> Iterator[str]:
    with server.database("p4ss") as made:
        engine = create_engine(normalise_database_url(made.url.replace(f"{made.user}@", f"{made.user}:p4ss@")))
        with engine.begin() as connection:
            connection.execute(text("DROP TABLE invoices"))  # the old system's, which others need
        engine.dispose()
        yield f"postgresql://{made.user}:p4ss@127.0.0.1:{made.port}/{made.name}"


@pytest.mark.timeout(280)
def test_what_is_stopped_is_named_within_five_seconds_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clean_environment(monkeypatch)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    with (
        TcpPostgres() as one,
        TcpPostgres() as other,
        database(one) as nova,
        database(other) as facturas,
    ):
        migrate(settings_for(nova, facturas))
        house = House(tmp_path, nova, facturas)
        try:
            took = scenario(house, one, other)
        finally:
            for program in list(house.processes):
                house.kill(program)
    assert max(took.values()) <= WITHIN, took


def scenario(house: House, nova: TcpPostgres, facturas: TcpPostgres) -> dict[str, float]:
    with nova.down():
        house.start("web")
        house.wait("the web service answers", RECOVERED, lambda status, _: status == 503)
        assert house.ask("/health/live") == (200, {"status": "alive"})
        assert {"database", "code_location", "daemon"} <= set(house.ask()[1]["reasons"])
    web = house.processes["web"].pid
    house.start("code")
    house.start("daemon")
    house.well("everything has started")
    took: dict[str, float] = {}
    with nova.down():
        took["database"] = house.down("database")
    house.well("the nova database is back")
    with facturas.down():
        took["facturas"] = house.down("facturas")
    house.well("facturas is back")
    house.kill("daemon")
    took["daemon"] = house.down("daemon")
    assert house.ask("/health/ready")[0] == 200
    house.start("daemon")
    house.well("the daemon is back")
    house.kill("code")
    took["code_location"] = house.down("code_location")
    house.start("code")
    house.well("the code server is back")
    assert house.processes["web"].poll() is None
    assert house.processes["web"].pid == web
    began = time.monotonic()
    house.processes["web"].send_signal(signal.SIGTERM)
    house.processes["web"].wait(20)
    took["(end of the web service)"] = time.monotonic() - began
    return took
