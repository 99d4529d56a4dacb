"""`nova watch` as a program: signs of life, a log of one line of JSON each, and a quick end."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from nova_pipelines.database.nova import Credential, WatcherRow
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.watchers import SILENT, living_watchers
from nova_pipelines.domain.errors import TransientError
from nova_pipelines_tests.cli.conftest import PROGRAM, Nova
from nova_pipelines_tests.fixtures.sockets import black_hole
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World

#: the watcher gives its connections two seconds; a busy machine takes longer, and a server is waited for 20
IN_TIME = 8.0


class Program:
    """A `nova watch` that was started."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world, self.path = world, folder / "watch.log"
        with self.path.open("wb") as log:
            self.process = subprocess.Popen([*PROGRAM, "watch"], stdout=log, stderr=log)

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def until(self, what: str, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 30
        while not (found := condition()):
            assert self.process.poll() is None, self.path.read_text()
            assert time.monotonic() < deadline, f"{what} did not come: {self.path.read_text()}"
            time.sleep(0.02)
        return found

    def until_watching(self) -> None:
        self.until("a search", lambda: _searched(self.world))

    def rows(self) -> list[WatcherRow]:
        with self.world.services.databases.nova.read() as session:
            return list(session.scalars(select(WatcherRow)))


def _searched(world: World) -> bool:
    with world.services.databases.nova.read() as session:
        return session.get_one(Credential, 1).last_success_at is not None


@pytest.fixture
def program(world: World, tmp_path: Path) -> Iterator[Program]:
    world.publish(INVOICE_PROCESSING)
    made = Program(world, tmp_path)
    yield made
    made.process.kill()
    made.process.wait()


@pytest.fixture
def nova(world: World) -> Nova:
    return Nova(world.settings.nova_home)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_takes_mail_in_and_ends_within_two_seconds(
    world: World, program: Program, nova: Nova, number: signal.Signals
):
    program.until_watching()
    world.deliver(subject="Hola")
    program.until("the execution", world.executions)
    # no web service is there to ask: the execution waits for the sensor, and nobody else holds it
    program.until("the refusal", lambda: [line for line in program.log() if "left to the sensor" in line["event"]])
    (execution,) = world.executions()
    assert (execution.status, execution.run_id) == ("pending", None)
    (row,) = program.rows()
    assert row.place.endswith(f"process {program.process.pid}")
    assert "alive" in nova("watch", "--check").out

    began = time.monotonic()
    program.process.send_signal(number)
    assert program.process.wait(10) == 0
    assert time.monotonic() - began < IN_TIME
    assert program.rows() == []
    events = [line["event"] for line in program.log()]
    assert events[0] == "watcher starts"
    assert events[-1] == "watcher ends"
    assert {"connected", "new mail"} <= set(events)
    assert all({"timestamp", "level", "event"} <= line.keys() for line in program.log())
    said = nova("watch", "--check", code=1)
    assert "not running" in said.out


def test_it_ends_in_time_while_a_server_says_nothing(world: World, tmp_path: Path):
    world.publish(INVOICE_PROCESSING)
    with black_hole() as port:
        with world.services.databases.nova.session() as session:
            credential = session.get_one(Credential, 1)
            credential.settings = {**credential.settings, "imap_port": port}
        program = Program(world, tmp_path)
        try:
            program.until("a sign of life", program.rows)
            began = time.monotonic()
            program.process.terminate()
            assert program.process.wait(10) == 0
            assert time.monotonic() - began < IN_TIME
            assert program.log()[-1]["cut"] == 1
        finally:
            program.process.kill()
            program.process.wait()


def test_a_watcher_that_was_killed_is_missed(world: World, program: Program, nova: Nova):
    program.until("a sign of life", program.rows)
    program.process.kill()
    program.process.wait()
    database = world.services.databases.nova
    with database.session() as session:
        assert len(living_watchers(session)) == 1, "not long enough ago"
        row = session.scalars(select(WatcherRow)).one()
        row.beat_at = utc_now() - SILENT - timedelta(seconds=1)
    with database.read() as session, pytest.raises(TransientError, match="no sign of life of the watcher"):
        living_watchers(session)
    assert "no sign of life" in nova("watch", "--check", code=1).err
    checks = {check["name"]: check for check in nova("doctor", "--json", code=1).json["checks"]}
    assert not checks["watcher"]["ok"]
    assert "nova serve watch" in checks["watcher"]["remedy"]
    again = Program(world, program.path.parent)
    try:
        again.until(
            "its row instead of the dead one's", lambda: [r for r in again.rows() if str(again.process.pid) in r.place]
        )
        assert len(again.rows()) == 1
    finally:
        again.process.kill()
        again.process.wait()


def test_without_a_database_it_says_what_to_do(bare: Nova):
    said = bare.program("watch", code=2)
    assert "nova migrate" in said.err
    assert not (bare.home / "nova.db").exists()


def test_where_none_was_started_the_doctor_finds_nothing_wrong(nova: Nova):
    checks = {check["name"]: check for check in nova("doctor", "--json", code=None).json["checks"]}
    assert checks["watcher"]["ok"]
    assert "not running" in checks["watcher"]["message"]
