"""Makes stored versions live: has the code server read them again, soon after they came and not once for each.

One thread. A reload builds the jobs of all workflows, so what comes within a short time is read together, and two
reloads have a pause between them that is as long as the first one took.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

from nova_pipelines.database.session import Database
from nova_pipelines.database.workflows import catalog_revision
from nova_pipelines.domain.errors import NovaError

log = logging.getLogger("nova.web.reload")

#: seconds without another version before a reload begins; and so long at most
QUIET, LONGEST = 0.1, 1.0
#: seconds between looks at the catalog, for versions that others stored (`nova workflow load`, another web service);
#: and so long they get to have them loaded themselves
LOOK, PATIENCE = 2.0, 10.0
#: seconds after a reload that failed, doubled up to the last
FIRST_WAIT, LAST_WAIT = 1.0, 60.0


class Location(Protocol):
    """What a reloader needs of Dagster."""

    def loaded_revision(self) -> int | None: ...
    def reload(self) -> str | None: ...


class Reloader(threading.Thread):
    """Keeps the code location at the newest revision of the catalog. `told`: called after each reload."""

    def __init__(self, nova: Database, location: Location, told: Callable[[], None] = lambda: None) -> None:
        super().__init__(name="reloader", daemon=True)
        self._nova, self._location, self._told = nova, location, told
        self._changed = threading.Condition()
        self._first: float | None = None
        self._last = 0.0
        self._stopping = False
        self._behind_since: float | None = None
        self._wait = FIRST_WAIT
        #: no reload before this time
        self._not_before = 0.0
        self.reloads = 0

    def ask(self) -> None:
        """Something was published or archived. Returns at once; may be called by any thread."""
        with self._changed:
            self._last = time.monotonic()
            self._first = self._first or self._last
            self._changed.notify()

    def stop(self) -> None:
        """Ends it after the reload that is under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def is_live(self, revision: int) -> bool:
        """Whether a run that is asked for now has the versions of this revision."""
        loaded = self._location.loaded_revision()
        return loaded is not None and loaded >= revision

    def run(self) -> None:
        while True:
            with self._changed:
                if self._stopping:
                    return
                asked = self._first is not None
                if not asked:
                    self._changed.wait(LOOK)
                elif (seconds := self._seconds_left()) > 0:
                    self._changed.wait(seconds)
                    continue
                if self._stopping:
                    return
                if asked:
                    self._first = None
            try:
                if asked or self._left_behind():
                    self._reload()
            except NovaError as error:
                self._failed(str(error))
            except Exception:
                log.exception("the reload failed")
                self._failed("an unexpected error")

    def _seconds_left(self) -> float:
        now, first = time.monotonic(), self._first or 0.0
        return max(min(self._last + QUIET, first + LONGEST) - now, self._not_before - now)

    def _left_behind(self) -> bool:
        """Whether somebody stored something a while ago and it is not live."""
        with self._nova.read() as session:
            newest = catalog_revision(session)
        if self.is_live(newest):
            self._behind_since = None
            return False
        now = time.monotonic()
        self._behind_since = self._behind_since or now
        return now - self._behind_since >= PATIENCE and now >= self._not_before

    def _reload(self) -> None:
        with self._nova.read() as session:
            newest = catalog_revision(session)
        began = time.monotonic()
        reason = self._location.reload()
        if reason is None and not self.is_live(newest):
            # it keeps what it has where it cannot load the new: its log says why
            reason = f"the code server is still at revision {self._location.loaded_revision()}, {newest} is stored"
        took = time.monotonic() - began
        self.reloads += 1
        self._behind_since = None
        self._not_before = time.monotonic() + took
        if reason is not None:
            self._failed(reason)
            return
        self._wait = FIRST_WAIT
        log.info("workflows loaded", extra={"revision": self._location.loaded_revision(), "seconds": round(took, 3)})
        self._told()

    def _failed(self, reason: str) -> None:
        """Tries again after a while: what is stored is to become live."""
        log.error("workflows were not loaded, again in %.0f s: %s", self._wait, reason)
        with self._changed:
            self._not_before = time.monotonic() + self._wait
            self._first = self._first or time.monotonic()
        self._wait = min(self._wait * 2, LAST_WAIT)
