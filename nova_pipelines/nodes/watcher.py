"""All watched connections together: starts and ends them as accounts and workflows change, and keeps them apart."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.turns import Turns
from nova_pipelines.nodes.watch_plan import Route, Routes
from nova_pipelines.nodes.watching import Watch, WatchPolicy

log = logging.getLogger("nova.watch")

#: searches at once (they use database, disk and processor of this machine), and logins at once
SEARCHES, LOGINS = 4, 8
#: a search or login that takes longer holds up no other any more
LENT_AFTER_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Counts:
    """`connected`: idle, polling or searching; `waiting`: after a failure; `last_search`, `last_news`: time.time()."""

    mailboxes: int
    connected: int
    waiting: int
    last_search: float | None
    last_news: float | None


class Watcher:
    """`news(route, folder)` is called by many threads, whenever mail came into the ledger."""

    def __init__(
        self,
        services: Services,
        policy: WatchPolicy,
        news: Callable[[Route, str], None],
        *,
        searches: int = SEARCHES,
        logins: int = LOGINS,
    ) -> None:
        self._services, self._policy, self._news = services, policy, news
        self._turns, self._doors = Turns(searches), Turns(logins)
        self.watches: dict[Route, Watch] = {}
        self._secrets: dict[Route, bytes] = {}
        self._left_out: set[int] = set()

    def follow(self, routes: Routes) -> None:
        """Makes the connections those of `routes`: ends what is not in it, begins what is new, lets those whose
        password was changed try again at once."""
        for route in self.watches.keys() - routes.secrets.keys():
            log.info("watched no more", extra={"mailbox": route.name})
            self.watches.pop(route).stop()
        for route, secret in routes.secrets.items():
            if route not in self.watches:
                self._begin(route)
            elif self._secrets[route] != secret:
                log.info("credential changed", extra={"mailbox": route.name})
                self.watches[route].nudge()
        self._secrets = dict(routes.secrets)
        left_out = {account.credential_id: account.slug for account in routes.left_out}
        for credential_id in left_out.keys() - self._left_out:
            text = "no connection is left for this host and user (NOVA_WATCH_CONNECTIONS): the sensor reads it"
            log.warning(text, extra={"mailbox": left_out[credential_id]})
        self._left_out = set(left_out)

    def _begin(self, route: Route) -> None:
        watch = Watch(self._services, route, self._policy, turns=self._turns, doors=self._doors, news=self._news)
        self.watches[route] = watch
        watch.start()

    def look_after(self) -> None:
        """To be called every second or so: what takes too long stands in nobody's way."""
        lent = self._turns.lend(LENT_AFTER_SECONDS) + self._doors.lend(LENT_AFTER_SECONDS)
        if lent:
            log.warning("%d mail servers are slow: others go on beside them", lent)

    def counts(self) -> Counts:
        watches = list(self.watches.values())
        states = Counter(watch.state for watch in watches)
        return Counts(
            mailboxes=len(watches),
            connected=states["idle"] + states["polling"] + states["searching"],
            waiting=states["waiting"],
            last_search=max((watch.searched_at for watch in watches if watch.searched_at), default=None),
            last_news=max((watch.news_at for watch in watches if watch.news_at), default=None),
        )

    def stop(self, seconds: float) -> int:
        """Ends all connections within `seconds`; returns how many did not end and were cut."""
        watches = list(self.watches.values())
        self.watches.clear()
        for watch in watches:
            watch.stop()
        _join(watches, seconds * 0.7)
        late = [watch for watch in watches if watch.is_alive()]
        for watch in late:
            watch.abandon()
        _join(late, seconds * 0.3)
        return len(late)


def _join(watches: list[Watch], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for watch in watches:
        watch.join(max(0.0, deadline - time.monotonic()))
