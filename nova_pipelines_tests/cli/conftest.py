"""The command `nova` in this process and as a program of its own, with a NOVA_HOME for each test."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from nova_pipelines.cli.main import app
from nova_pipelines_tests.fixtures.postgres import clean_environment


@dataclass
class Said:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.err.splitlines()[-1])["error"]


class Nova:
    """Calls commands: `nova("client", "list")` in this process, `nova.program(…)` as a child."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str | Path, input: str | bytes | None = None, code: int | None = 0) -> Said:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=input)
        said = Said(result.exit_code, result.stdout, result.stderr)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert code is None or said.code == code, said
        return said

    def json(self, *arguments: str | Path, code: int | None = 0, input: str | None = None) -> Any:
        return self(*arguments, "--json", code=code, input=input).json

    def program(self, *arguments: str | Path, code: int | None = 0, **environment: str) -> Said:
        result = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
        )
        said = Said(result.returncode, result.stdout, result.stderr)
        assert code is None or said.code == code, said
        return said


PROGRAM = [sys.executable, "-m", "nova_pipelines.cli.main"]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nova:
    """Nothing there yet: no NOVA_HOME, no database."""
    clean_environment(monkeypatch)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("NOVA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return Nova(tmp_path / "home")


@pytest.fixture
def nova(bare: Nova, sqlite_template: Path) -> Nova:
    """Migrated, and empty."""
    bare.home.mkdir(mode=0o700)
    for name in ("nova.db", "facturas.db"):
        shutil.copyfile(sqlite_template / name, bare.home / name)
    return bare


def arithmetic(name: str = "Double It", factor: int = 2) -> str:
    """A workflow of the old dialect in JSON: doubles `amount`, or fails if `bad` is set."""
    code = f"if context.get('bad'):\n    raise ValueError('bad luck')\ncontext['result'] = context['amount'] * {factor}"
    return json.dumps(
        {
            "name": name,
            "nodes": [
                {"id": "start", "type": "start"},
                {"id": "work", "type": "action", "code": code},
                {"id": "big", "type": "decision", "code": "context['branch_decision'] = context['result'] > 100"},
                {"id": "end", "type": "end"},
                {"id": "small end", "type": "end"},
            ],
            "edges": [
                {"from": "start", "to": "work"},
                {"from": "work", "to": "big"},
                {"from": "big", "to": "end", "condition": "true"},
                {"from": "big", "to": "small end", "condition": "false"},
            ],
        }
    )
