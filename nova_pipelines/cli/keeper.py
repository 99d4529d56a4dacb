"""Runs one program and ends its whole family with it: `python -m nova_pipelines.cli.keeper PARENT PROGRAM …`.

Standard library only: it stays in memory beside the program. PARENT is a process that it must not outlive
(0: none). On SIGTERM, SIGINT or SIGHUP, or when PARENT is gone, everything that the program ever started is
ended: politely, then by SIGKILL.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from pathlib import Path

from nova_pipelines.adapters import life_lock

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
#: seconds between "please end" and SIGKILL; and between looks at the parent where the kernel does not tell
GRACE_SECONDS, LOOK_SECONDS = 5.0, 1.0
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_LINUX = sys.platform == "linux"


class Signals:
    """Waits for signals without polling: handlers only write into a pipe."""

    def __init__(self, *numbers: signal.Signals) -> None:
        self._read, write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(write, False)
        self._before = [(number, signal.signal(number, lambda *_: None)) for number in numbers]
        self._wakeup = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._write = write

    def wait(self, seconds: float) -> set[int]:
        """The signals that came, at most after `seconds`."""
        with contextlib.suppress(InterruptedError):
            select.select([self._read], [], [], seconds)
        try:
            return set(os.read(self._read, 512))
        except BlockingIOError:
            return set()

    def close(self) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before:
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)


def prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def main(arguments: list[str]) -> int:
    """Runs the program to its end, or to a signal; returns its exit code (0 when it was asked to stop)."""
    parent, program = int(arguments[0]), arguments[1:]
    if parent:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    # orphans of the program, such as run workers of a code server that died, become children of this process
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    signals = Signals(*STOP_SIGNALS, signal.SIGCHLD)
    child = _start(program)
    code: int | None = None
    while code is None:
        if parent and os.getppid() != parent:
            break  # it died, perhaps before the kernel knew whom to tell
        if signals.wait(LOOK_SECONDS).intersection(STOP_SIGNALS):
            break
        code = _reap().get(child)
    end_family(signals)
    return 0 if code is None else code


def _start(program: list[str]) -> int:
    lock = _life_lock()
    child = os.fork()
    if child:
        if lock is not None:
            os.close(lock)  # the program alone holds it
        return child
    try:
        if lock is not None:
            os.set_inheritable(lock, True)
        signal.set_wakeup_fd(-1)
        for number in (*STOP_SIGNALS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        os.execv(program[0], program)  # noqa: S606 - what `nova serve` asked for, without a shell
    except OSError as error:
        sys.stderr.write(f"{program[0]} cannot be started: {error}\n")
    finally:
        os._exit(127)


def _life_lock() -> int | None:
    """What shows others that the program lives. It starts without, too: they look at its heartbeats then."""
    path = os.environ.pop(life_lock.VARIABLE, "")
    try:
        return life_lock.take(Path(path)) if path else None
    except OSError as error:
        sys.stderr.write(f"{path} cannot be locked: {error}\n")
        return None


def _reap() -> dict[int, int]:
    """The children that ended, with their exit codes (128 + n after signal n)."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        code = os.waitstatus_to_exitcode(status)
        ended[pid] = code if code >= 0 else 128 - code


def end_family(signals: Signals, *, grace: float = GRACE_SECONDS) -> None:
    """Ends all descendants of this process, those that daemonised themselves too."""
    deadline = time.monotonic() + grace
    asked: set[int] = set()
    while family := _living():
        late = time.monotonic() > deadline
        for pid in family if late else family - asked:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= family
        if time.monotonic() > deadline + grace:
            return  # what even SIGKILL does not end is stuck in the kernel
        signals.wait(0.1)


def _living() -> set[int]:
    _reap()
    return descendants(os.getpid())


def descendants(ancestor: int) -> set[int]:
    """All processes below `ancestor` that are not zombies."""
    below: dict[int, list[int]] = {}
    zombies: set[int] = set()
    for pid, (parent, state) in _processes().items():
        below.setdefault(parent, []).append(pid)
        if state.startswith("Z"):
            zombies.add(pid)
    found: set[int] = set()
    todo = [ancestor]
    while todo:
        for pid in below.get(todo.pop(), []):
            found.add(pid)
            todo.append(pid)
    return found - zombies


def _processes() -> dict[int, tuple[int, str]]:
    """pid → (parent's pid, state) of every process that can be seen."""
    if not _LINUX:
        with os.popen("ps -axo pid=,ppid=,stat=") as output:  # noqa: S605, S607 - a constant
            rows = [line.split() for line in output]
        return {int(pid): (int(parent), state) for pid, parent, state in rows}
    found: dict[int, tuple[int, str]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                # "pid (name) state ppid …": the name may hold blanks and brackets
                state, parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
                found[int(folder.name)] = (int(parent), state)
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
