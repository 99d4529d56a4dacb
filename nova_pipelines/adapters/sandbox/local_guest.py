"""What one local guest takes from the host and gives back: a uid, the seccomp program, a control group."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from nova_pipelines.adapters.sandbox import bubblewrap, cgroup, seccomp
from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.adapters.sandbox.bubblewrap import Descriptors, Slot
from nova_pipelines.domain.errors import TransientError

PROCESSES = 64
INFO_BYTES = 4096


class Guest:
    """One start of bubblewrap. Raises ConfigurationError when it is missing, TransientError when no uid is free."""

    def __init__(self, *, network: bool, tmp_bytes: int, preload: Sequence[str]) -> None:
        self._network, self._tmp_bytes, self._preload = network, tmp_bytes, preload
        self._bwrap = bubblewrap.bwrap_path()
        program = seccomp.program()
        self._slot = bubblewrap.take_slot()
        self._seccomp = _file_of(program)
        self._group: cgroup.Group | None = None
        self._pipe: tuple[int, int] | None = None
        try:
            # the zygote and its threads come on top of what a job may have
            self._group = cgroup.new_group(PROCESSES + 8)
            self._pipe = os.pipe()
        except cgroup.Unavailable:  # a capability, never required: `check` tells it
            self._group = None

    @staticmethod
    def description(tmp_bytes: int, preload: Sequence[str]) -> str:
        """All that decides about the protection, as text: command line (without what differs from start to
        start) and seccomp program."""
        slot = Slot(bubblewrap.FIRST_UID if os.getuid() == 0 else None)
        bwrap = bubblewrap.bwrap_path()
        descriptors = Descriptors(control=0, seccomp=0)
        command = bubblewrap.command(
            bwrap, slot, network=False, tmp_bytes=tmp_bytes, preload=preload, descriptors=descriptors
        )
        return json.dumps([command, bwrap.stat().st_mtime_ns, bwrap.stat().st_size, seccomp.program().hex()])

    @property
    def fds(self) -> list[int]:
        """For the child beside its control channel."""
        return [self._seccomp, *([self._pipe[1]] if self._pipe else [])]

    def command(self, control: int) -> list[str]:
        return bubblewrap.command(
            self._bwrap,
            self._slot,
            network=self._network,
            tmp_bytes=self._tmp_bytes,
            preload=self._preload,
            descriptors=Descriptors(control, self._seccomp, self._pipe[1] if self._pipe else None),
        )

    def ready(self) -> None:
        """Puts the zygote into the group: nothing of a user has run in it yet, and all jobs are its forks."""
        if self._group and self._pipe:
            pid = json.loads(os.read(self._pipe[0], INFO_BYTES))["child-pid"]
            try:
                self._group.take(pid)
            except OSError:  # the groups are ours, but not the way from our own group to them
                self._group.remove()
                self._group = None

    def before(self, job: Job) -> None:
        """Bounds the group for this job. Raises TransientError when the kernel refuses: then no job is started."""
        if self._group:
            try:
                self._group.bound(job.limits.memory_bytes + self._tmp_bytes + bubblewrap.SHM_BYTES)
            except OSError as error:
                raise TransientError(f"the group of the sandbox cannot be bounded: {error}") from error

    def release(self) -> None:
        for fd in (self._seccomp, *(self._pipe or ())):
            os.close(fd)
        self._slot.release()
        if self._group:
            self._group.remove()


def _file_of(data: bytes) -> int:
    """An anonymous file for one reader: bubblewrap reads it to its end."""
    fd = os.memfd_create("nova-seccomp", os.MFD_CLOEXEC)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
