"""The host's side of a job's file and of its answer. Everything that comes out of a sandbox is hostile here:
bytes are capped before this module sees them, parsed strictly and walked (`clean_json`) before anybody uses them."""

from __future__ import annotations

import json
import signal
import struct
from dataclasses import dataclass
from typing import Any

from nova_pipelines.adapters.sandbox.base import Job, Limits, Outcome, Status, Task
from nova_pipelines.adapters.sandbox.clean_json import UncleanError, parse_clean
from nova_pipelines.domain.errors import ConfigurationError, PermanentError

#: room for the envelope around a result
ENVELOPE_BYTES = 64 * 1024
#: files and folders that a job may make: each costs about 1 KB of the kernel's memory
JOB_FILES = 20_000
MAX_ERROR = 4000
#: what a guest may say of its own job; the rest (timeout, crash) is for the keeper to see
GUEST_STATUSES = {Status.CODE_ERROR, Status.RESOURCE, Status.BAD_RESULT}


@dataclass(frozen=True, slots=True)
class Raw:
    """What a backend brings back of a job. `died`: the sandbox itself ended under it."""

    answer: bytes = b""
    stdout: bytes = b""
    stderr: bytes = b""
    answer_truncated: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    cpu_seconds: float = 0.0
    exceeded: str | None = None  # the bound that all processes of the job broke together, see guest/gauge.py
    died: bool = False


def pack(job: Job, *, processes: int | None) -> bytes:
    """The job as one file (format: `guest/__init__.py`).

    Raises PermanentError when the context is not JSON or a file's name is not a plain base name.
    """
    try:
        context = json.dumps(dict(job.context), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(f"the context of a sandbox job is not JSON: {error}") from error
    for name in job.files:
        if not name or name in {".", ".."} or "/" in name or "\x00" in name or len(name.encode()) > 200:
            raise PermanentError(f"{name!r} is no name for a file in a sandbox", remedy="use a plain file name")
    header = json.dumps(
        {
            "task": str(job.task),
            "code": job.code,
            "context_size": len(context),
            "files": [[name, len(data)] for name, data in job.files.items()],
            "processes": processes,
            "wall_seconds": job.limits.wall_seconds,
            "cpu_seconds": job.limits.cpu_seconds,
            "memory_bytes": job.limits.memory_bytes,
            "disk_bytes": job.limits.disk_bytes,
            "output_bytes": job.limits.output_bytes,
            "result_bytes": job.limits.result_bytes,
        }
    ).encode()
    return b"".join([struct.pack(">I", len(header)), header, context, *job.files.values()])


def outcome_of(
    job: Job,
    raw: Raw,
    *,
    wall_ms: float,
    sandbox_id: str,
    backend: str,
    sandbox_seconds: float | None = None,
    cost_nano_usd: int = 0,
) -> Outcome:
    """Judges what came back. Of a sandbox that nobody bills, the job's own seconds count.

    Raises ConfigurationError when the sandbox lacks a package of ours.
    """
    status, result, error = _judge(job, raw)
    return Outcome(
        status=status,
        result=result,
        stdout=_text(raw.stdout),
        stderr=_text(raw.stderr),
        stdout_truncated=raw.stdout_truncated,
        stderr_truncated=raw.stderr_truncated,
        exit_code=raw.exit_code,
        error=error,
        wall_ms=wall_ms,
        sandbox_id=sandbox_id,
        backend=backend,
        sandbox_seconds=wall_ms / 1000 if sandbox_seconds is None else sandbox_seconds,
        cost_nano_usd=cost_nano_usd,
    )


def _text(data: bytes) -> str:
    """Output as text that any database takes."""
    return data.decode("utf-8", "replace").replace("\x00", "\ufffd")


Judgement = tuple[Status, dict[str, Any] | None, str | None]


def _judge(job: Job, raw: Raw) -> Judgement:
    limits = job.limits
    if raw.timed_out:
        return Status.TIMEOUT, None, f"ran longer than {limits.wall_seconds:g} s and was killed"
    if raw.died:
        return Status.CRASHED, None, "the sandbox itself ended during the job"
    if raw.exceeded:
        return _judge_sum(raw.exceeded, limits)
    cpu_spent = raw.cpu_seconds >= limits.cpu_seconds
    if raw.signal == signal.SIGXCPU or (raw.signal == signal.SIGKILL and cpu_spent):
        return Status.TIMEOUT, None, f"used more than {limits.cpu_seconds:g} s of CPU and was killed"
    if raw.answer_truncated:
        return Status.RESOURCE, None, f"the result is larger than {limits.result_bytes} bytes"
    if not raw.answer:
        return _judge_silence(raw)
    return _judge_answer(job.task, raw.answer)


def _judge_sum(exceeded: str, limits: Limits) -> Judgement:
    """Of all processes and files of the job together."""
    if exceeded == "cpu":
        return Status.TIMEOUT, None, f"used more than {limits.cpu_seconds:g} s of CPU and was killed"
    said = {
        "memory": f"used more than {limits.memory_bytes} bytes of memory in all its processes",
        "disk": f"wrote more than {limits.disk_bytes} bytes of files",
        "files": f"made more than {JOB_FILES} files and folders",
    }
    return Status.RESOURCE, None, f"{said[exceeded]} and was killed"


def _judge_silence(raw: Raw) -> Judgement:
    if raw.signal == signal.SIGKILL:
        return Status.RESOURCE, None, "was killed by the system, most likely for its memory"
    if raw.signal is not None:
        name = signal.Signals(raw.signal).name if raw.signal in list(signal.Signals) else str(raw.signal)
        return Status.CRASHED, None, f"ended by the signal {name}, without a result"
    return Status.CRASHED, None, f"ended with exit code {raw.exit_code}, without a result"


def _judge_answer(task: Task, answer: bytes) -> Judgement:
    try:
        envelope = parse_clean(answer)
    except UncleanError as fault:
        return Status.BAD_RESULT, None, str(fault)
    word = envelope.get("status")
    if word == "ok":
        result = envelope.get("result")
        if not isinstance(result, dict):
            return Status.BAD_RESULT, None, "the result is no JSON object"
        return Status.OK, result, None
    error = envelope.get("error")
    message = error.replace("\x00", "\ufffd")[:MAX_ERROR] if isinstance(error, str) else "no reason given"
    if word == "missing_package" and task is not Task.CODE:  # where code of a user can forge it, it means nothing
        raise ConfigurationError(
            f"the sandbox lacks a package that NOVA needs there: {message}",
            remedy="install it in NOVA's environment, or into the E2B template named by E2B_TEMPLATE_ID",
        )
    if word in GUEST_STATUSES:
        return Status(word), None, message
    return Status.BAD_RESULT, None, "the result is not in the form that NOVA's guest writes"
