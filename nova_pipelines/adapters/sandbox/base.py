"""The sandbox as the rest of the project sees it: a session that runs many jobs, whatever the backend.

A job gets JSON and bytes in and gives JSON out; nothing of the host is visible inside. Backends: `local`
(bubblewrap), `e2b` (cloud), `unsafe_subprocess` (no protection, only when asked for by name).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, Protocol, Self


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one job. Bytes and seconds."""

    wall_seconds: float = 60.0
    cpu_seconds: float = 60.0
    memory_bytes: int = 1024 * 1024 * 1024
    disk_bytes: int = 64 * 1024 * 1024
    output_bytes: int = 256 * 1024  # stdout and stderr, each; more is cut
    result_bytes: int = 8 * 1024 * 1024  # JSON of the result; more fails the job


class Task(StrEnum):
    """What the guest does with a job."""

    CODE = "code"  # exec(`code`) with the dict `context`; result: the context it leaves
    PDF_TEXT = "pdf_text"  # files["document.pdf"] → {"pages": [text, …], "page_count": n, "method": "pypdfium2"}
    #: files["document.pdf"], context {"page": n from 0, "pixels": of the longer side, "find": {name: [line, words]}} →
    #: {"png": base64, "width", "height", "page_count", "boxes": {name: [left, top, right, bottom] as parts of 1}}
    PDF_PAGE = "pdf_page"
    PDF_WORDS = "pdf_words"  # files["document.pdf"] → pages of words with places (pdfplumber)


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work. `context` is plain JSON; `files` are written into the job's folder by base name."""

    task: Task = Task.CODE
    code: str = ""
    context: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


class Status(StrEnum):
    OK = "ok"
    CODE_ERROR = "code_error"  # the code raised, has a syntax error, or left no dict
    TIMEOUT = "timeout"  # wall or CPU limit reached; everything of the job was killed
    RESOURCE = "resource"  # killed by memory, disk or process limits, or too big a result
    BAD_RESULT = "bad_result"  # the result is not clean JSON (NaN, depth, NUL …)
    CRASHED = "crashed"  # the guest ended without a result (a signal, os._exit)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job. `error` is one readable paragraph, with the line in the user's code if known."""

    status: Status
    result: dict[str, Any] | None
    stdout: str
    stderr: str
    stdout_truncated: bool
    stderr_truncated: bool
    exit_code: int | None
    error: str | None
    wall_ms: float
    sandbox_id: str
    backend: str
    #: seconds of the sandbox's life since its last job (or its start) until the end of this one: what a backend
    #: that bills by its life bills for this job, waiting included; and their estimated price in 10⁻⁹ US dollars
    sandbox_seconds: float = 0.0
    cost_nano_usd: int = 0

    @property
    def ok(self) -> bool:
        return self.status is Status.OK


class SandboxSession(Protocol):
    """One life of a sandbox; every job in it runs in a fresh process. Leave it by `with` or `close`."""

    def run(self, job: Job) -> Outcome:
        """Runs one job. User faults come back as an Outcome; raises TransientError, OutcomeUnknown or
        PermanentError only for faults of the infrastructure."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Sandbox(Protocol):
    """A backend."""

    name: str

    def session(
        self, *, network: bool = False, life_seconds: float = 3600.0, metadata: Mapping[str, str] | None = None
    ) -> SandboxSession:
        """Starts a session. Raises TransientError when the backend is busy, ConfigurationError when it
        cannot work here (the message names the alternatives)."""
        ...

    def check(self) -> list[str]:
        """Self-test: the capabilities in force, as short lines. Raises ConfigurationError when the
        protection does not hold here."""
        ...
