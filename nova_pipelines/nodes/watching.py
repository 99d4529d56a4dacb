"""One watched connection: log in, search, wait for news, search again; and what is done when it breaks.

Each has a thread of its own, so that a server that hangs, floods or refuses holds up no other mailbox. What all
share, the databases and this machine's processors, they use by turns.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace

from nova_pipelines.adapters.imap import MailboxConfig
from nova_pipelines.adapters.imap_idle import Bell, WatchedMailbox
from nova_pipelines.database.mailboxes import BACK_OFF, record_failure
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, NotFound, NovaError, PermanentError
from nova_pipelines.nodes.intake import ScanReport, scan_mailbox
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.turns import Turns
from nova_pipelines.nodes.watch_plan import Route

log = logging.getLogger("nova.watch")

#: mails that one turn brings in, and after how many seconds it begins no further one
TURN_MAILS, TURN_SECONDS = 50, 10.0
#: a connection that lived this long was sound: the next failure counts as the first again
SOUND_SECONDS = 30.0
#: after a wake-up without new mail the next search waits, doubling: a server that floods costs little
CALM_FIRST, CALM_LONGEST = 0.1, 5.0
#: the longest pause after a connection that worked
PASSING_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """All in seconds. `idle`: until IDLE is issued anew; `poll`: between looks where there is no IDLE;
    `answer`: how long the server may take for each answer; `back_off`: by kind of error, first and longest."""

    idle: float = 540.0
    poll: float = 15.0
    answer: float = 20.0
    #: as every search of a mailbox waits, but sooner where a connection broke: it is what this program is for
    back_off_refused: tuple[float, float] = BACK_OFF["credential"]
    back_off_folder: tuple[float, float] = BACK_OFF["folder"]
    back_off_broken: tuple[float, float] = (1.0, 60.0)

    def pause(self, error: Exception, failures: int) -> float:
        """Seconds until the next attempt after so many failures in a row (1, 2, …), with jitter."""
        first, longest = self.back_off_broken
        if isinstance(error, (CredentialError, ConfigurationError)):
            first, longest = self.back_off_refused
        elif isinstance(error, (PermanentError, NotFound)):
            first, longest = self.back_off_folder
        return min(longest, first * 2.0 ** min(failures - 1, 20)) * random.uniform(0.5, 1.0)  # noqa: S311


class Watch(threading.Thread):
    """Keeps the connection of a route until it is told to stop. `news(route, folder)` is called, in this thread,
    when a search has brought mail into the ledger. What is public may be read by any thread."""

    def __init__(
        self,
        services: Services,
        route: Route,
        policy: WatchPolicy,
        *,
        turns: Turns,
        doors: Turns,
        news: Callable[[Route, str], None],
    ) -> None:
        super().__init__(name=f"watch {route.name}", daemon=True)  # one that hangs must not keep the process
        self.route = route
        self._services, self._policy, self._news = services, policy, news
        #: for searches, and for logins
        self._turns, self._doors = turns, doors
        self._bell = Bell()
        self._stopping = threading.Event()
        self._mailbox: WatchedMailbox | None = None
        self._failures = 0
        self._nudged = self._sound = False
        #: folder → until when (time.monotonic) it is left alone
        self._refused: dict[str, float] = {}
        #: connecting, searching, idle, polling, waiting (for the next attempt), stopped
        self.state = "connecting"
        #: time.time() of the last search that succeeded, and of the last news; the last error
        self.searched_at: float | None = None
        self.news_at: float | None = None
        self.error: str | None = None

    def nudge(self) -> None:
        """Its credential was changed: one that waits after a failure tries again at once."""
        self._nudged = True
        if self.state == "waiting":
            self._bell.ring()

    def stop(self) -> None:
        """Asks it to end; it says goodbye to the server if that answers."""
        self._stopping.set()
        self._bell.ring()

    def abandon(self) -> None:
        """Cuts the connection: whatever this watch waits for ends now."""
        if self._mailbox:
            self._mailbox.abandon()

    def run(self) -> None:
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._connected()
            except NovaError as error:
                self._failed(error, began)
            except Exception as error:
                # whatever it is, it is this mailbox's own: the others go on, and so does this one, later
                log.exception("unexpected error", extra={"mailbox": self.route.name})
                self._failed(error, began)
        self.state = "stopped"
        self._bell.close()

    def _connected(self) -> None:
        self.state, self._sound = "connecting", False
        with ExitStack() as stack:
            self._mailbox = mailbox = self._enter(stack)
            log.info("connected", extra={"mailbox": self.route.name})
            try:
                self._serve(mailbox)
            finally:
                self._mailbox = None

    def _enter(self, stack: ExitStack) -> WatchedMailbox:
        try:
            with self._doors.take():
                return stack.enter_context(WatchedMailbox(self._config()))
        except NovaError as error:
            with self._services.databases.nova.session() as session:
                for folder in self.route.folders:
                    record_failure(session, self.route.credential_id, folder, error)
            raise

    def _config(self) -> MailboxConfig:
        return replace(self._services.mailbox(self.route.credential_id), timeout_seconds=self._policy.answer)

    def _serve(self, mailbox: WatchedMailbox) -> None:
        """Searches and waits by turns, as long as the connection is good."""
        calm, woken = 0.0, False
        while not self._stopping.is_set():
            reports = self._search_all(mailbox)
            if not all(report.complete for report in reports):
                continue  # the next portion, after all others that wait for a turn
            calm = min(CALM_LONGEST, max(CALM_FIRST, 2 * calm)) if woken and not any(map(_brought, reports)) else 0.0
            if self._stopping.is_set():
                return
            woken, quiet = self._wait(mailbox)
            if woken and quiet < CALM_LONGEST and calm and not self._stopping.is_set():
                self._bell.wait(calm)

    def _search_all(self, mailbox: WatchedMailbox) -> list[ScanReport]:
        """Searches the folders of this route. One of several that the server refuses keeps no other from being read:
        it is left alone for a while."""
        reports: list[ScanReport] = []
        for folder in self.route.folders:
            if self._refused.get(folder, 0.0) > time.monotonic():
                continue
            try:
                reports.append(self._search(mailbox, folder))
            except (PermanentError, NotFound) as error:
                if len(self.route.folders) == 1:
                    raise
                self._refused[folder] = time.monotonic() + self._policy.pause(error, 1)
                log.warning("not watched: %s", error, extra={"mailbox": self.route.name, "folder": folder})
        return reports

    def _wait(self, mailbox: WatchedMailbox) -> tuple[bool, float]:
        """Waits for news, or for the next look. Returns whether the server said something, and after how long."""
        began = time.monotonic()
        if len(self.route.folders) > 1 or not mailbox.can_idle:
            self.state = "polling"
            self._bell.wait(self._policy.poll)
            return False, time.monotonic() - began
        self.state = "idle"
        woken = mailbox.idle(self._policy.idle, self._bell)
        if woken:
            log.info("woken", extra={"mailbox": self.route.name})
        self._bell.silence()
        return woken, time.monotonic() - began

    def _search(self, mailbox: WatchedMailbox, folder: str) -> ScanReport:
        with self._turns.take():
            self.state = "searching"
            report = scan_mailbox(
                self._services,
                self.route.credential_id,
                folder,
                mailbox=mailbox,
                limit=TURN_MAILS,
                deadline=time.monotonic() + TURN_SECONDS,
            )
        self.searched_at, self._sound, self.error = time.time(), True, None
        if _brought(report):
            self.news_at = time.time()
            counts = {"new": report.new, "stored": report.stored, "quarantined": report.quarantined}
            log.info("new mail", extra={"mailbox": self.route.name, "folder": folder, **counts})
        if report.stored:
            self._news(self.route, folder)
        for error in report.errors:
            log.warning("mail not taken in: %s", error, extra={"mailbox": self.route.name, "folder": folder})
        return report

    def _failed(self, error: Exception, began: float) -> None:
        """Waits for the next attempt; a changed credential and the end cut the wait short."""
        self._failures = 1 if time.monotonic() - began > SOUND_SECONDS else self._failures + 1
        seconds = self._policy.pause(error, self._failures)
        if self._sound:  # a search went well before: the account is in order, the connection is not
            seconds = min(seconds, PASSING_SECONDS)
        self.error, self.state = str(error), "waiting"
        self._bell.silence()
        if not (self._stopping.is_set() or self._nudged):
            fields = {"mailbox": self.route.name, "failures": self._failures, "again_in": round(seconds, 1)}
            log.warning("not watched: %s", error, extra=fields)
            self._bell.wait(seconds)
        if self._nudged:
            self._nudged, self._failures = False, 0


def _brought(report: ScanReport) -> bool:
    return bool(report.new or report.stored or report.duplicates or report.quarantined)
