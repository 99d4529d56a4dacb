"""The battery: what hostile node code may try, one table of named checks, run in one session with an ordinary job
after each. `battery` says what got through; the tests run it as root, as another user, and against weak sandboxes."""

from __future__ import annotations

import secrets
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from nova_pipelines.adapters.sandbox import seccomp
from nova_pipelines.adapters.sandbox.base import Job, Limits, Outcome, Status
from nova_pipelines_tests.adapters.sandbox.escape_code import ANSWERS, BOMBS, PRELUDE, PROBES

BOUNDS = {"wall_seconds": 20.0, "cpu_seconds": 20.0, "memory_bytes": 256 * 1024 * 1024, "disk_bytes": 8 * 1024 * 1024}
#: after an attack an ordinary job must come back within this time, however slow the machine
PATIENCE_MS = 15_000
TRIVIAL = """
import os
context["sum"] = 1 + 1
context["processes"] = sum(name.isdigit() for name in os.listdir("/proc"))
context["left"] = sorted(n for n in os.listdir("/tmp") + os.listdir("/dev/shm") if not n.startswith("job-"))
"""


@dataclass(frozen=True, slots=True)
class Check:
    """`statuses`: what must become of the job. OK means a probe, which says itself whether it was held."""

    name: str
    code: str
    statuses: frozenset[Status] = frozenset({Status.OK})
    limits: dict[str, float] = field(default_factory=dict)


def all_checks() -> list[Check]:
    bad = frozenset({Status.BAD_RESULT, Status.RESOURCE})
    return [
        *(Check(name, code) for name, code in PROBES.items()),
        *(Check(name, code, frozenset(map(Status, words)), limits) for name, words, limits, code in BOMBS),
        *(Check(f"result: {name}", f"answer({code})", bad) for name, code in ANSWERS.items()),
    ]


class Host:
    """What an attack may aim at: a file, sockets, a process with a secret in its environment."""

    def __init__(self, stack: ExitStack) -> None:
        self.secret = secrets.token_hex(16)
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (self.folder / "secret").write_text(self.secret)
        self.tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        self.udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.udp.bind(("127.0.0.1", 0))
        self.udp.setblocking(False)
        for name in (f"\0{self.secret}", str(self.folder / "socket")):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(name)
            listener.listen()
        waiting = [sys.executable, "-c", "import sys; sys.stdin.read()", self.secret]
        self.victim = stack.enter_context(subprocess.Popen(waiting, stdin=subprocess.PIPE, env={"S": self.secret}))
        stack.callback(self.victim.kill)

    def target(self) -> dict[str, object]:
        calls = {name: number for name, number in seccomp.numbers().items() if isinstance(number, int)}
        return {
            "secret": self.secret,
            "files": [
                str(self.folder / "secret"),
                __file__,
                "/etc/shadow",
                "/etc/passwd",
                str(Path("/", "root", ".ssh")),
                "/var/log",
            ],
            "tcp": self.tcp.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "path": str(self.folder / "socket"),
            "victim": self.victim.pid,
            "calls": calls,
        }

    def harmed(self) -> str | None:
        """What an attack did out here, whatever it says of itself."""
        if self.victim.poll() is not None:
            return "killed a process of the host"
        try:
            return f"reached the host by UDP: {self.udp.recv(100)!r}"
        except BlockingIOError:
            return None


def battery(sandbox, checks: Iterable[Check] | None = None) -> dict[str, str]:
    """Runs the checks in one session; gives those that got through, or harmed the next job, each with its reason."""
    failures = {}
    with ExitStack() as stack:
        host = Host(stack)
        session = stack.enter_context(sandbox.untested_session())
        untouched = session.run(Job(code=TRIVIAL)).result
        for check in all_checks() if checks is None else checks:
            job = Job(
                code=PRELUDE + textwrap.dedent(check.code),
                context={"ask": host.target()},
                limits=Limits(**{**BOUNDS, **check.limits}),
            )
            reason = (
                _fault(check, session.run(job)) or host.harmed() or _harm(session.run(Job(code=TRIVIAL)), untouched)
            )
            if reason:
                failures[check.name] = reason
    return failures


def _fault(check: Check, outcome: Outcome) -> str | None:
    if outcome.status not in check.statuses:
        return f"became {outcome.status}: {outcome.error} {outcome.result} {outcome.stderr[-500:]}"
    if outcome.status is Status.OK and not (outcome.result or {}).get("held"):
        return f"got through: {outcome.result}"
    if len(outcome.stdout) > Limits().output_bytes:
        return "wrote more output than allowed"
    return None


def _harm(outcome: Outcome, untouched: dict | None) -> str | None:
    if not outcome.ok or outcome.result != untouched:
        return f"harmed the next job: {outcome.status} {outcome.error} {outcome.result}"
    if outcome.wall_ms > PATIENCE_MS:
        return f"made the next job take {outcome.wall_ms:.0f} ms"
    return None
