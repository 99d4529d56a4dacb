"""Where Dagster keeps its instance: DAGSTER_HOME, or a folder under NOVA_HOME with the embedded configuration."""

from __future__ import annotations

import fcntl
import os
from importlib.resources import files
from pathlib import Path

import yaml

from nova_pipelines.database.failures import folder_failure
from nova_pipelines.database.session import private_folder
from nova_pipelines.domain.errors import ConfigurationError, TransientError
from nova_pipelines.settings import Settings

VARIABLE = "DAGSTER_HOME"
#: where a configuration says where Dagster keeps what
_STORAGES = ("storage", "run_storage", "event_log_storage", "schedule_storage")


def embedded_configuration() -> str:
    """The instance configuration for one machine: dagster.yaml of the repository's root, and what needs a home."""
    return files("nova_pipelines.cli").joinpath("dagster.yaml").read_text(encoding="utf-8")


def dagster_home(settings: Settings) -> Path:
    """The folder in force. Raises ConfigurationError for a DAGSTER_HOME that Dagster would refuse."""
    given = os.environ.get(VARIABLE)
    if not given:
        return settings.nova_home / "dagster"
    home = Path(given).expanduser()
    if not home.is_absolute() or not home.is_dir():
        raise ConfigurationError(
            f"DAGSTER_HOME={given} is no folder with an absolute path",
            remedy="make the folder, or unset DAGSTER_HOME to use the one under NOVA_HOME",
        )
    return home


def make_storages(home: Path) -> None:
    """Makes Dagster's own SQLite files once, whoever comes first. Dagster makes them without a lock, and two programs
    that start at the same time write the version of a new file twice, which no program can read after.

    A database server sees to that by itself. Raises ConfigurationError when Dagster does not take its configuration,
    TransientError when the files cannot be made (a full disk).
    """
    made = home / ".storages-made"
    if made.exists() or not _on_sqlite(home / "dagster.yaml"):
        return
    try:
        with (home / ".storages.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                _open_storages(home)
                made.touch()
    except OSError as error:
        raise folder_failure(home, error) from error


def _on_sqlite(configuration: Path) -> bool:
    """Whether all that Dagster keeps lies in files: what is not configured does."""
    try:
        given = yaml.safe_load(configuration.read_text(encoding="utf-8")) or {}
        storages = [given.get(name) for name in _STORAGES]
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return False  # the program that is started says what is wrong with it
    return all("sqlite" in str(storage).lower() for storage in storages if storage)


def _open_storages(home: Path) -> None:
    import dagster as dg
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with dg.DagsterInstance.get() as instance:
            instance.get_runs_count()
            instance.all_instigator_state()
            instance.event_log_storage.get_maximum_record_id()
    except dg.DagsterError as error:
        raise ConfigurationError(
            f"Dagster does not take its configuration: {error}", remedy=f"correct {home / 'dagster.yaml'}"
        ) from error
    except SQLAlchemyError as error:
        raise TransientError(
            f"Dagster's files in {home} cannot be made: {error}", remedy="free disk space there"
        ) from error


def prepare_dagster_home(settings: Settings) -> Path:
    """Makes the folder under NOVA_HOME where none is given, and names it to this process and its children.

    A configuration that lies there is the user's and stays as it is.
    """
    home = dagster_home(settings)
    if not os.environ.get(VARIABLE):
        private_folder(home)
        path = home / "dagster.yaml"
        try:
            if not path.exists():
                aside = home / f".dagster.yaml.{os.getpid()}"
                aside.write_text(embedded_configuration(), encoding="utf-8")
                aside.replace(path)
        except OSError as error:
            raise folder_failure(path, error) from error
        os.environ[VARIABLE] = str(home)
    return home
