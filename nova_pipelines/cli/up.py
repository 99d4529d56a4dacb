"""`nova up`: code server, daemon, web UI and watcher together, from one terminal."""

import fcntl
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer

from nova_pipelines.cli.dagster_home import prepare_dagster_home
from nova_pipelines.cli.keeper import Signals
from nova_pipelines.cli.live import DagsterStatus, UpState, ask_status, read_state, state_path, write_state
from nova_pipelines.cli.output import note, say
from nova_pipelines.cli.processes import Family
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.failures import MIGRATE
from nova_pipelines.database.identities import OPEN_NOTICE, refuse_exposure
from nova_pipelines.database.session import private_folder
from nova_pipelines.domain.errors import ConfigurationError, TransientError
from nova_pipelines.settings import Settings, load_settings

#: seconds until each program must answer: a thousand workflows on a busy machine take their time
START_SECONDS = 180.0
_LOOK_SECONDS = 0.2
#: whoever reaches the code server can start runs: it serves this machine only
CODE_HOST = "127.0.0.1"
_Answer = TypeVar("_Answer")


class _Stopped(Exception):
    """Ctrl-C or SIGTERM while the programs were starting."""


def up(
    port: Annotated[int | None, typer.Option(help="Port of the web UI. [default: PORT, or 3000]")] = None,
    host: Annotated[str, typer.Option(help="Address of the web UI.")] = "127.0.0.1",
    no_watch: Annotated[
        bool, typer.Option("--no-watch", help="Keep no connections to mailboxes: the sensor looks every 5 seconds.")
    ] = False,
) -> None:
    """Start code server, daemon, web UI and watcher; stop all of them on Ctrl-C.

    Logs are written to NOVA_HOME/logs. If one of them ends, the others are stopped as well.
    """
    settings = load_settings()
    _check_migrated(settings)
    with open_nova(settings) as nova:
        is_open = refuse_exposure(nova, settings, host)
    with _alone(settings):
        web_port = port or settings.port
        _check_port(host, web_port)
        prepare_dagster_home(settings)
        code_port = free_port(CODE_HOST)
        signals = Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        own = {"NOVA_HOME": str(settings.nova_home), "NOVA_CODE_HOST": CODE_HOST, "NOVA_CODE_PORT": str(code_port)}
        own["NOVA_DAGSTER_URL"] = _url(host, web_port)  # whom the watcher asks for runs
        family = Family(settings.nova_home / "logs", {**os.environ, **own})
        try:
            _start(settings, family, signals, host=host, web_port=web_port, code_port=code_port)
            if not no_watch:
                _start_watcher(settings, family, signals)
            _tell(settings, family, _url(host, web_port), code_port)
            if is_open:
                note(f"open: {OPEN_NOTICE}", style="yellow")
            while not signals.wait(_LOOK_SECONDS * 2):
                family.check()
        except _Stopped:
            note("stopped before everything was up")
        finally:
            state_path(settings).unlink(missing_ok=True)
            note("stopping …")
            killed = family.stop()
            signals.close()
        note(f"killed what did not end in time: {', '.join(killed)}" if killed else "stopped")


def _start(settings: Settings, family: Family, signals: Signals, *, host: str, web_port: int, code_port: int) -> None:
    url = _url(host, web_port)
    began = time.time()
    note("starting the code server …")
    family.start("code", "--host", CODE_HOST, "--port", str(code_port))
    _wait("the code server", family, signals, lambda: _answers(CODE_HOST, code_port))
    note("starting daemon and web UI …")
    family.start("daemon")
    family.start("web", "--host", host, "--port", str(web_port))
    status = _wait("the web UI", family, signals, lambda: _status(url, settings, lambda found: found.location_settled))
    if not status.location_loaded:
        raise ConfigurationError(
            f"Dagster cannot load NOVA's workflows: {status.location_error}",
            remedy=f"`nova doctor` looks for the cause; the log is {family.logs / 'code.log'}",
        )
    _wait("the daemon", family, signals, lambda: _status(url, settings, lambda found: found.daemons_alive_since(began)))


def _start_watcher(settings: Settings, family: Family, signals: Signals) -> None:
    from nova_pipelines.database.watchers import watching_since

    began = datetime.now(UTC)
    family.start("watch")
    with open_nova(settings) as nova:
        _wait("the watcher", family, signals, lambda: watching_since(nova, began))


def _tell(settings: Settings, family: Family, url: str, code_port: int) -> None:
    home = str(prepare_dagster_home(settings))
    write_state(settings, UpState(url, os.getpid(), CODE_HOST, code_port, home))
    say(f"NOVA is up: {url}", style="bold green")
    note(f"logs: {family.logs}; Ctrl-C stops everything")


def _url(host: str, port: int) -> str:
    """An address that a browser on this machine can open."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared only
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def _wait(what: str, family: Family, signals: Signals, look: Callable[[], _Answer | None]) -> _Answer:
    """Looks until there is an answer, and at the programs meanwhile."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        family.check()
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            remedy = f"look into the logs in {family.logs}"
            raise TransientError(f"{what} did not answer within {START_SECONDS:g} s", remedy=remedy)
        if signals.wait(_LOOK_SECONDS):
            raise _Stopped


def _answers(host: str, port: int) -> bool:
    # the port opens only when the code has been loaded
    try:
        with socket.create_connection((host, port), 2):
            return True
    except OSError:
        return False


def _status(url: str, settings: Settings, ready: Callable[[DagsterStatus], bool]) -> DagsterStatus | None:
    try:
        status = ask_status(url, settings)
    except (OSError, ValueError):
        return None
    return status if ready(status) else None


def _check_migrated(settings: Settings) -> None:
    from nova_pipelines.database.migrate import pending

    missing = [name for name, revisions in pending(settings).items() if revisions]
    if missing:
        raise ConfigurationError(f"not migrated: {' and '.join(missing)} database", remedy=MIGRATE)


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return
    except OSError as error:
        raise ConfigurationError(
            f"port {port} on {host} cannot be used: {error.strerror or error}",
            remedy="stop the program that uses it, or choose another one with --port",
        ) from error


def free_port(host: str) -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Two daemons on one instance would both act on every tick."""
    private_folder(settings.nova_home)
    with (settings.nova_home / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            state = read_state(settings)
            where = f" at {state.url} (process {state.pid})" if state else ""
            raise ConfigurationError(
                f"NOVA runs from {settings.nova_home} already{where}",
                remedy="stop it first, or set NOVA_HOME to another folder",
            ) from error
        yield
