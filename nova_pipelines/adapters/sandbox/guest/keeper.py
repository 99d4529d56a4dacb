"""Keeps one job: forks it, waits, and kills everything that it started. Needs no trust in the job."""

# plain os calls: a fork should touch as little memory as it can
# ruff: noqa: PTH102, PTH123, PTH208

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import sys
import time
import traceback

from .gauge import INTERVAL_SECONDS, Gauge
from .job import child

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38
#: opened once, not in every fork: there each page that is touched is a fault, and often a copy
LIBC = ctypes.CDLL(None, use_errno=True)


def spawn(fds: list[int], folder: str) -> int:
    """Forks one job: descriptors of the job, its result, stdout and stderr; a fresh working folder."""
    os.mkdir(folder, 0o700)
    pid = os.fork()
    if pid:
        for fd in fds:
            os.close(fd)
        return pid
    try:
        if os.getppid() != 1:  # under PID 1 the kernel sees to it
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        else:
            prctl(PR_SET_DUMPABLE, 1)  # the gauge may see how much memory is this process' own
        child(fds, folder)
    except BaseException:  # noqa: BLE001 - nothing may unwind into the zygote's loop
        traceback.print_exc()
    finally:
        os._exit(70)


def watch(pid: int, seconds: float, readers: dict, gauge: Gauge | None = None) -> dict:
    """Waits for the end of `pid`, at most `seconds`; then kills all that it left. Gives the report.

    `readers`: fd → function called when it can be read; returns False when done with it. With a `gauge` the
    report says in `exceeded` which bound of the whole job was the reason to kill it.
    """
    deadline = time.monotonic() + seconds
    poll = select.poll()
    step = INTERVAL_SECONDS * 1000 if gauge else 1e6
    exceeded = None
    ended = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else -1
    for fd in (*readers, ended):
        if fd >= 0:
            poll.register(fd, select.POLLIN)
    done, status, usage = os.wait4(pid, os.WNOHANG)
    while not done and not exceeded and (left := deadline - time.monotonic()) > 0:
        # where there is no pidfd (macOS) the child is asked for every 10 ms
        for fd, _ in poll.poll(min(left * 1000 + 1, step) if ended >= 0 else 10):
            if fd != ended and not readers[fd]():
                poll.unregister(fd)
        done, status, usage = os.wait4(pid, os.WNOHANG)
        exceeded = gauge.exceeded() if gauge and not done else None
    if not done:
        kill_all(pid, reap=False)
        _, status, usage = os.wait4(pid, 0)
    kill_all(pid, reap=True)
    if ended >= 0:
        os.close(ended)
    code = os.waitstatus_to_exitcode(status)
    return {
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "timed_out": not done and not exceeded,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        **({"exceeded": exceeded} if gauge else {}),
    }


def kill_all(pid: int, reap: bool) -> None:
    """Kills everything a job started, daemons too: all of the PID namespace, or all descendants."""
    while True:
        group = [-pid] if pid else []
        victims = [-1] if os.getpid() == 1 else [*group, *descendants()]
        alive = False
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
                alive = True
            except ProcessLookupError:
                continue
            except PermissionError:  # not ours (sudo in a cloud VM), or a group of zombies (macOS)
                continue
        if not alive or not reap:
            return
        try:
            while os.waitpid(-1, 0 if os.getpid() == 1 else os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return


def descendants() -> list[int]:
    """Processes below this one; with PR_SET_CHILD_SUBREAPER daemons stay below it."""
    if sys.platform != "linux":
        return []
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    parent = int(stream.read().rpartition(b")")[2].split()[1])
            except OSError:
                continue
            below.setdefault(parent, []).append(int(name))
    found, todo = [], [os.getpid()]
    while todo:
        more = below.get(todo.pop(), [])
        found += more
        todo += more
    return found


def drop_capabilities() -> None:
    """All sets of capset(2): a change of uid leaves the inheritable one as it was."""
    header, none = struct.pack("=Ii", 0x20080522, 0), bytes(24)
    if LIBC.capset(header, none) != 0:
        raise OSError(ctypes.get_errno(), "capset failed")


def prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value}) failed")
