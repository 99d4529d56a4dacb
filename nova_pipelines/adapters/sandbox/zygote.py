"""The host's side of a zygote: starts it, hands it jobs by file descriptor, collects capped bytes. Knows
nothing of isolation: a `Launcher` says how the guest is started."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from nova_pipelines.adapters.sandbox.base import Job, Outcome, Task
from nova_pipelines.adapters.sandbox.guest.main import Capped
from nova_pipelines.adapters.sandbox.results import ENVELOPE_BYTES, JOB_FILES, Raw, outcome_of, pack
from nova_pipelines.domain.errors import ConfigurationError, NovaError, TransientError

START_SECONDS = 30.0
#: what the keeper may need beyond a job's wall time: heavy imports, killing, cleaning
GRACE_SECONDS = 20.0
CLOSE_SECONDS = 5.0
JOBS_BEFORE_RENEWAL = 1000
CONTROL_BYTES = 64 * 1024
#: imported by the zygote itself, once, when a job's code names them: a fork then has them for nothing
HEAVY_PACKAGES = re.compile(r"\b(?:pandas|numpy|pdfplumber)\b")
#: `import x, y as z`, all of it; of `from x.y import …` the x
IMPORTS = re.compile(r"^[ \t]*(?:import[ \t]([^#\n]*)|from[ \t]+(\w+))", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Launcher:
    """How one guest is started, and what must be given back after it."""

    backend: str
    command: Callable[[int], list[str]]  # from the number of the control descriptor
    environment: dict[str, str]
    processes: int | None
    explain: Callable[[str], NovaError]  # from the start's stderr
    release: Callable[[], None] = field(default=lambda: None)
    fds: Sequence[int] = ()  # descriptors that the command needs beside the control channel
    ready: Callable[[], None] = field(default=lambda: None)  # called once, before the first job
    before: Callable[[Job], None] = field(default=lambda _: None)  # called before each job


class Frame(BaseModel):
    """What the keeper says: ready for a job, or how a job ended."""

    model_config = ConfigDict(strict=True, extra="forbid")

    ready: bool = False
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    cpu_seconds: float = 0.0
    exceeded: Literal["memory", "cpu", "disk", "files"] | None = None


class ZygoteEnded(Exception):
    """The control channel is closed: the guest is gone."""


class ZygoteProcess:
    """One living guest. `sandbox_id` is its process id on the host."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.jobs = 0
        self._ready = False
        self._inbox = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the guest, see close()
        self._control, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - the launcher's own fixed command
                    launcher.command(theirs.fileno()),
                    env=launcher.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    pass_fds=[theirs.fileno(), *launcher.fds],
                    cwd="/",
                    start_new_session=True,
                )
            except BaseException as error:
                self._control.close()
                self._errors.close()
                launcher.release()
                if isinstance(error, OSError):
                    raise launcher.explain(str(error)) from error
                raise
        self.sandbox_id = f"{launcher.backend}-{self._process.pid}"

    def wait_ready(self, seconds: float) -> None:
        """Until the guest has cleaned up and takes a job. Raises ZygoteEnded."""
        if not self._ready:
            self._receive(time.monotonic() + seconds)
            self._ready = True

    def start_errors(self) -> str:
        self._errors.seek(0)
        return self._errors.read(4000).decode("utf-8", "replace").strip()

    def run(self, job: Job, blob: bytes) -> Raw:
        """Runs one job to its report. Never raises for what the guest does; `Raw.died` when it is gone."""
        caps = (job.limits.result_bytes + ENVELOPE_BYTES, job.limits.output_bytes, job.limits.output_bytes)
        pipes = [os.pipe() for _ in caps]
        readers = [Capped(reading, cap) for (reading, _), cap in zip(pipes, caps, strict=True)]
        self._ready = False
        self.jobs += 1
        report = None
        deadline = time.monotonic() + job.limits.wall_seconds + GRACE_SECONDS
        try:
            self._hand_over(job, blob, [writing for _, writing in pipes])
            report = self._collect(readers, deadline)
        except ZygoteEnded:
            self.kill()
        finally:
            parts = [reader.drain() for reader in readers]
            for reader in readers:
                os.close(reader.fd)
        return _raw_of(report, parts, readers, overdue=time.monotonic() >= deadline)

    def _hand_over(self, job: Job, blob: bytes, writing: list[int]) -> None:
        """Sends the job's descriptors; this side keeps none of them."""
        fds = [_sealed_file(blob), *writing]
        message = {
            "wall_seconds": job.limits.wall_seconds,
            "preload": packages_of(job),
            "memory_bytes": job.limits.memory_bytes,
            "cpu_seconds": job.limits.cpu_seconds,
            "disk_bytes": job.limits.disk_bytes + sum(map(len, job.files.values())),
            "files": JOB_FILES + len(job.files),
        }
        data = json.dumps(message).encode()
        try:
            socket.send_fds(self._control, [struct.pack(">I", len(data)) + data], fds)
        except OSError as error:
            raise ZygoteEnded from error
        finally:
            for fd in fds:
                os.close(fd)

    def _collect(self, readers: list[Capped], deadline: float) -> Frame:
        """Takes bytes from the job's pipes until the keeper reports its end."""
        poll = select.poll()
        control = self._control.fileno()
        by_fd = {reader.fd: reader for reader in readers}
        for fd in (control, *by_fd):
            poll.register(fd, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            for fd, _ in poll.poll(left * 1000 + 1):
                if fd == control:
                    return self._receive(deadline)
                if not by_fd[fd].read():
                    poll.unregister(fd)
        raise ZygoteEnded

    def _receive(self, deadline: float) -> Frame:
        """One frame of the control channel; only the keeper holds its other end."""
        while True:
            if len(self._inbox) >= 4:
                end = 4 + struct.unpack_from(">I", self._inbox)[0]
                if end > CONTROL_BYTES:
                    raise ZygoteEnded
                if len(self._inbox) >= end:
                    frame, self._inbox = self._inbox[4:end], self._inbox[end:]
                    return _parsed(frame)
            self._control.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                more = self._control.recv(CONTROL_BYTES)
            except OSError as error:  # a timeout is one too
                raise ZygoteEnded from error
            if not more:
                raise ZygoteEnded
            self._inbox += more

    def kill(self) -> None:
        self._process.kill()
        self.close()

    def close(self) -> None:
        """Hangs up: the keeper ends, and with it all its processes, mounts and files."""
        self._control.close()
        try:
            self._process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if not self._errors.closed:
            self._errors.close()
            self.launcher.release()


class ZygoteSession:
    """A session over zygotes: one, and a fresh one when it was used up or broken by a job."""

    def __init__(self, launch: Callable[[], Launcher]) -> None:
        self._launch = launch
        self._zygote: ZygoteProcess | None = None
        self._closed = False
        self._living()

    def _living(self) -> ZygoteProcess:
        """A guest that is ready. Raises ConfigurationError or TransientError when none can be started."""
        if self._closed:
            raise ConfigurationError("a closed sandbox session was used", remedy="open a new session")
        if self._zygote and self._zygote.jobs < JOBS_BEFORE_RENEWAL:
            try:
                self._zygote.wait_ready(GRACE_SECONDS)
                return self._zygote
            except ZygoteEnded:
                self._zygote.kill()
        elif self._zygote:
            self._zygote.close()
        self._zygote = None
        zygote = ZygoteProcess(self._launch())
        try:
            zygote.wait_ready(START_SECONDS)
            zygote.launcher.ready()
        except ZygoteEnded:
            said = zygote.start_errors()
            explain = zygote.launcher.explain
            zygote.kill()
            raise explain(said) from None
        except BaseException:
            zygote.kill()
            raise
        self._zygote = zygote
        return zygote

    def run(self, job: Job) -> Outcome:
        """See SandboxSession.run."""
        zygote = self._living()
        blob = pack(job, processes=zygote.launcher.processes)
        zygote.launcher.before(job)
        started = time.perf_counter()
        try:
            raw = zygote.run(job, blob)
        except BaseException:
            # an interrupt in the middle: the job must not live on
            self._zygote = None
            zygote.kill()
            raise
        if raw.died:
            self._zygote = None
        wall_ms = (time.perf_counter() - started) * 1000
        return outcome_of(job, raw, wall_ms=wall_ms, sandbox_id=zygote.sandbox_id, backend=zygote.launcher.backend)

    def close(self) -> None:
        self._closed = True
        if self._zygote:
            self._zygote.close()
            self._zygote = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def packages_of(job: Job) -> list[str]:
    """The packages that the zygote imports before the fork, if it has not yet."""
    if job.task in (Task.PDF_TEXT, Task.PDF_PAGE):
        return ["pypdfium2"]
    if job.task is Task.PDF_WORDS:
        return ["pdfplumber"]
    names = " ".join(several or one for several, one in IMPORTS.findall(job.code))
    return sorted(set(HEAVY_PACKAGES.findall(names)))


def _parsed(data: bytes) -> Frame:
    """A frame of the keeper. One that is not as it writes them means that it is no longer itself."""
    try:
        return Frame.model_validate_json(data)
    except ValidationError as error:
        raise ZygoteEnded from error


def _raw_of(report: Frame | None, parts: list[bytes], readers: list[Capped], *, overdue: bool) -> Raw:
    """From the keeper's report (None: it is gone) and the three streams."""
    answer, stdout, stderr = parts
    return Raw(
        answer=answer,
        stdout=stdout,
        stderr=stderr,
        answer_truncated=readers[0].truncated,
        stdout_truncated=readers[1].truncated,
        stderr_truncated=readers[2].truncated,
        exit_code=report.exit_code if report else None,
        signal=report.signal if report else None,
        timed_out=report.timed_out if report else overdue,
        cpu_seconds=report.cpu_seconds if report else 0.0,
        exceeded=report.exceeded if report else None,
        died=report is None,
    )


def _sealed_file(blob: bytes) -> int:
    """The job as an anonymous file: nothing on a disk, and on Linux unchangeable for the job."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as stream:
            stream.write(blob)
            stream.flush()
            return os.dup(stream.fileno())
    import fcntl

    fd = os.memfd_create("nova-job", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    view = memoryview(blob)
    while view:
        view = view[os.write(fd, view) :]
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def busy(said: str) -> TransientError | None:
    """A start that failed only for want of processes or memory may succeed later."""
    if "Resource temporarily unavailable" in said or "Cannot allocate memory" in said:
        return TransientError(f"the sandbox could not be started now: {said}")
    return None
