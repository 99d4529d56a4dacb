"""Has runs started of the executions that were begun over HTTP.

One thread, so that no answer waits for Dagster. An execution is committed under a run key before it comes here: what
cannot be started, or is lost with this process, is asked for again by the mailbox sensor a minute later.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from sqlalchemy import select, update

from nova_pipelines.compiler.beginning import Start
from nova_pipelines.compiler.dagster_calls import Asked
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.run_requests import WATCHED, Batch, give_back
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import NovaError

log = logging.getLogger("nova.web.launch")

#: seconds that a version has to become live; then its executions are left to the sensor
PATIENCE = 45.0
#: requests that wait here; more are left to the sensor
MAX_WAITING = 10_000


def new_run_key() -> str:
    """A key that the sensor asks for again after a minute, as it does for the watcher's."""
    return f"{WATCHED}{uuid.uuid4().hex}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An execution that waits under `key` for a run."""

    execution_id: int
    key: str
    client: str | None
    start: Start
    since: float = field(default_factory=time.monotonic)


class Launcher(threading.Thread):
    """`live`: whether a revision is live; `launch`: asks Dagster for the run of a batch."""

    def __init__(
        self,
        nova: Database,
        *,
        live: Callable[[int], bool],
        launch: Callable[[str, str, Batch], Asked],
        max_batch: int,
    ) -> None:
        super().__init__(name="launcher", daemon=True)
        self._nova, self._live, self._launch, self._max_batch = nova, live, launch, max_batch
        self._changed = threading.Condition()
        self._waiting: list[Wanted] = []
        self._stopping = False

    def take(self, wanted: Wanted) -> None:
        """Returns at once; may be called by any thread."""
        with self._changed:
            if len(self._waiting) >= MAX_WAITING:
                log.warning("left to the sensor: too many wait", extra={"execution": wanted.execution_id})
                return
            self._waiting.append(wanted)
            self._changed.notify()

    def look_again(self) -> None:
        """Another revision may be live."""
        with self._changed:
            self._changed.notify()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                if not self._stopping and not self._ready():
                    # by time, too: an old revision may come from elsewhere, and patience ends
                    self._changed.wait(1.0 if self._waiting else None)
                if self._stopping:
                    return
                batch = self._ready()[: self._max_batch]
                self._waiting = [wanted for wanted in self._waiting if wanted not in batch and not _too_late(wanted)]
            try:
                if batch:
                    self._start(batch)
            except NovaError as error:
                log.warning("left to the sensor: %s", error)
            except Exception:
                log.exception("left to the sensor")

    def _ready(self) -> list[Wanted]:
        """Of the oldest one that can be run: all of the same workflow and client, which one run takes together."""
        live: dict[int, bool] = {}
        for wanted in self._waiting:
            revision = wanted.start.revision
            live.setdefault(revision, self._live(revision))
        ready = [wanted for wanted in self._waiting if live[wanted.start.revision]]
        return [wanted for wanted in ready if _group(wanted) == _group(ready[0])]

    def _start(self, wanted: list[Wanted]) -> None:
        batch = self._together(wanted)
        if batch is None:
            return
        asked = self._launch(wanted[0].start.job_name, wanted[0].start.step, batch)
        fields = {"job": wanted[0].start.job_name, "client": batch.slug, "executions": list(batch.executions)}
        if asked.outcome == "started":
            log.info("run requested", extra={**fields, "run": asked.text})
            return
        if asked.outcome == "refused":
            give_back(self._nova, batch.key)
        log.warning("left to the sensor: %s", asked.text, extra=fields)

    def _together(self, wanted: list[Wanted]) -> Batch | None:
        """The executions under one key. Those that were cancelled, or taken by somebody else, stay out."""
        key, numbers = wanted[0].key, [one.execution_id for one in wanted]
        mine = (Execution.status == "pending") & Execution.run_id.in_([one.key for one in wanted])
        with self._nova.session() as session:
            rows = session.scalars(
                select(Execution.id).where(Execution.id.in_(numbers), mine).order_by(Execution.id).with_for_update()
            ).all()
            session.execute(update(Execution).where(Execution.id.in_(rows)).values(run_id=key))
        if not rows:
            return None
        return Batch(key, wanted[0].start.workflow_id, tuple(rows), wanted[0].client)


def _group(wanted: Wanted) -> tuple[int, str, str | None]:
    return wanted.start.workflow_id, wanted.start.step, wanted.client


def _too_late(wanted: Wanted) -> bool:
    late = time.monotonic() - wanted.since > PATIENCE
    if late:
        log.warning("left to the sensor: its version is not live", extra={"execution": wanted.execution_id})
    return late
