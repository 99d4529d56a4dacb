"""The files that go to an E2B sandbox and come back: the guest runner, and a job's report, which is hostile."""

from __future__ import annotations

import functools
import hashlib
import io
import struct
import zipfile
from typing import TYPE_CHECKING

import pydantic

from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.adapters.sandbox.bubblewrap import GUEST_FOLDER
from nova_pipelines.adapters.sandbox.results import ENVELOPE_BYTES, Raw

if TYPE_CHECKING:
    import e2b

REPORT_BYTES = 64 * 1024


@functools.cache
def guest_zip() -> bytes:
    """The guest runner as one file that Python imports from: the same bytes for the same code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(GUEST_FOLDER.glob("*.py")):
            # without a date of its own, a file in it gets the first that the format knows
            archive.writestr(zipfile.ZipInfo(f"guest/{path.name}"), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


#: where a template of ours holds the guest, with its version in the name: below the home of the sandbox's user
TEMPLATE_GUEST = f".nova/guest-{hashlib.sha256(guest_zip()).hexdigest()[:16]}.zip"


def report_cap(job: Job) -> int:
    return job.limits.result_bytes + ENVELOPE_BYTES + 2 * job.limits.output_bytes + REPORT_BYTES


async def read_capped(sandbox: e2b.AsyncSandbox, path: str, cap: int) -> bytes | None:
    """The file's bytes; None when there are more than `cap`: the SDK has no bound of its own."""
    data = bytearray()
    async with await sandbox.files.read(path, format="stream") as stream:
        async for chunk in stream:
            data += chunk
            if len(data) > cap:
                return None
    return bytes(data)


class Report(pydantic.BaseModel):
    """The header of a report; hostile, as the code runs beside the keeper there."""

    model_config = pydantic.ConfigDict(strict=True, extra="forbid")

    exit_code: int | None
    signal: int | None
    timed_out: bool
    cpu_seconds: float
    truncated: list[bool] = pydantic.Field(min_length=3, max_length=3)
    sizes: list[pydantic.NonNegativeInt] = pydantic.Field(min_length=3, max_length=3)


def parse_report(data: bytes | None) -> Raw:
    """A report (see `guest.main.once`) as Raw; one that is not in order counts as a sandbox that broke."""
    if data is None:
        return Raw(answer_truncated=True)
    try:
        (length,) = struct.unpack_from(">I", data)
        report = Report.model_validate_json(data[4 : 4 + min(length, REPORT_BYTES)])
    except (struct.error, pydantic.ValidationError):
        return Raw(died=True)
    start, parts = 4 + length, []
    for size in report.sizes:
        parts.append(data[start : start + size])
        start += size
    return Raw(
        answer=parts[0],
        stdout=parts[1],
        stderr=parts[2],
        answer_truncated=report.truncated[0],
        stdout_truncated=report.truncated[1],
        stderr_truncated=report.truncated[2],
        exit_code=report.exit_code,
        signal=report.signal,
        timed_out=report.timed_out,
        cpu_seconds=report.cpu_seconds,
    )
