"""What NOVA consists of, each part really asked: what `/health` answers from.

Words and reasons are for everybody and name no host, user or file; details are for those who may see them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nova_pipelines.adapters import life_lock
from nova_pipelines.adapters.redis_ping import ping
from nova_pipelines.adapters.sandbox.base import Job, Status
from nova_pipelines.compiler.dagster_calls import DAEMON_LOCK
from nova_pipelines.compiler.health import check_disk
from nova_pipelines.database.breaker import breaker_view
from nova_pipelines.database.failures import MIGRATE
from nova_pipelines.database.migrate import known_revisions, require_migrated
from nova_pipelines.database.probing import DatabaseProbe
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.watchers import living_watchers
from nova_pipelines.domain.errors import ConfigurationError, NovaError, TransientError
from nova_pipelines.nodes.alerts import Limits, current_troubles
from nova_pipelines.nodes.wiring import CLOUD
from nova_pipelines.settings import Settings
from nova_pipelines.web.board import Bad, Board, Check, Good
from nova_pipelines.web.context import WebContext

#: seconds after its start in which a daemon need not have a heartbeat yet
STARTING_SECONDS = 60.0
ABSENT = Good("not_configured")


def build_board(context: WebContext) -> Board:
    """All components of this installation."""
    settings, services, dagster = context.settings, context.services, context.dagster
    newest = known_revisions(settings)[-1]
    # a probe serves one check at a time
    nova, facturas, mail, watch, breaker = (
        DatabaseProbe(settings.facturas_database_url if name == "facturas" else settings.database_url)
        for name in ("nova", "facturas", "mail", "watch", "breaker")
    )
    heart = Heart(settings, dagster.heartbeats)
    return Board(
        [
            Check("database", lambda: _database(nova, newest), needed=True),
            Check("facturas", lambda: _database(facturas, newest), needed=True),
            Check("daemon", heart.check, needed=True),
            Check("code_location", lambda: _code(context), needed=True),
            Check("dagster", lambda: _dagster(context), needed=True),
            Check("mailboxes", lambda: _mailboxes(mail, settings), fresh=5),
            Check("watcher", lambda: _watcher(watch), fresh=5),
            Check("documents", lambda: _documents(services.store.check), fresh=15),
            Check("disk", lambda: _disk(settings), fresh=15),
            Check("sandbox", lambda: _sandbox(context), fresh=300),
            Check("e2b", lambda: _e2b(breaker, settings), fresh=5),
            Check("redis", lambda: _redis(settings, "connected"), fresh=5),
            Check("celery", lambda: _redis(settings, "configured"), fresh=5),
        ]
    )


def _database(probe: DatabaseProbe, newest: str) -> Good:
    began = time.monotonic()
    try:
        with probe.read() as session:
            require_migrated(session, newest)
    except ConfigurationError as error:
        if error.remedy == MIGRATE:
            raise Bad("not migrated", "its tables are not those of this version", str(error)) from error
        raise
    return Good("connected", f"answered in {1000 * (time.monotonic() - began):.1f} ms")


class Heart:
    """Whether Dagster's daemon lives. Its lock says so at once, where this process can see it (one machine, one
    NOVA_HOME); its heartbeats do so after some time, wherever it runs."""

    def __init__(
        self, settings: Settings, heartbeats: Callable[[], dict[str, float]], now: Callable[[], float] = time.time
    ) -> None:
        self._path = settings.nova_home / DAEMON_LOCK
        self._limit = settings.nova_health_daemon_seconds
        self._beats, self._now = heartbeats, now
        #: since when nobody holds the lock
        self._free_since: float | None = None

    def check(self) -> Good:
        since = self._held_since()
        if since is None and self._free_since is not None and self._path.exists():
            return self._elsewhere(self._free_since)
        beats = self._beats()
        oldest, now = min(beats.values(), default=0.0), self._now()
        if now - oldest <= self._limit:
            return Good("running", f"last heartbeat {now - oldest:.0f} s ago")
        if since is not None and now - since < max(STARTING_SECONDS, self._limit):
            return Good("running", "it was started just now, and has no heartbeat yet")
        silent = ", ".join(name for name, seen in sorted(beats.items()) if now - seen > self._limit) or "all"
        raise Bad("stopped", "no heartbeat", f"no heartbeat within {self._limit:g} s of: {silent}")

    def _held_since(self) -> float | None:
        try:
            since = life_lock.held_since(self._path)
        except OSError:  # no daemon of this NOVA_HOME ever, or none that can be seen from here
            self._free_since = None
            return None
        if since is not None:
            self._free_since = None
        elif self._free_since is None:
            self._free_since = self._now()
        return since

    def _elsewhere(self, free_since: float) -> Good:
        """The daemon of this NOVA_HOME has ended; another one may have begun to beat on another machine."""
        beats = self._beats()
        if beats and min(beats.values()) > free_since:
            return Good("running", "on another machine")
        raise Bad("stopped", "its process has ended", f"nobody holds the lock on {self._path}; look into daemon.log")


def _code(context: WebContext) -> Good:
    context.dagster.ping_code_server()
    error = context.dagster.location_error()
    if error is not None:
        raise Bad("not loaded", "the code server runs, and its workflows are not loaded", error)
    return Good("loaded")


def _dagster(context: WebContext) -> Good:
    context.dagster.heartbeats()  # asks its database
    return Good("connected")


def _mailboxes(probe: DatabaseProbe, settings: Settings) -> Good:
    with probe.read() as session:
        troubles = current_troubles(session, Limits.of(settings), utc_now())
    if troubles:
        told = "; ".join(f"{trouble.client}: {trouble.message} → {trouble.remedy}" for trouble in troubles)
        raise Bad("trouble", f"{len(troubles)} troubles with mailboxes", told)
    return Good("ok")


def _watcher(probe: DatabaseProbe) -> Good:
    with probe.read() as session:
        try:
            alive = living_watchers(session)
        except TransientError as error:
            raise Bad("stopped", "no sign of life", str(error)) from error
    return Good("watching", f"{len(alive)} alive") if alive else Good("not running", "the sensor finds the mail")


def _documents(check: Callable[[], None]) -> Good:
    try:
        check()
    except NovaError as error:
        raise Bad("not writable", "documents cannot be written", str(error)) from error
    return Good("writable")


def _disk(settings: Settings) -> Good:
    try:
        return Good("ok", check_disk(settings))
    except TransientError as error:
        raise Bad("almost full", "little space is left", str(error)) from error


def _sandbox(context: WebContext) -> Good:
    """A real job where code runs on this machine. In the cloud each one costs: `e2b` says what is known of it."""
    backend = context.services.backend()
    if backend.name == CLOUD:
        return Good(CLOUD, "see e2b")
    with backend.session(network=False, life_seconds=60) as session:
        outcome = session.run(Job(code="context['sum'] = context['a'] + 1", context={"a": 1}))
    if outcome.status is not Status.OK or (outcome.result or {}).get("sum") != 2:
        raise Bad("failing", "it does not run code", outcome.error)
    return Good(backend.name)


def _e2b(probe: DatabaseProbe, settings: Settings) -> Good:
    if settings.sandbox != CLOUD:
        return ABSENT
    threshold, seconds = settings.nova_e2b_breaker_failures, settings.nova_e2b_breaker_seconds
    with probe.read() as session:
        view = breaker_view(session, CLOUD, threshold=threshold, seconds=seconds)
    if not view.is_healthy:
        raise Bad(f"circuit {view.state}", f"its circuit breaker is {view.state}")
    return Good("configured", f"{view.failure_count} of {threshold} failures in a row")


def _redis(settings: Settings, word: str) -> Good:
    """Only of the scale-out profile. Celery is as well as its broker: nothing of this version waits in it."""
    if settings.redis_url is None:
        return ABSENT
    ping(settings.redis_url.get_secret_value(), seconds=2.0)
    return Good(word)
