"""`nova serve code|daemon|web|watch`: the programs as the Procfile and `nova up` start them."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from nova_pipelines.adapters import life_lock
from nova_pipelines.cli.dagster_home import make_storages, prepare_dagster_home
from nova_pipelines.cli.engine import MODULE
from nova_pipelines.compiler.dagster_calls import DAEMON_LOCK, LOCATION
from nova_pipelines.database.failures import folder_failure
from nova_pipelines.settings import Settings, load_settings

PROGRAMS = ("code", "daemon", "web", "watch")
app = typer.Typer(help="Start one of NOVA's programs in the foreground.", no_args_is_help=True)

ParentOption = Annotated[int, typer.Option("--parent", hidden=True, help="End together with this process.")]


def command(program: str, settings: Settings, *, host: str, port: int) -> list[str]:
    """The command line of a program. `host` and `port`: where code server or web service listen."""
    python = [sys.executable, "-m"]
    if program == "watch":
        return [*python, "nova_pipelines.cli.main", "watch"]
    if program == "code":
        return [
            *(*python, "dagster", "api", "grpc", "--module-name", MODULE, "--location-name", LOCATION),
            # a database that is away at the start keeps no server from coming up: a reload loads what it could not
            *("--host", host, "--port", str(port), "--use-python-environment-entry-point", "--lazy-load-user-code"),
            *("--log-level", _log_level(settings), "--log-format", "json"),
        ]
    workspace = str(workspace_path(settings))
    if program == "daemon":
        return [
            *(*python, "dagster._daemon", "run", "--workspace", workspace),
            *("--log-level", _log_level(settings), "--log-format", "json"),
        ]
    return [*python, "nova_pipelines.web", "--workspace", workspace, "--host", host, "--port", str(port)]


def workspace_path(settings: Settings) -> Path:
    return settings.nova_home / "workspace.yaml"


def write_workspace(settings: Settings) -> None:
    """Where daemon and web find the code server."""
    server = {"host": settings.nova_code_host, "port": settings.nova_code_port, "location_name": LOCATION}
    path = workspace_path(settings)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise folder_failure(path, error) from error


def _log_level(settings: Settings) -> str:
    return settings.log_level.lower()


def _become(program: str, *, host: str = "", port: int = 0, parent: int = 0) -> None:
    """Turns this process into the keeper of the program."""
    settings = load_settings()
    home = prepare_dagster_home(settings)
    if program in ("code", "daemon", "web"):
        make_storages(home)
    if program in ("daemon", "web"):
        write_workspace(settings)
    environment = {
        **os.environ,
        "NOVA_HOME": str(settings.nova_home),
        "PYTHONUNBUFFERED": "1",
        # calls that are open when it is asked to end are not worth waiting for: the default is minutes
        "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": os.environ.get("DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD", "2"),
    }
    if program == "daemon":
        environment[life_lock.VARIABLE] = str(settings.nova_home / DAEMON_LOCK)
    keeper = [sys.executable, "-m", "nova_pipelines.cli.keeper", str(parent)]
    arguments = [*keeper, *command(program, settings, host=host, port=port)]
    sys.stdout.flush()
    os.execve(sys.executable, arguments, environment)  # noqa: S606 - no shell, our own command


@app.command()
def code(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [default: NOVA_CODE_HOST]")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: NOVA_CODE_PORT]")] = None,
    parent: ParentOption = 0,
) -> None:
    """The code server: loads the stored workflows and starts runs."""
    settings = load_settings()
    _become("code", host=host or settings.nova_code_host, port=port or settings.nova_code_port, parent=parent)


@app.command()
def daemon(parent: ParentOption = 0) -> None:
    """The daemon: sensors, schedules and the queue of runs."""
    _become("daemon", parent=parent)


@app.command()
def web(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int | None, typer.Option(help="Port to listen on. [default: PORT]")] = None,
    parent: ParentOption = 0,
) -> None:
    """The web service: NOVA's HTTP API and pages, Dagster's UI and GraphQL, on one port.

    Listening on another address than this machine's own needs a key or a user.
    """
    _become("web", host=host, port=port or load_settings().port, parent=parent)


@app.command()
def watch(parent: ParentOption = 0) -> None:
    """The watcher: keeps connections to the mailboxes and has runs started when mail comes."""
    _become("watch", parent=parent)
