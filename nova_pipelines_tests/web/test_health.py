"""`/health` and its like: each component is really asked, within three seconds, and nobody is told a host."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from nova_pipelines.adapters import life_lock
from nova_pipelines.adapters.redis_ping import ping
from nova_pipelines.database.nova import BreakerRow
from nova_pipelines.database.session import Databases
from nova_pipelines.domain.errors import CredentialError, TransientError
from nova_pipelines.settings import Settings
from nova_pipelines.web.access import Principal
from nova_pipelines.web.board import Bad, Board, Check, Good
from nova_pipelines.web.components import Heart
from nova_pipelines_tests.fixtures.blackhole import Proxy
from nova_pipelines_tests.fixtures.postgres import settings_for
from nova_pipelines_tests.fixtures.tcp_postgres import TcpPostgres
from nova_pipelines_tests.web.operated import OPEN, operated

NEEDED = {"database", "facturas", "daemon", "code_location", "dagster"}


def test_the_old_shape_and_what_is_new(database_settings: Settings):
    with operated(database_settings) as (client, _, _):
        answer = client.get("/health")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    expected = {"status": "healthy", "database": "connected", "facturas": "connected", "daemon": "running"}
    expected |= {"code_location": "loaded", "celery": "not_configured", "redis": "not_configured"}
    expected |= {"e2b": "not_configured", "mailboxes": "ok", "documents": "writable", "disk": "ok"}
    assert expected.items() <= body.items()
    assert body["watcher"] == "not running"
    assert answer.headers["cache-control"] == "no-store"


def test_what_is_down_is_named_without_its_place(database_settings: Settings):
    with operated(database_settings) as (client, words, _):
        words.code_server = False
        answer = client.get("/health")
        assert answer.status_code == 503
        assert answer.json()["code_location"] == "unreachable"
        assert answer.json()["status"] == "unhealthy"
        assert set(answer.json()["reasons"]) == {"code_location"}
        assert "c0de-host" not in answer.text
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").json() == {"status": "alive"}
        words.code_server = True
        words.beats = {"SENSOR": time.time() - 500}
        time.sleep(1.05)  # answers are used again for a second
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["daemon"]) == (503, "stopped")
        assert client.get("/health/ready").status_code == 200, "work is taken on while the daemon is away"
        words.beats = {"SENSOR": time.time()}
        time.sleep(1.05)
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("principal", "status"),
    [
        (None, 401),
        (OPEN, 200),
        (Principal("v", "viewer", "key"), 200),
        (Principal("v", "viewer", "key", frozenset()), 403),
    ],
    ids=["nobody", "open", "viewer", "viewer of one client"],
)
def test_details_are_for_those_who_see_everything(database_settings: Settings, principal, status):
    with operated(database_settings, principal=principal) as (client, words, _):
        words.code_server = False
        answer = client.get("/health/detailed")
        assert client.get("/metrics").status_code == status
    if status != 200:
        assert answer.status_code == status
        assert "c0de-host" not in answer.text
        return
    assert answer.status_code == 503
    body = answer.json()
    assert body["healthy"] is False
    assert "c0de-host" in body["components"]["code_location"]["message"]
    assert any(issue.startswith("code_location: ") for issue in body["issues"])
    assert body["metrics"]["circuit_breaker"]["state"] == "closed"


def test_a_database_without_tables_is_not_healthy(empty_database_urls, tmp_path: Path):
    settings = settings_for(*empty_database_urls).model_copy(update={"nova_home": tmp_path})
    with operated(settings) as (client, _, _):
        body = client.get("/health").json()
    assert (body["status"], body["database"], body["facturas"]) == ("unhealthy", "not migrated", "not migrated")


def test_it_is_never_healthy_while_a_database_hangs_and_recovers_by_itself(tmp_path: Path):
    """Old defect 8, and what a driver without a time limit would make of it: answers in time, and threads do not pile
    up. One connection after the other is swallowed without a word."""
    with TcpPostgres() as server, server.database("p4ss") as made, Proxy("127.0.0.1", server.port) as proxy:
        from nova_pipelines.database.migrate import migrate

        nova = f"postgresql://{made.user}:p4ss@127.0.0.1:{proxy.port}/{made.name}"
        settings = settings_for(nova, f"sqlite:///{tmp_path}/facturas.db").model_copy(update={"nova_home": tmp_path})
        migrate(settings)
        with operated(settings) as (client, _, _):
            assert client.get("/health").json()["database"] == "connected"
            before = threading.active_count()
            proxy.swallowing = True
            hung, swallowed_at = [], time.monotonic()
            while time.monotonic() < swallowed_at + 8:
                began = time.monotonic()
                answer = client.get("/health")
                hung.append((began - swallowed_at, time.monotonic() - began, answer))
                time.sleep(0.1)
            assert max(seconds for _, seconds, _ in hung) < 3.5
            # an answer is used again for a second
            late = [answer for at, _, answer in hung if at > 1.1]
            assert {answer.status_code for answer in late} == {503}
            assert {answer.json()["database"] for answer in late} <= {"no answer", "unreachable"}
            assert threading.active_count() - before < 30
            proxy.swallowing = False
            proxy.cut()
            wait_healthy(client, 8)


def wait_healthy(client, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while client.get("/health").status_code != 200:
        assert time.monotonic() < deadline, client.get("/health").text
        time.sleep(0.1)


def test_a_check_that_hangs_is_asked_once_and_given_up_in_the_end(monkeypatch: pytest.MonkeyPatch):
    import anyio

    monkeypatch.setattr("nova_pipelines.web.board.GIVE_UP_SECONDS", 0.5)
    release, calls = threading.Event(), []

    def hang() -> Good:
        calls.append(threading.current_thread())
        release.wait(20)
        return Good("ok")

    board = Board([Check("slow", hang, needed=True), Check("quick", lambda: Good("ok"), needed=True)], seconds=0.2)

    async def look() -> None:
        for _ in range(30):
            slow, quick = await board.look()
            assert (slow.ok, slow.word, quick.ok) == (False, "no answer", True)
            await anyio.sleep(0.1)

    anyio.run(look)
    assert len(calls) == 4, "one, and three that took its place"
    release.set()
    for thread in calls:
        thread.join(5)
    assert anyio.run(board.look)[0].ok is True


def test_many_ask_and_one_looks():
    import anyio

    looks = []

    def count() -> Good:
        looks.append(1)
        time.sleep(0.1)
        return Good("ok")

    board = Board([Check("one", count, fresh=60)])

    async def ask() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(board.look)

    anyio.run(ask)
    assert len(looks) == 1


class Daemon:
    """Holds the lock as a daemon does, in a file of this process."""

    def __init__(self, home: Path) -> None:
        self._file = life_lock.take(home / "daemon.lock")

    def die(self) -> None:
        import os

        os.close(self._file)


def test_a_daemon_that_ends_is_missed_at_once_whatever_its_heartbeats_say(tmp_path: Path):
    settings = home_settings(tmp_path)
    beats = {"SENSOR": time.time()}
    heart = Heart(settings, lambda: beats)
    assert heart.check().word == "running", "no lock was ever there: heartbeats alone are looked at"
    daemon = Daemon(tmp_path)
    assert heart.check().word == "running"
    daemon.die()
    with pytest.raises(Bad, match="nobody holds the lock") as bad:
        heart.check()
    assert bad.value.short == "stopped"
    again = Daemon(tmp_path)
    beats["SENSOR"] = 0.0
    assert heart.check().word == "running", "it was started just now"
    again.die()
    with pytest.raises(Bad):
        heart.check()
    beats["SENSOR"] = time.time() + 1
    assert heart.check().detail == "on another machine"


def test_a_daemon_that_lives_and_has_no_heart_is_stopped(tmp_path: Path):
    settings = home_settings(tmp_path)
    daemon = Daemon(tmp_path)
    heart = Heart(settings, lambda: {"SENSOR": time.time() - 10}, now=lambda: time.time() + 300)
    with pytest.raises(Bad, match="no heartbeat within 120 s of: SENSOR"):
        heart.check()
    daemon.die()


def home_settings(home: Path) -> Settings:
    return settings_for("sqlite:////x/nova.db", "sqlite:////x/f.db").model_copy(update={"nova_home": home})


def test_an_open_breaker_is_shown_as_it_is_in_the_shared_table(database_settings: Settings, databases: Databases):
    """Old defect 7: the API showed the breaker of its own process, and "CLOSED" was never "closed"."""
    cloud = database_settings.model_copy(update={"nova_sandbox": "e2b"})
    with databases.nova.session() as session:
        row = session.get_one(BreakerRow, "e2b")
        row.state, row.failures = "half_open", 5
    with operated(cloud, principal=OPEN) as (client, _, _):
        seen = client.get("/metrics").json()["circuit_breaker"]
        health = client.get("/health")
    assert seen == {"state": "half_open", "failure_count": 5, "failure_threshold": 5, "is_healthy": False}
    assert (health.status_code, health.json()["status"]) == (200, "degraded")
    assert health.json()["e2b"] == "circuit half_open"


class FakeRedis:
    """Answers as Redis does: with a password, or without."""

    def __init__(self, password: str | None = None) -> None:
        self.password = password
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            known = self.password is None
            with connection:
                while data := connection.recv(1024):
                    words = [word for word in data.decode().split("\r\n") if word and word[0] not in "*$"]
                    if words[0] == "AUTH":
                        known = words[-1] == self.password
                        connection.sendall(b"+OK\r\n" if known else b"-WRONGPASS no\r\n")
                    else:
                        connection.sendall(b"+PONG\r\n" if known else b"-NOAUTH Authentication required.\r\n")

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def test_redis_is_really_asked():
    open_, closed = FakeRedis(), FakeRedis("p@ss")
    ping(f"redis://127.0.0.1:{open_.port}/0", seconds=2)
    ping(f"redis://:p%40ss@127.0.0.1:{closed.port}/0", seconds=2)
    for url in (f"redis://127.0.0.1:{closed.port}", f"redis://:wr0ng@127.0.0.1:{closed.port}"):
        with pytest.raises(CredentialError) as refused:
            ping(url, seconds=2)
        assert "wr0ng" not in str(refused.value)
    open_.close()
    closed.close()
    with pytest.raises(TransientError):
        ping(f"redis://127.0.0.1:{open_.port}/0", seconds=2)
