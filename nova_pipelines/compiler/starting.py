"""From new mail to a run, at once: executions are made and committed, then whoever holds Dagster is asked for runs.

Knows of Dagster only a function that asks. What it cannot get started is left to the mailbox sensor.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from nova_pipelines.compiler.dagster_calls import Asked
from nova_pipelines.compiler.feeds import Feed
from nova_pipelines.database.run_requests import WATCHED, Batch, give_back, reserve
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.assignment import make_executions
from nova_pipelines.nodes.services import Services

log = logging.getLogger("nova.watch")

#: mails that become executions in one go: then other clients have their turn
PORTION = 200


Ask = Callable[[Feed, Batch], Asked]


class Starter(threading.Thread):
    """Takes news of mail and works them off one after the other, each client once in a turn.

    One thread: while it asks for a run, more mail comes, and goes into the next run together.
    """

    def __init__(self, services: Services, *, ask: Ask, max_batch: int, max_waiting: int) -> None:
        super().__init__(name="starter", daemon=True)
        self._services, self._ask = services, ask
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._changed = threading.Condition()
        self._waiting: dict[tuple[int, str, str], None] = {}
        self._stopping = False
        #: what lives on mail now; replaced as a whole
        self.feeds: tuple[Feed, ...] = ()
        self.started = 0

    def news(self, client_id: int, slug: str, folder: str) -> None:
        """There is new mail of this client in the ledger. May be called by any thread; returns at once."""
        with self._changed:
            self._waiting[client_id, slug, folder] = None
            self._changed.notify()

    def stop(self) -> None:
        """Ends it after the call that is under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if self._stopping:
                    return
                place = next(iter(self._waiting))
                del self._waiting[place]
            try:
                if self.start_runs(*place):
                    self.news(*place)
            except NovaError as error:
                log.warning("left to the sensor: %s", error, extra={"mailbox": place[1], "folder": place[2]})
            except Exception:
                log.exception("left to the sensor", extra={"mailbox": place[1], "folder": place[2]})

    def start_runs(self, client_id: int, slug: str, folder: str) -> bool:
        """Makes executions of this client's mails and asks for runs of them. True: there are more mails."""
        more = False
        for feed in self.feeds:
            if not feed.serves(slug, folder):
                continue
            made = make_executions(
                self._services,
                workflow_id=feed.workflow_id,
                version_id=feed.version_id,
                folder=folder,
                client_ids=[client_id],
                limit=PORTION,
            )
            more |= len(made) >= PORTION
            batches = reserve(
                self._services.databases.nova,
                feed.workflow_id,
                max_batch=self._max_batch,
                max_waiting=self._max_waiting,
                prefix=WATCHED,
                client_ids=[client_id],
            )
            self._ask_all(feed, batches)
        return more

    def _ask_all(self, feed: Feed, batches: Iterable[Batch]) -> None:
        """One batch after the other: the next one is kept for its run only when the last one's was asked for."""
        for batch in batches:
            asked = self._ask(feed, batch)
            fields = {"job": feed.job_name, "client": batch.slug, "executions": len(batch.executions)}
            if asked.outcome == "started":
                self.started += 1
                log.info("run requested", extra={**fields, "run": asked.text, "first": batch.executions[0]})
                continue
            if asked.outcome == "refused":
                give_back(self._services.databases.nova, batch.key)
            log.warning("left to the sensor: %s", asked.text, extra=fields)
            return
