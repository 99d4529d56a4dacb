"""Commands about the installation: migrate, doctor, demo, and the keys of its secrets."""

import json
import os
import shutil
from typing import TYPE_CHECKING, Annotated

import typer

from nova_pipelines.cli.dagster_home import VARIABLE, dagster_home
from nova_pipelines.cli.live import ask_status, dagster_url
from nova_pipelines.cli.output import JsonFlag, emit, note, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.cli.watch import watcher_line
from nova_pipelines.database.session import require_file
from nova_pipelines.domain.errors import ConfigurationError, NovaError
from nova_pipelines.settings import Settings, load_settings

if TYPE_CHECKING:
    from nova_pipelines.compiler.health import Check, Finding
    from nova_pipelines.nodes.services import Services


def migrate(as_json: JsonFlag = False) -> None:
    """Bring both databases to the tables of this version of NOVA. Safe to repeat."""
    from nova_pipelines.database import migrate as migration

    settings = load_settings()
    applied = migration.migrate(settings)
    if as_json:
        revisions = migration.current(settings)
        emit({name: {"applied": applied[name], "revision": revisions[name]} for name in applied})
        return
    for name, revisions in applied.items():
        say(f"{name}: applied {', '.join(revisions)}" if revisions else f"{name}: up to date")


def doctor(as_json: JsonFlag = False) -> None:
    """Check everything NOVA needs, and say what to do about each problem. Exit code 1 if there is one."""
    findings = _diagnose()
    healthy = all(finding.ok for finding in findings)
    if as_json:
        names = ("name", "ok", "message", "remedy", "seconds")
        emit({"healthy": healthy, "checks": [{name: getattr(f, name) for name in names} for f in findings]})
    else:
        table(
            ("check", "", "what was found"),
            [
                (f.name, "ok" if f.ok else "problem", f"{f.message} → {f.remedy}" if f.remedy else f.message)
                for f in findings
            ],
        )
        problems = sum(not finding.ok for finding in findings)
        say("all is well" if healthy else f"{problems} of {len(findings)} checks found a problem")
    if not healthy:
        raise typer.Exit(1)


def _diagnose() -> list["Finding"]:
    from nova_pipelines.compiler.health import Check, run_checks, service_checks
    from nova_pipelines.nodes.wiring import build_services

    first = Check("settings", lambda: f"NOVA_HOME is {load_settings().nova_home}")
    try:
        settings = load_settings()
    except NovaError:
        return run_checks([first])  # it says what is wrong; all others need the settings
    try:
        services = build_services(settings)
    except NovaError:  # a document store that cannot be opened: its own check says so, the others go on
        services = build_services(settings.model_copy(update={"nova_documents_url": None}))
    with services, services.databases:
        return run_checks([first, *service_checks(settings, services), *_process_checks(settings, services)])


def _process_checks(settings: Settings, services: "Services") -> list["Check"]:
    from nova_pipelines.compiler.health import Check

    return [
        Check("Dagster home", lambda: _home(settings)),
        Check("Dagster", lambda: _running(settings)),
        Check("watcher", lambda: _watching(services)),
        Check("approvals", lambda: _asked(services)),
    ]


def _watching(services: "Services") -> str:
    require_file(services.databases.nova)
    return watcher_line(services.databases.nova)


def _asked(services: "Services") -> str:
    from nova_pipelines.database.approvals import count_approvals

    require_file(services.databases.nova)
    with services.databases.nova.read() as session:
        number = count_approvals(session, open_only=True)
    return f"{number} wait for a person's decision: nova approvals list" if number else "nothing waits for a decision"


def _home(settings: Settings) -> str:
    home = dagster_home(settings)
    if not home.exists():
        return f"{home}, made by `nova up`"
    if not os.access(home, os.W_OK):
        raise ConfigurationError(f"{home} is not writable", remedy="make it writable for NOVA's user")
    source = VARIABLE if os.environ.get(VARIABLE) else "NOVA_HOME"
    if not (home / "dagster.yaml").exists():
        remedy = "copy NOVA's dagster.yaml there: without it, crashed runs are not taken up again"
        raise ConfigurationError(f"{home} (from {source}) holds no dagster.yaml", remedy=remedy)
    return f"{home} (from {source}), {shutil.disk_usage(home).free / 1024**3:.1f} GiB free"


def _running(settings: Settings) -> str:
    """Whether code server, daemon and web service answer. Not running at all is no problem of a machine."""
    url = dagster_url(settings)
    if url is None:
        return "not running; `nova up` starts code server, daemon and web UI"
    try:
        status = ask_status(url, settings)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        remedy = "restart `nova up`, or correct NOVA_DAGSTER_URL"
        raise ConfigurationError(f"the web UI at {url} does not answer: {error}", remedy=remedy) from error
    if not status.location_loaded:
        reason = status.location_error or "the code server does not answer"
        raise ConfigurationError(f"{url} has not loaded NOVA's workflows: {reason}", remedy="look into code.log")
    silent = status.silent_daemons()
    if silent:
        remedy = "restart `nova up`; the log is daemon.log"
        raise ConfigurationError(f"no sign of life of the daemon: {', '.join(silent)}", remedy=remedy)
    return f"code server, daemon and web UI answer at {url}"


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Send no mail: keep running what an earlier demo left.")] = False,
) -> None:
    """Show NOVA at work on mails that it sends to itself: no account and no key is needed."""
    try:
        from nova_pipelines.demo.run import run_demo
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "nova_pipelines":
            raise
        raise ConfigurationError(
            f"the demo needs a package that is not installed: {error.name}",
            remedy="pip install 'nova-pipelines[demo]'",
        ) from error
    code = run_demo(keep=keep)
    if code:
        raise typer.Exit(int(code))


def rotate(
    drop_old: Annotated[
        bool, typer.Option("--drop-old", help="Afterwards take the old keys away. Backups may still need them.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Put every stored credential under a new key.

    With NOVA_SECRET_KEY set, put the new key first in it, keep the old one after a comma, and run this.
    """
    from nova_pipelines.database.secrets import drop_old_keys, rotate_keys

    settings = load_settings()
    with open_nova(settings) as nova:
        with nova.session() as session:
            rotation = rotate_keys(session, settings)
        dropped = 0
        if drop_old:
            with nova.session() as session:
                dropped = drop_old_keys(session, settings)
    if as_json:
        emit(
            {"credentials": rotation.credentials, "keys": rotation.keys, "source": rotation.source, "dropped": dropped}
        )
        return
    say(f"{rotation.credentials} credentials are under the newest key of the {rotation.source}")
    if drop_old and rotation.source == "environment":
        note("the old keys are not needed any more: take them out of NOVA_SECRET_KEY")
    elif drop_old:
        say(f"{dropped} old keys dropped")
    elif rotation.keys > 1:
        note(f"{rotation.keys - 1} older keys are kept; `nova keys rotate --drop-old` takes them away")
