"""Measures what all processes of a job use together: limits of the kernel bound one process or one file. Works as
PID 1 of a PID namespace, where all that can be seen belongs to the job."""

# plain os calls: a fork should touch as little memory as it can
# ruff: noqa: PTH123, PTH208

from __future__ import annotations

import os
import resource
import time

#: how much a job can overshoot: what it can take in this time
INTERVAL_SECONDS = 0.05
#: fields of /proc/PID/stat after the name, see proc(5): utime, stime, cutime, cstime; rss
CPU_FIELDS, RSS_FIELD = slice(11, 15), 21
TICKS = os.sysconf("SC_CLK_TCK")


class Gauge:
    """Bounds of one job: `memory_bytes`, `cpu_seconds`, `disk_bytes`, `files` (and folders), in the `places`."""

    def __init__(self, bounds: dict, places: list[str]) -> None:
        self.cpu_seconds = bounds["cpu_seconds"]
        self.disk_bytes = bounds["disk_bytes"]
        self.files = bounds["files"]
        # a fork begins with all that the zygote has
        self.memory_bytes = bounds["memory_bytes"] + measure("1")[0]
        self.places = places
        self.before = disk_use(places)
        self.due = time.monotonic() + INTERVAL_SECONDS

    def exceeded(self) -> str | None:
        """`memory`, `cpu`, `disk` or `files` when there is too much of it; looks once in INTERVAL_SECONDS."""
        if time.monotonic() < self.due:
            return None
        word = self.look()
        self.due = time.monotonic() + INTERVAL_SECONDS
        return word

    def look(self) -> str | None:
        disk, files = (now - then for now, then in zip(disk_use(self.places), self.before, strict=True))
        if disk > self.disk_bytes + files * resource.getpagesize():  # each file is rounded up to whole pages
            return "disk"
        if files > self.files:
            return "files"
        pids = [name for name in os.listdir("/proc") if name.isdigit() and name != "1"]
        uses = [measure(pid) for pid in pids]
        if sum(cpu for _, cpu in uses) > self.cpu_seconds:
            return "cpu"
        # counted as if nothing were shared, it is quick; only when that is too much, it is worth an exact look
        if sum(memory for memory, _ in uses) > self.memory_bytes and self.exact(pids) > self.memory_bytes:
            return "memory"
        return None

    def exact(self, pids: list[str]) -> int:
        """Bytes of memory, pages shared by n processes counted as 1/n for each."""
        return sum(proportional(pid) for pid in pids)


def measure(pid: str) -> tuple[int, float]:
    """Resident bytes and CPU seconds (with those of its ended children); zeros when it has ended."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0.0
    return int(fields[RSS_FIELD]) * resource.getpagesize(), sum(int(ticks) for ticks in fields[CPU_FIELDS]) / TICKS


def proportional(pid: str) -> int:
    """The process' share of its pages; all of them if the kernel does not tell, or the process hides it."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as stream:
            for line in stream:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return measure(pid)[0]
    return 0  # it has ended: no memory is left


def disk_use(places: list[str]) -> tuple[int, int]:
    """Bytes and files in memory file systems."""
    seen = [os.statvfs(place) for place in places]
    return sum((s.f_blocks - s.f_bfree) * s.f_frsize for s in seen), sum(s.f_files - s.f_ffree for s in seen)
