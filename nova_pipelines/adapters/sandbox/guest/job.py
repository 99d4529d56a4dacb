"""One job in its own process: reads it, sets the limits, does it, writes the answer. Never outlives it."""

from __future__ import annotations

import gc
import io
import json
import math
import os
import resource
import struct
import sys
import traceback

RESULT_FD = 3
MAX_ERROR = 2000
MAX_DEPTH = 100
MAX_INT_BITS = 64


class Fault(Exception):
    """A job's failure that is told to the host: a status word and a sentence."""

    def __init__(self, status: str, error: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error


class Job:
    """A job as read from its file."""

    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        data = os.pread(fd, size, 0)
        while len(data) < size:  # Linux reads 2 GB at a time
            data += os.pread(fd, size, len(data))
        (length,) = struct.unpack_from(">I", data)
        self.header = json.loads(data[4 : 4 + length])
        start = 4 + length
        end = start + self.header["context_size"]
        self.context_json = data[start:end]
        self.files = {}
        for name, size in self.header["files"]:
            self.files[name] = data[end : end + size]
            end += size


def tasks() -> dict:
    """The tasks by name; imported late, as they need this module."""
    from . import code, page, pdf

    pdfs = {"pdf_text": pdf.run_pdf_text, "pdf_words": pdf.run_pdf_words, "pdf_page": page.run_pdf_page}
    return {"code": code.run_code, **pdfs}


def answer_of(job: Job) -> bytes:
    """The envelope `{"status": …, "result"|"error": …}` as bytes."""
    try:
        result = tasks()[job.header["task"]](job)
        try:
            text = json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
            data = text.encode()
        except (TypeError, ValueError, RecursionError):
            raise Fault("bad_result", json_fault(result)) from None
        if len(data) > job.header["result_bytes"]:
            raise Fault("resource", f"the result is {len(data)} bytes, over {job.header['result_bytes']}")
    except Fault as fault:
        if fault.__cause__:
            cause = fault.__cause__
            frames = cause.__traceback__ and cause.__traceback__.tb_next  # the first is this file's
            traceback.print_exception(type(cause), cause, frames)
        return json.dumps({"status": fault.status, "error": clean(fault.error)}).encode()
    except ModuleNotFoundError as error:  # of this file's own imports; a user's comes as a Fault
        return json.dumps({"status": "missing_package", "error": str(error)}).encode()
    except MemoryError:
        return b'{"status":"resource","error":"the memory limit is reached"}'
    return b'{"status":"ok","result":' + data + b"}"


def json_fault(value: object) -> str:
    """Says where in `context` something is not JSON, and what it is."""
    stack = [("context", value, 0)]
    while stack:
        place, value, depth = stack.pop()
        reason = None
        if depth > MAX_DEPTH:
            reason = f"is nested deeper than {MAX_DEPTH} levels (or contains itself)"
        elif isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, (str, int, float, bool, type(None))):
                    return f"{place} has a key of type {type(key).__name__}; keys must be text"
                stack.append((f"{place}.{key}", item, depth + 1))
        elif isinstance(value, (list, tuple)):
            stack.extend((f"{place}[{i}]", item, depth + 1) for i, item in enumerate(value))
        elif isinstance(value, float):
            reason = None if math.isfinite(value) else f"is {value!r}, which JSON does not have"
        elif isinstance(value, int):
            reason = None if value.bit_length() <= MAX_INT_BITS else "is an integer of more than 64 bits"
        elif isinstance(value, str):
            reason = None if value.isascii() or not lone_surrogate(value) else "holds half a character"
        elif value is not None:
            reason = f"is a {type(value).__name__}, which JSON does not have; turn it into text or a number"
        if reason:
            return f"{place[:300]} {reason}"
    return "context is not JSON"


def clean(text: str) -> str:
    """Text that any database takes: no NUL, no half characters."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode("utf-8")


def lone_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def limit(header: dict) -> None:
    """Bounds of this one process. AS counts from what the interpreter already maps."""
    bounds = {
        # 1 byte: with 0, a kernel that pipes cores into a program of the host would still do so, see core(5)
        resource.RLIMIT_CORE: (1, 1),
        resource.RLIMIT_FSIZE: (header["disk_bytes"],) * 2,
        resource.RLIMIT_NOFILE: (256, 256),
        # soft: SIGXCPU; hard: SIGKILL for code that ignores it
        resource.RLIMIT_CPU: (math.ceil(header["cpu_seconds"]), math.ceil(header["cpu_seconds"]) + 1),
    }
    if sys.platform == "linux":
        statm = os.open("/proc/self/statm", os.O_RDONLY)
        mapped = int(os.read(statm, 100).split()[0]) * resource.getpagesize()
        os.close(statm)
        bounds[resource.RLIMIT_AS] = (mapped + header["memory_bytes"],) * 2
    if header["processes"]:
        bounds[resource.RLIMIT_NPROC] = (header["processes"],) * 2
    for kind, (soft, hard) in bounds.items():
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def child(fds: list[int], folder: str) -> None:
    """One job from reading to the written result. The control socket is closed before any user code."""
    job_fd, result, out, err = fds
    os.setsid()
    job = Job(job_fd)
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.dup2(result, RESULT_FD)
    os.closerange(RESULT_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.set_inheritable(RESULT_FD, False)
    os.chdir(folder)
    os.environ["HOME"] = os.environ["TMPDIR"] = folder
    if "numpy.random" in sys.modules:  # or every fork would draw the same numbers
        sys.modules["numpy.random"].seed()
    # by line: what was printed before a kill is kept; and print() never fails for its characters
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True)
    limit(job.header)
    gc.enable()
    view = memoryview(answer_of(job))
    while view:
        view = view[os.write(RESULT_FD, view) :]
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
