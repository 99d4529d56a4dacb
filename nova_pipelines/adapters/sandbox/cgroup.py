"""A control group (version 2) for each guest, where this process may make one: bounds of the kernel for the sum of
its processes and their memory. Never required; where there is none, the reason is told."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

CONTROLLERS = {"memory", "pids"}
PREFIX = "nova-sandbox-"
#: for the zygote's own imports, which are charged to the group when a job asks for them
ZYGOTE_BYTES = 256 * 1024 * 1024
REMOVE_SECONDS = 5.0


class Unavailable(Exception):
    """No group can be made here; the text says why."""


@dataclass(frozen=True, slots=True)
class Group:
    """One guest's group, as its folder."""

    folder: Path

    def take(self, pid: int) -> None:
        """Moves a process in; what it starts from now on belongs to the group."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def bound(self, memory_bytes: int) -> None:
        """Of the next job, beside what the guest already holds; swap is none."""
        held = int((self.folder / "memory.current").read_text())
        (self.folder / "memory.max").write_text(str(held + memory_bytes + ZYGOTE_BYTES))

    def remove(self) -> None:
        """Kills what is left in it, and removes it. Raises OSError when the kernel does not let it go."""
        kill = self.folder / "cgroup.kill"
        if kill.exists():  # since Linux 5.14; the end of the PID namespace kills them too
            kill.write_text("1")
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            try:
                return self.folder.rmdir()
            except OSError:  # busy until the last one has ended
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.005)


def new_group(processes: int, *, proc: Path = Path("/proc/self")) -> Group:
    """A group for `processes` processes, beside or below the own one. Raises Unavailable."""
    parent = usable_parent(proc)
    sweep(parent)
    group = Group(parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}")
    try:
        group.folder.mkdir()
    except OSError as error:
        raise Unavailable(f"no group can be made in {parent}: {error.strerror}") from error
    try:
        (group.folder / "pids.max").write_text(str(processes))
        swap = group.folder / "memory.swap.max"
        if swap.exists():  # a kernel without swap has no such file
            swap.write_text("0")
    except OSError as error:
        group.remove()
        raise Unavailable(f"the bounds of {group.folder} cannot be set: {error.strerror}") from error
    return group


def usable_parent(proc: Path) -> Path:
    """The own group or its parent, whichever gives memory and pids to groups below it. Raises Unavailable."""
    mount, own = _mount(proc), _own(proc)
    folder = mount / own.lstrip("/")
    reasons = []
    for candidate in dict.fromkeys([folder, folder.parent if folder != mount else folder]):
        try:
            _enable(candidate)
            return candidate
        except Unavailable as error:
            reasons.append(str(error))
    raise Unavailable("; ".join(reasons))


def _mount(proc: Path) -> Path:
    """Where cgroup2 is mounted (proc(5), mountinfo: fields before and after the hyphen)."""
    for line in (proc / "mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.split()[0] == "cgroup2":
            return Path(fields.split()[4].replace("\\040", " "))
    raise Unavailable("cgroup version 2 is not mounted")


def _own(proc: Path) -> str:
    for line in (proc / "cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line.removeprefix("0::")
    raise Unavailable("this process is in no group of cgroup version 2")


def _enable(folder: Path) -> None:
    """Sees to it that groups made in `folder` have the controllers. Raises Unavailable."""
    try:
        there = set((folder / "cgroup.controllers").read_text().split())
        given = set((folder / "cgroup.subtree_control").read_text().split())
        if missing := CONTROLLERS - there:
            raise Unavailable(f"{folder} has no controller {' and '.join(sorted(missing))} (version 1 may hold it)")
        if not os.access(folder, os.W_OK):
            raise Unavailable(f"{folder} is not writable")
        if CONTROLLERS - given:
            (folder / "cgroup.subtree_control").write_text("+memory +pids")
    except OSError as error:
        raise Unavailable(f"{folder} is not delegated to this user: {error.strerror}") from error


def sweep(parent: Path) -> None:
    """Removes the groups of processes that were killed before they could do it; their guests died with them."""
    for folder in itertools.islice(parent.glob(f"{PREFIX}*"), 100):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            try:
                folder.rmdir()
            except OSError:  # another one was quicker, or its owner lives in another PID namespace
                continue
