"""The calls of E2B's async SDK that NOVA makes, each with its bounds said explicitly and its errors mapped. Knows
nothing of sessions, limits or breakers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.adapters.sandbox.e2b_errors import ends_of_a_command, errors_mapped
from nova_pipelines.adapters.sandbox.e2b_files import (
    TEMPLATE_GUEST,
    guest_zip,
    parse_report,
    read_capped,
    report_cap,
)
from nova_pipelines.adapters.sandbox.results import Raw

if TYPE_CHECKING:
    import e2b

#: for one request to the API, and for a create, which starts a machine
REQUEST_SECONDS, CREATE_SECONDS = 20.0, 60.0
#: beyond a job's wall time: the interpreter's start, heavy imports, writing the report
GRACE_SECONDS = 30.0
#: names in a sandbox's metadata
SESSION, INSTALLATION, RUN = "nova_session", "nova_installation", "nova_run"
#: relative paths: below the home of the sandbox's user
FOLDER = "nova"
GUEST = f"{FOLDER}/guest.zip"
START = "import sys; sys.path.insert(0, sys.argv[1]); del sys.argv[1]; from guest.main import main; main(sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Found:
    """A sandbox in the account."""

    sandbox_id: str
    metadata: Mapping[str, str]
    started_at: datetime


class Cloud:
    """An account of E2B. `template` None means E2B's base template."""

    def __init__(self, api_key: str, template: str | None) -> None:
        self._api_key = api_key
        self.template = template

    @property
    def _account(self) -> dict[str, Any]:
        return {"api_key": self._api_key, "request_timeout": REQUEST_SECONDS}

    async def create(self, mark: str, seconds: int, *, network: bool, metadata: Mapping[str, str]) -> e2b.AsyncSandbox:
        """One create. Raises CloudUnclear when its answer was lost: the mark finds what it may have left."""
        import e2b

        with errors_mapped("creating a sandbox", effects=True):
            return await e2b.AsyncSandbox.create(
                template=self.template,
                timeout=seconds,
                metadata={**metadata, SESSION: mark},
                allow_internet_access=network,
                idempotency_key=mark,
                api_key=self._api_key,
                request_timeout=CREATE_SECONDS,
            )

    async def extend(self, sandbox_id: str, seconds: int) -> None:
        """Lets it live for so many seconds from now."""
        import e2b

        with errors_mapped("extending a sandbox's life"):
            await e2b.AsyncSandbox.set_timeout(sandbox_id, seconds, **self._account)

    async def kill(self, sandbox_id: str) -> bool:
        """Ends it; False if it was gone already."""
        import e2b

        with errors_mapped("ending a sandbox"):
            return await e2b.AsyncSandbox.kill(sandbox_id, **self._account)

    async def find(self, metadata: Mapping[str, str]) -> list[Found]:
        """All running sandboxes that carry these metadata."""
        import e2b

        found: list[Found] = []
        with errors_mapped("listing sandboxes"):
            pages = e2b.AsyncSandbox.list(query=e2b.SandboxQuery(metadata=dict(metadata)), limit=100, **self._account)
            while pages.has_next:
                found += [Found(one.sandbox_id, one.metadata or {}, one.started_at) for one in await pages.next_items()]
        return found

    async def bring_guest(self, sandbox: e2b.AsyncSandbox) -> str:
        """Where the guest runner lies in there: the template's, if it has this version of it, else one that is sent."""
        with errors_mapped("sending the guest runner", inside=True):
            if self.template and await sandbox.files.exists(TEMPLATE_GUEST, request_timeout=REQUEST_SECONDS):
                return TEMPLATE_GUEST
            await sandbox.files.write(GUEST, guest_zip(), request_timeout=REQUEST_SECONDS)
            return GUEST

    async def run(
        self, sandbox: e2b.AsyncSandbox, guest: str, name: str, job: Job, blob: bytes, *, network: bool
    ) -> Raw:
        """One job in a process of its own. With the network, what is lost on the way is CloudUnclear: the code may
        have sent or stored something. Without it nothing can have been done outside: SandboxLost."""
        import e2b

        with errors_mapped("sending a job", inside=True):
            await sandbox.files.write(f"{FOLDER}/{name}.job", blob)
        arguments = ["python3", "-I", "-c", START, guest, "once"]
        said = _Tail()
        try:
            with errors_mapped("running a job", inside=True, effects=network, keep=ends_of_a_command()):
                await sandbox.commands.run(
                    shlex.join([*arguments, f"{FOLDER}/{name}.job", f"{FOLDER}/{name}.report", FOLDER]),
                    timeout=job.limits.wall_seconds + GRACE_SECONDS,
                    on_stderr=said.add,
                    retain_output=False,
                )
        except e2b.CommandExitException as error:
            # the keeper itself failed: killed by the code, or no Python in the template
            return Raw(died=True, exit_code=error.exit_code, stderr=said.text.encode())
        except e2b.TimeoutException:
            return Raw(timed_out=True, died=True)  # nobody knows what it still does
        with errors_mapped("reading a result", inside=True, effects=network, keep=(e2b.FileNotFoundException,)):
            try:
                return parse_report(await read_capped(sandbox, f"{FOLDER}/{name}.report", report_cap(job)))
            except e2b.FileNotFoundException:
                return Raw(died=True)


class _Tail:
    """The end of what a command said, at most 4000 characters."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, chunk: str) -> None:
        self.text = (self.text + chunk)[-4000:]
