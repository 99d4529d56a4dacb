"""Where Dagster keeps its instance, when several programs come to it at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COME = """
from nova_pipelines.cli.dagster_home import make_storages, prepare_dagster_home
from nova_pipelines.settings import load_settings

make_storages(prepare_dagster_home(load_settings()))
import dagster as dg

with dg.DagsterInstance.get() as instance:
    assert instance.all_instigator_state() == []
    assert instance.get_runs() == []
"""


def test_programs_that_start_at_the_same_time_make_dagsters_tables_once(tmp_path: Path):
    """Without the lock two of three fail, or leave two versions in one file, which nobody can read after."""
    environment = {**os.environ, "NOVA_HOME": str(tmp_path / "home")}
    environment.pop("DAGSTER_HOME", None)
    command = [sys.executable, "-c", COME]
    programs = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    errors = [program.communicate(timeout=120)[1] for program in programs]
    assert [program.returncode for program in programs] == [0, 0, 0], errors
