"""The host's side of a job's file and of its answer. Everything that comes out of a sandbox is hostile here:
bytes are capped before this module sees them, parsed strictly and walked before anybody uses them."""

from __future__ import annotations

import json
import math
import signal
import struct
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from nova_pipelines.adapters.sandbox.base import Job, Outcome, Status, Task
from nova_pipelines.domain.errors import ConfigurationError, PermanentError

#: room for the envelope around a result
ENVELOPE_BYTES = 64 * 1024
MAX_DEPTH = 100
MAX_KEYS = 100_000
MAX_VALUES = 1_000_000
MAX_INT_BITS = 64
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
    cpu_spent = raw.cpu_seconds >= limits.cpu_seconds
    if raw.signal == signal.SIGXCPU or (raw.signal == signal.SIGKILL and cpu_spent):
        return Status.TIMEOUT, None, f"used more than {limits.cpu_seconds:g} s of CPU and was killed"
    if raw.answer_truncated:
        return Status.RESOURCE, None, f"the result is larger than {limits.result_bytes} bytes"
    if not raw.answer:
        return _judge_silence(raw)
    return _judge_answer(job.task, raw.answer)


def _judge_silence(raw: Raw) -> Judgement:
    if raw.signal == signal.SIGKILL:
        return Status.RESOURCE, None, "was killed by the system, most likely for its memory"
    if raw.signal is not None:
        name = signal.Signals(raw.signal).name if raw.signal in list(signal.Signals) else str(raw.signal)
        return Status.CRASHED, None, f"ended by the signal {name}, without a result"
    return Status.CRASHED, None, f"ended with exit code {raw.exit_code}, without a result"


def _judge_answer(task: Task, answer: bytes) -> Judgement:
    try:
        envelope = from_json(answer, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        return Status.BAD_RESULT, None, f"the result is not clean JSON: {str(error)[:200]}"
    if not isinstance(envelope, dict):
        return Status.BAD_RESULT, None, "the result is not in the form that NOVA's guest writes"
    word = envelope.get("status")
    if word == "ok":
        result = envelope.get("result")
        if not isinstance(result, dict):
            return Status.BAD_RESULT, None, "the result is no JSON object"
        fault = json_fault(result)
        return (Status.BAD_RESULT, None, fault) if fault else (Status.OK, result, None)
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


def json_fault(root: dict[str, Any]) -> str | None:
    """Walks a parsed result; says what no database or reader should get, and where. None when clean."""
    keys = values = 0
    stack: list[tuple[str, Any, int]] = [("context", root, 1)]
    while stack:
        place, container, depth = stack.pop()
        if depth > MAX_DEPTH:
            return f"{place[:300]} is nested deeper than {MAX_DEPTH} levels"
        pairs = container.items() if isinstance(container, dict) else enumerate(container)
        values += len(container)
        keys += len(container) if isinstance(container, dict) else 0
        if keys > MAX_KEYS or values > MAX_VALUES:
            return f"the result has more than {MAX_KEYS} keys or {MAX_VALUES} values"
        for key, value in pairs:
            if isinstance(key, str) and "\x00" in key:
                return f"{place[:300]} has a key with a NUL character"
            if isinstance(value, (dict, list)):
                stack.append((_place(place, key), value, depth + 1))
            elif reason := _value_fault(value):
                return f"{_place(place, key)[:300]} {reason}"
    return None


def _place(place: str, key: str | int) -> str:
    # bounded: a thousand levels of long keys must not make a quadratic text
    return f"{place[:300]}[{key}]" if isinstance(key, int) else f"{place[:300]}.{key[:100]}"


def _value_fault(value: object) -> str | None:
    if isinstance(value, str):
        if "\x00" in value:
            return "holds a NUL character"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return "is not a finite number"
    elif isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        return f"is an integer of more than {MAX_INT_BITS} bits; leave it as text"
    return None
