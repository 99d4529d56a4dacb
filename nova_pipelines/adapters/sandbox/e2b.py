"""The cloud sandbox by the E2B SDK: one sandbox for a session, with its life and network said explicitly. Maps
the SDK's errors to NOVA's; knows nothing of workflows. The guest goes there as one zip file."""

from __future__ import annotations

import contextlib
import math
import shlex
import time
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self

from nova_pipelines.adapters.sandbox.base import Job, Outcome
from nova_pipelines.adapters.sandbox.e2b_errors import ends_of_a_command, errors_mapped
from nova_pipelines.adapters.sandbox.e2b_files import guest_zip, parse_report, read_capped, report_cap
from nova_pipelines.adapters.sandbox.results import Raw, outcome_of, pack
from nova_pipelines.domain.errors import (
    ConfigurationError,
    NovaError,
    OutcomeUnknown,
    TransientError,
)

if TYPE_CHECKING:
    import e2b

PROCESSES = 128
#: beyond the job's wall time: the interpreter's start, heavy imports, writing the report
GRACE_SECONDS = 30.0
#: relative paths: below the home of the sandbox's user
FOLDER = "nova"
GUEST = f"{FOLDER}/guest.zip"
START = f"import sys; sys.path.insert(0, {GUEST!r}); from guest.main import main; main(sys.argv[1:])"


class E2BSandbox:
    """`api_key` None or empty is refused; `template` None means E2B's base template."""

    name = "e2b"

    def __init__(self, *, api_key: str | None, template: str | None = None) -> None:
        if not api_key:
            raise ConfigurationError("the E2B sandbox needs a key", remedy="set E2B_API_KEY, or NOVA_SANDBOX=local")
        self._api_key = api_key
        self._template = template
        try:
            import e2b  # noqa: F401 - an extra: said here, not in the middle of a run
        except ImportError as error:
            raise ConfigurationError(
                "the E2B sandbox needs the package e2b", remedy="pip install nova-pipelines[e2b]"
            ) from error

    def __repr__(self) -> str:
        return f"E2BSandbox(template={self._template!r})"

    def session(
        self, *, network: bool = False, life_seconds: float = 3600.0, metadata: Mapping[str, str] | None = None
    ) -> E2BSession:
        """See Sandbox.session. The sandbox bills from here until `close` or the end of its life."""
        return E2BSession(
            api_key=self._api_key,
            template=self._template,
            network=network,
            life_seconds=life_seconds,
            metadata=metadata or {},
        )

    def check(self) -> list[str]:
        """Asks the API for this key's sandboxes: proves key and reach, starts nothing, costs nothing."""
        import e2b

        with errors_mapped("listing sandboxes"):
            running = len(e2b.Sandbox.list(api_key=self._api_key, limit=100).next_items())
        return [f"E2B answers, {running} sandboxes running", f"template: {self._template or 'base'}"]


class E2BSession:
    """One E2B sandbox, made anew when it vanished under a job (E2B #1381: 1-3 % do)."""

    def __init__(
        self,
        *,
        api_key: str,
        template: str | None,
        network: bool,
        life_seconds: float,
        metadata: Mapping[str, str],
    ) -> None:
        self._api_key = api_key
        self._template = template
        self._network = network
        self._life_seconds = math.ceil(life_seconds)
        self._metadata = dict(metadata)
        self._sandbox: e2b.Sandbox | None = None
        self._closed = False
        self._living()

    def _living(self) -> e2b.Sandbox:
        if self._closed:
            raise ConfigurationError("a closed sandbox session was used", remedy="open a new session")
        if self._sandbox is None:
            sandbox = self._create()
            try:
                with errors_mapped("sending the guest runner"):
                    sandbox.files.write(GUEST, guest_zip())
            except BaseException:
                self._kill(sandbox)
                raise
            self._sandbox = sandbox
        return self._sandbox

    def _create(self) -> e2b.Sandbox:
        """One create. The mark finds the orphan of a create whose answer was lost."""
        import e2b

        mark = str(uuid.uuid4())
        try:
            with errors_mapped("creating a sandbox", unknown=True):
                return e2b.Sandbox.create(
                    template=self._template,
                    timeout=self._life_seconds,
                    metadata={**self._metadata, "nova_session": mark},
                    allow_internet_access=self._network,
                    idempotency_key=mark,
                    api_key=self._api_key,
                )
        except OutcomeUnknown as error:
            raise self._reaped(mark, error) from error

    def _reaped(self, mark: str, error: OutcomeUnknown) -> NovaError:
        """Kills what a lost answer left behind; once that is certain, the create may be repeated."""
        import e2b

        try:
            with errors_mapped("looking for a lost sandbox"):
                query = e2b.SandboxQuery(metadata={"nova_session": mark})
                for found in e2b.Sandbox.list(query=query, api_key=self._api_key).next_items():
                    e2b.Sandbox.kill(found.sandbox_id, api_key=self._api_key)
        except NovaError as second:
            return OutcomeUnknown(
                f"{error.message}; and {second.message}",
                remedy=f"look for a sandbox with the metadata nova_session={mark} in the E2B dashboard",
            )
        return TransientError(f"{error.message}; nothing was left behind")

    def run(self, job: Job) -> Outcome:
        """See SandboxSession.run."""
        blob = pack(job, processes=PROCESSES)
        sandbox = self._living()
        name = f"{FOLDER}/{uuid.uuid4().hex}"
        started = time.perf_counter()
        try:
            raw = self._run(sandbox, job, blob, name)
        except BaseException:
            # whatever this was, that sandbox may still be at work: the next job gets a fresh one
            self._sandbox = None
            self._kill(sandbox)
            raise
        if raw.died:
            self._sandbox = None
            self._kill(sandbox)
        wall_ms = (time.perf_counter() - started) * 1000
        return outcome_of(job, raw, wall_ms=wall_ms, sandbox_id=sandbox.sandbox_id, backend="e2b")

    def _run(self, sandbox: e2b.Sandbox, job: Job, blob: bytes, name: str) -> Raw:
        import e2b

        with errors_mapped("sending a job"):
            sandbox.files.write(f"{name}.job", blob)
        arguments = ["python3", "-I", "-c", START, "once", f"{name}.job", f"{name}.report", FOLDER]
        said = _Tail()
        try:
            with errors_mapped("running a job", unknown=True, keep=ends_of_a_command()):
                sandbox.commands.run(
                    shlex.join(arguments),
                    timeout=job.limits.wall_seconds + GRACE_SECONDS,
                    on_stderr=said.add,
                    retain_output=False,
                )
        except e2b.CommandExitException as error:
            # the keeper itself failed: killed by the code, or no Python in the template
            return Raw(died=True, exit_code=error.exit_code, stderr=said.text.encode())
        except e2b.TimeoutException:
            return Raw(timed_out=True, died=True)  # nobody knows what it still does
        with errors_mapped("reading a result", unknown=True, keep=(e2b.FileNotFoundException,)):
            try:
                return parse_report(read_capped(sandbox, f"{name}.report", report_cap(job)))
            except e2b.FileNotFoundException:
                return Raw(died=True)

    def _kill(self, sandbox: e2b.Sandbox) -> None:
        """Best effort: the sandbox's own life is the second line."""
        with contextlib.suppress(NovaError), errors_mapped("ending a sandbox"):
            sandbox.kill()

    def close(self) -> None:
        """Kills the sandbox. Raises what E2B answers when it cannot: it then bills until its life ends."""
        self._closed = True
        sandbox, self._sandbox = self._sandbox, None
        if sandbox:
            with errors_mapped("ending a sandbox"):
                sandbox.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Tail:
    """The end of what a command said, at most 4000 characters."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, chunk: str) -> None:
        self.text = (self.text + chunk)[-4000:]
