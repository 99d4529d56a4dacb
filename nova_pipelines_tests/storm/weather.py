"""A whole NOVA in the server profile, and the blows that can fall on any part of it."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nova_pipelines_tests.deploy.stack import PASSWORD, Stack, created_databases
from nova_pipelines_tests.fixtures.blackhole import Proxy
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.tcp_postgres import TcpPostgres

#: a part is away for so many seconds, at least and at most
AWAY = (0.2, 4.0)


@dataclass
class Town:
    """Everything that the storm can hit. NOVA reaches mail and databases only through the proxies."""

    stack: Stack
    dovecot: DovecotServer
    postgres: TcpPostgres
    user: MailUser
    sink: SmtpSink
    lines: dict[str, Proxy]
    watchers: tuple[str, ...] = ("watch",)

    def start(self) -> None:
        for service in ("code", "web", "daemon"):
            self.stack.start(service)
        for name in self.watchers:
            self.stack.start("watch", name)

    def keep_alive(self) -> None:
        """What has ended is started again, as Docker's `restart: unless-stopped` does."""
        for name, process in list(self.stack.processes.items()):
            if process.poll() is not None:
                self.stack.kill(name)  # what it left, too
                self.stack.start("watch" if name in self.watchers else name, name)


class Storm:
    """Blows in an order that the seed determines; each is over when its call returns."""

    def __init__(self, town: Town, seed: int) -> None:
        self.town = town
        self.random = random.Random(seed)  # noqa: S311 - no secret
        self.struck: dict[str, int] = {}
        self.blows: dict[str, Callable[[], None]] = {
            "worker": self._worker,
            "daemon": lambda: self._kill("daemon"),
            "code": lambda: self._kill("code"),
            "watch": self._watcher,
            "imap": lambda: self._away(self.town.dovecot.down()),
            "imap line": lambda: self._cut("imap"),
            "smtp line": lambda: self._cut("smtp"),
            "database": lambda: self._away(self.town.postgres.down()),
            "database line": lambda: self._cut("database"),
        }

    def order(self, count: int) -> list[str]:
        """Every kind about as often as every other."""
        names = (list(self.blows) * (count // len(self.blows) + 1))[:count]
        self.random.shuffle(names)
        return names

    def strike(self, name: str) -> None:
        self.blows[name]()
        self.struck[name] = self.struck.get(name, 0) + 1
        self.town.keep_alive()

    def pause(self, longest: float) -> None:
        time.sleep(self.random.uniform(0.1, longest))

    def _kill(self, name: str) -> None:
        self.town.stack.kill(name)
        self.pause(2.0)

    def _watcher(self) -> None:
        self._kill(self.random.choice(self.town.watchers))

    def _worker(self) -> None:
        """One process of a run, if one is at work within some seconds."""
        deadline = time.monotonic() + 5
        while not (workers := run_workers(self.town.stack.processes["code"].pid)):
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
        self.pause(0.8)  # somewhere on its way
        with suppress(ProcessLookupError):
            os.kill(self.random.choice(workers), signal.SIGKILL)

    def _away(self, down: AbstractContextManager[None]) -> None:
        with down:
            self.pause(AWAY[1])

    def _cut(self, line: str) -> None:
        proxy = self.town.lines[line]
        proxy.refusing = self.random.random() < 0.5
        proxy.cut()
        self.pause(AWAY[1] if proxy.refusing else AWAY[0])
        proxy.refusing = False


def run_workers(code_server: int) -> list[int]:
    """The processes of runs: children of the fork server below the code server."""
    parents = _processes()
    below = _below(code_server, parents)
    servers = {pid for pid in below if b"forkserver" in _command(pid) and b"forkserver" not in _command(parents[pid])}
    return [pid for pid in below if parents[pid] in servers and b"resource_tracker" not in _command(pid)]


def _processes() -> dict[int, int]:
    """Parents by process."""
    found: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            pid = int(folder.name)
            found[pid] = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
    return found


def _below(root: int, parents: dict[int, int]) -> list[int]:
    found, waiting = [], [root]
    while waiting:
        parent = waiting.pop()
        children = [pid for pid, above in parents.items() if above == parent]
        found += children
        waiting += children
    return found


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


@contextmanager
def town(folder: Path, ports: tuple[int, int]) -> Iterator[Town]:
    """Servers and proxies are up; NOVA's programs are not started. Ends all of them; shows logs if it fails."""
    with ExitStack() as stack:
        postgres = stack.enter_context(TcpPostgres())
        made = stack.enter_context(created_databases(postgres.admin_url))
        dovecot = stack.enter_context(DovecotServer())
        user = dovecot.new_user()
        sink = stack.enter_context(SmtpSink(login=True))
        sink.user, sink.password = user.name, user.password
        lines = {
            "imap": stack.enter_context(Proxy(user.host, user.tls_port)),
            "smtp": stack.enter_context(Proxy(sink.host, sink.port)),
            "database": stack.enter_context(Proxy("127.0.0.1", postgres.port)),
        }
        names = {kind: url.partition("@/")[2].partition("?")[0] for kind, url in made.items()}
        urls = {
            kind: f"postgresql://{name}:{PASSWORD}@127.0.0.1:{lines['database'].port}/{name}"
            for kind, name in names.items()
        }
        nova = Stack(folder, urls, ports)
        made_town = Town(nova, dovecot, postgres, user, sink, lines)
        try:
            yield made_town
        except BaseException:
            sys.stderr.write(nova.logs())
            raise
        finally:
            nova.stop()
