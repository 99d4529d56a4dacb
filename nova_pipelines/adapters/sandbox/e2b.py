"""The cloud sandbox: a session holds one E2B sandbox with a short life that is extended before jobs that need it,
asks the shared gate before it makes one, and charges its whole life to the jobs. Knows nothing of workflows."""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from nova_pipelines.adapters.sandbox.base import Job, Outcome
from nova_pipelines.adapters.sandbox.e2b_cloud import CREATE_SECONDS, GRACE_SECONDS, SESSION, Cloud, Found
from nova_pipelines.adapters.sandbox.e2b_errors import CloudBusy, CloudUnclear, SandboxLost
from nova_pipelines.adapters.sandbox.e2b_gate import Gate
from nova_pipelines.adapters.sandbox.e2b_life import Life, Meter
from nova_pipelines.adapters.sandbox.e2b_loop import LoopThread
from nova_pipelines.adapters.sandbox.results import Raw, outcome_of, pack
from nova_pipelines.domain.errors import ConfigurationError, NovaError, PermanentError
from nova_pipelines.domain.rates import SandboxRates

PROCESSES = 128
#: what a sandbox gets at first: the orphan of a worker that was killed bills minutes, never hours
LIFE_SECONDS = 300.0
#: a job begins only where this much of the sandbox's life is left beyond the job's own time
MARGIN_SECONDS = 15.0
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Done:
    raw: Raw
    wall_ms: float
    sandbox_id: str
    seconds: float


class E2BSandbox:
    """`api_key` None or empty is refused; `template` None means E2B's base template. `gate` None: no limits and no
    breaker but E2B's own. `max_life_seconds`: what the account allows a sandbox (Hobby one hour, Pro 24)."""

    name = "e2b"

    def __init__(
        self,
        *,
        api_key: str | None,
        template: str | None = None,
        rates: SandboxRates | None = None,
        gate: Gate | None = None,
        max_life_seconds: float = 3600.0,
    ) -> None:
        if not api_key:
            raise ConfigurationError("the E2B sandbox needs a key", remedy="set E2B_API_KEY, or NOVA_SANDBOX=local")
        try:
            import e2b  # noqa: F401 - an extra: said here, not in the middle of a run
        except ImportError as error:
            raise ConfigurationError(
                "the E2B sandbox needs the package e2b", remedy="pip install nova-pipelines[e2b]"
            ) from error
        self.cloud = Cloud(api_key, template)
        self.rates, self.gate, self.max_life_seconds = rates, gate, max_life_seconds

    def __repr__(self) -> str:
        return f"E2BSandbox(template={self.cloud.template!r})"

    def session(
        self, *, network: bool = False, life_seconds: float = 3600.0, metadata: Mapping[str, str] | None = None
    ) -> E2BSession:
        """See Sandbox.session. The sandbox is made with the first job, and bills from there until `close`, or until
        its life ends: at first `life_seconds`, five minutes at most, then as long as the jobs need."""
        return E2BSession(self, network=network, life_seconds=life_seconds, metadata=metadata or {})

    def check(self) -> list[str]:
        """Asks the API for this key's sandboxes: proves key and reach, starts nothing, costs nothing."""
        return [f"E2B answers, {len(self.find({}))} sandboxes running", f"template: {self.cloud.template or 'base'}"]

    def find(self, metadata: Mapping[str, str]) -> list[Found]:
        """The account's running sandboxes with these metadata. Raises CloudBusy or CredentialError."""
        return asyncio.run(self.cloud.find(metadata))

    def kill(self, sandbox_id: str) -> bool:
        """Ends one; False if it was gone already. Raises CloudBusy or CredentialError."""
        return asyncio.run(self.cloud.kill(sandbox_id))


class E2BSession:
    """One E2B sandbox, made anew when it is lost (E2B #1381: 1-3 % vanish) or has grown too old for the next job."""

    def __init__(self, sandbox: E2BSandbox, *, network: bool, life_seconds: float, metadata: Mapping[str, str]) -> None:
        self._cloud, self._gate, self._rates = sandbox.cloud, sandbox.gate, sandbox.rates
        self._max_life = sandbox.max_life_seconds
        self._network = network
        self._first_life = min(LIFE_SECONDS, life_seconds, self._max_life)
        self._metadata = {**metadata, **(self._gate.places.metadata if self._gate else {})}
        self._loop = LoopThread()
        self._meter = Meter()
        self._life: Life | None = None
        self._guest = ""
        self._closed = False

    def run(self, job: Job) -> Outcome:
        """See SandboxSession.run. A job whose sandbox was lost while nothing outside can have been done (it had no
        network, or had not begun) is repeated at once, once, in a fresh sandbox: that is certain to be safe. Raises
        Unavailable when E2B is known to be down or all places are taken."""
        if self._closed:
            raise ConfigurationError("a closed sandbox session was used", remedy="open a new session")
        blob = pack(job, processes=PROCESSES)
        try:
            done = self._try(job, blob)
        except SandboxLost as error:
            log.warning("%s; the job is repeated in a fresh sandbox", error)
            done = self._try(job, blob)
        return outcome_of(
            job,
            done.raw,
            wall_ms=done.wall_ms,
            sandbox_id=done.sandbox_id,
            backend="e2b",
            sandbox_seconds=done.seconds,
            cost_nano_usd=self._rates.nano_usd(done.seconds) if self._rates else 0,
        )

    def _try(self, job: Job, blob: bytes) -> _Done:
        """The job once, as far as the gate lets it. Whatever goes wrong, that sandbox may still be at work: it is
        ended, and the next job gets a fresh one."""
        needed = job.limits.wall_seconds + GRACE_SECONDS + MARGIN_SECONDS
        try:
            if self._gate is None:
                self._make_room(needed)
                return self._work(job, blob, needed)
            self._gate.breaker.check()
            self._make_room(needed)
            return self._gate.breaker.call(
                lambda: self._work(job, blob, needed), longest_seconds=needed + 2 * CREATE_SECONDS
            )
        except BaseException:
            self._end()
            raise

    def _make_room(self, needed: float) -> None:
        """Sees to it that there is a sandbox that can live long enough, or a place for a new one."""
        if needed > self._max_life:
            raise PermanentError(
                f"a job that may take {needed:.0f} s needs a longer life than an E2B sandbox may have "
                f"({self._max_life:.0f} s)",
                remedy="lower the node's timeout, or raise NOVA_E2B_MAX_LIFE_SECONDS if the account allows it",
            )
        if self._life is not None and self._life.age() + needed > self._max_life:
            self._end()
        if self._life is None:
            seconds = CREATE_SECONDS + max(self._first_life, needed)
            self._life = Life(self._gate.places.take(seconds) if self._gate else str(uuid.uuid4()))

    def _work(self, job: Job, blob: bytes, needed: float) -> _Done:
        life = self._life
        assert life is not None, "_make_room came first"  # noqa: S101 - for the reader and the type checker
        if life.sandbox is None:
            self._create(life, needed)
        elif life.left() < needed:
            self._extend(life, life.sandbox.sandbox_id, needed)
        assert life.sandbox is not None  # noqa: S101
        name = uuid.uuid4().hex
        started = time.perf_counter()
        run = self._cloud.run(life.sandbox, self._guest, name, job, blob, network=self._network)
        raw = self._loop.run(run)
        if raw.died:
            self._end()
        wall_ms = (time.perf_counter() - started) * 1000
        return _Done(raw, wall_ms, life.sandbox.sandbox_id, self._meter.take())

    def _create(self, life: Life, needed: float) -> None:
        seconds = math.ceil(max(self._first_life, needed))
        life.begun, life.born = True, time.monotonic()
        self._meter.start()
        try:
            life.sandbox = self._loop.run(
                self._cloud.create(life.mark, seconds, network=self._network, metadata=self._metadata)
            )
        except CloudUnclear as error:  # `_end` looks for what it may have left
            raise CloudBusy(f"{error.message}; what it may have left is ended") from error
        except (CloudBusy, PermanentError):
            life.begun = False
            raise
        life.until = life.born + seconds
        if self._gate:
            self._gate.places.alive(life.mark, life.sandbox.sandbox_id, seconds)
        self._guest = self._loop.run(self._cloud.bring_guest(life.sandbox))

    def _extend(self, life: Life, sandbox_id: str, needed: float) -> None:
        seconds = math.ceil(max(self._first_life, needed))
        now = time.monotonic()
        if self._gate:  # first, so that the reaper never takes it for one that is over its time
            self._gate.places.alive(life.mark, sandbox_id, seconds + CREATE_SECONDS)
        self._loop.run(self._cloud.extend(sandbox_id, seconds))
        life.until = now + seconds

    def _end(self) -> None:
        """Ends the sandbox, if there is one, and frees its place. What cannot be ended now is left to the reaper, and
        to its short life; it is no failure of the work."""
        life = self._life
        if life is None:
            return
        gone = not life.begun
        try:
            gone = gone or self._loop.run(self._kill(life))
        except NovaError as error:
            log.warning("%s; it bills until the reaper, or its life's end (%.0f s), ends it", error, life.left())
        self._life = None
        if life.begun:
            self._meter.stop()
        else:
            self._meter.forget()
        if self._gate:
            (self._gate.places.ended if gone else self._gate.places.released)(life.mark)

    async def _kill(self, life: Life) -> bool:
        """Whether it is certain that there is none any more: a create whose answer was lost may still be at work."""
        if life.sandbox is not None:
            await self._cloud.kill(life.sandbox.sandbox_id)
            return True
        found = await self._cloud.find({SESSION: life.mark})
        for one in found:
            await self._cloud.kill(one.sandbox_id)
        return bool(found)

    def close(self) -> None:
        """Kills the sandbox. One that cannot be killed is logged and left to the reaper."""
        self._closed = True
        try:
            self._end()
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
