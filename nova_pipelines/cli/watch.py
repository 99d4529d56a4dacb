"""`nova watch`: keeps IDLE connections to all mailboxes that feed a workflow, and has a run started when mail comes."""

import logging
import os
import signal
import socket
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated

import typer

from nova_pipelines.adapters import logs
from nova_pipelines.cli.keeper import Signals
from nova_pipelines.cli.live import dagster_url
from nova_pipelines.cli.output import JsonFlag, emit, moment, say
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.session import Database, require_file
from nova_pipelines.database.watchers import BEAT_SECONDS, beat, farewell, living_watchers
from nova_pipelines.domain.errors import ConfigurationError, NovaError, TransientError
from nova_pipelines.settings import Settings, load_settings

log = logging.getLogger("nova.watch")

#: seconds between looks whether something was changed, until everything is read again even if nothing seems to be,
#: and until all connections are closed at the end
LOOK_SECONDS, READ_SECONDS, STOP_SECONDS = 1.0, 60.0, 1.5


def watch(
    check: Annotated[
        bool, typer.Option("--check", help="Start nothing: say whether a watcher is alive (exit code 1: none is).")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Watch all mailboxes and have runs started within seconds. Ends on Ctrl-C. The log goes to stderr, in JSON.

    Without it the mailbox sensor finds the mail, some seconds later.
    """
    settings = load_settings()
    if check:
        _check(settings, as_json)
        return
    logs.set_up(settings, logger="nova", form=settings.nova_log_format or "json")
    signals = Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        Program(settings).run(signals)
    finally:
        signals.close()


def watcher_line(nova: Database) -> str:
    """What `nova doctor` says of the watcher. Raises TransientError when it died."""
    with nova.read() as session:
        alive = living_watchers(session)
    if not alive:
        return "not running: mail is found by the mailbox sensor, within seconds; `nova up` starts it"
    row = alive[0]
    more = f" ({len(alive)} watchers)" if len(alive) > 1 else ""
    failing = f", {row.failing} failing (nova mailbox status)" if row.failing else ""
    last = f", last new mail {moment(row.news_at)} UTC" if row.news_at else ""
    return f"alive{more}, {row.connected} of {row.mailboxes} mailboxes connected{failing}{last}"


def _check(settings: Settings, as_json: bool) -> None:
    with open_nova(settings) as nova:
        line = watcher_line(nova)
    alive = line.startswith("alive")
    if as_json:
        emit({"alive": alive, "watcher": line})
    else:
        say(line)
    if not alive:
        raise typer.Exit(1)


class Program:
    """The running watcher: connections, the thread that has runs started, and signs of life."""

    def __init__(self, settings: Settings) -> None:
        from nova_pipelines.cli.asking import ask_for_run
        from nova_pipelines.compiler.feeds import Feeds
        from nova_pipelines.compiler.starting import Starter
        from nova_pipelines.nodes.watcher import Watcher
        from nova_pipelines.nodes.watching import WatchPolicy
        from nova_pipelines.nodes.wiring import build_services

        self.settings = settings
        self.services = build_services(settings)
        self.nova = self.services.databases.nova
        self.feeds = Feeds(self.nova)
        self.starter = Starter(
            self.services,
            ask=lambda feed, batch: ask_for_run(dagster_url(settings), feed, batch, token=_token(settings)),
            max_batch=settings.nova_max_batch,
            max_waiting=settings.nova_max_waiting,
        )
        self.watcher = Watcher(
            self.services,
            WatchPolicy(idle=settings.nova_watch_idle_seconds, poll=settings.nova_watch_poll_seconds),
            lambda route, folder: self.starter.news(route.client_id, route.slug, folder),
        )
        self.id, self.started_at = str(uuid.uuid4()), datetime.now(UTC)
        self._beaten = self._read = 0.0
        self._record: tuple[object, ...] | None = None
        self._well = True

    def run(self, signals: Signals) -> None:
        """Until a signal comes. A database that is away for a while ends nothing."""
        require_file(self.nova)
        log.info("watcher starts", extra={"pid": os.getpid()})
        self.starter.start()
        try:
            while True:
                self._look()
                if signals.wait(LOOK_SECONDS):
                    break
        finally:
            self._end()

    def _look(self) -> None:
        try:
            self.follow()
            if time.monotonic() - self._beaten > BEAT_SECONDS or not self._beaten:
                self.beat()
            self._well = True
        except NovaError as error:
            if self._well:  # said once, not every second
                log.error("databases: %s", error)
            self._well = False
        self.watcher.look_after()

    def follow(self) -> None:
        """Reads which workflows live on mail and from where, if that was changed, and makes the connections fit."""
        from nova_pipelines.compiler.feeds import accounts_to_watch, state_of_record
        from nova_pipelines.nodes.watch_plan import plan_routes

        record = state_of_record(self.nova)
        if record == self._record and time.monotonic() - self._read < READ_SECONDS:
            return
        feeds = self.feeds.read()
        self.starter.feeds = feeds
        accounts = accounts_to_watch(self.nova, feeds)
        self.watcher.follow(plan_routes(accounts, connections=self.settings.nova_watch_connections))
        self._record, self._read = record, time.monotonic()

    def beat(self) -> None:
        counts = self.watcher.counts()
        with self.nova.session() as session:
            beat(
                session,
                self.id,
                place=f"{socket.gethostname()}, process {os.getpid()}"[:255],
                started_at=self.started_at,
                mailboxes=counts.mailboxes,
                connected=counts.connected,
                failing=counts.waiting,
                searched_at=_time(counts.last_search),
                news_at=_time(counts.last_news),
                started_runs=self.starter.started,
            )
        self._beaten = time.monotonic()

    def _end(self) -> None:
        self.starter.stop()
        cut = self.watcher.stop(STOP_SECONDS)
        try:
            with self.nova.session() as session:
                farewell(session, self.id)
        except TransientError as error:  # the row grows old by itself
            log.warning("databases: %s", error)
        log.info("watcher ends", extra={"cut": cut})


def _time(seconds: float | None) -> datetime | None:
    return datetime.fromtimestamp(seconds, UTC) if seconds else None


def _token(settings: Settings) -> str | None:
    """Read anew each time: the keys may have been rotated. None: they cannot be read, and the answer will say so."""
    from nova_pipelines.database.secrets import internal_token

    try:
        return internal_token(settings)
    except ConfigurationError as error:
        log.error("the key cannot be read: %s", error.message)
        return None
