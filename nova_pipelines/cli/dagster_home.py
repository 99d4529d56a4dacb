"""Where Dagster keeps its instance: DAGSTER_HOME, or a folder under NOVA_HOME with the embedded configuration."""

from __future__ import annotations

import fcntl
import os
from importlib.resources import files
from pathlib import Path

from nova_pipelines.database.failures import folder_failure
from nova_pipelines.database.session import private_folder
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings

VARIABLE = "DAGSTER_HOME"


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
    """Makes Dagster's own tables once, whoever comes first: it makes them without a lock, and two programs that start
    at the same time on a new SQLite file write its version twice, which no program can read after."""
    made = home / ".storages-made"
    if made.exists():
        return
    with (home / ".storages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists():
            return
        import dagster as dg

        with dg.DagsterInstance.get() as instance:
            instance.run_storage.get_runs_count()
            instance.all_instigator_state()
            instance.event_log_storage.get_maximum_record_id()
        made.touch()


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
