"""What leaves the command line when something goes wrong: one message, what to do, an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
import typer

from nova_pipelines.cli.errors import NovaGroup
from nova_pipelines.cli.main import app
from nova_pipelines_tests.cli.conftest import PROGRAM, Nova, Said


def test_help_tells_the_exit_codes_and_loads_no_dagster(bare: Nova):
    code = (
        "import sys\n"
        "from nova_pipelines.cli.main import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'dagster', 'dagster_graphql', 'pandas', 'alembic'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.split())
    for part in ("0 done", "1 failed", "2 wrong usage", "3 not found", "4 a definition", "70 an error", "130"):
        assert part in text


def test_version(bare: Nova):
    assert bare("--version").out.startswith("nova 0.")


@pytest.mark.parametrize(
    ("arguments", "code", "kind", "words"),
    [
        (["client", "show", "nobody"], 3, "NotFound", "no client 'nobody'"),
        (["client", "add", "Bad Slug"], 1, "PermanentError", "is no slug"),
        (["workflow", "show", "x"], 3, "NotFound", "no workflow 'x'"),
        (["executions", "show", "12"], 3, "NotFound", "no execution 12"),
        (["chain", "verify", "12"], 3, "NotFound", "no execution 12"),
        (["executions", "list", "--status", "odd"], 2, "UsageError", "choose from"),
        (["client", "nonsense"], 2, "UsageError", "No such command"),
        (["executions", "show", "many"], 2, "UsageError", "valid integer"),
        (["run", "x", "--context", "{"], 1, "PermanentError", "not valid JSON"),
    ],
)
def test_errors_have_a_message_a_remedy_and_a_code(nova: Nova, arguments: list[str], code: int, kind: str, words: str):
    said = nova(*arguments, code=code)
    assert said.out == ""
    message, remedy = said.err.rstrip("\n").rsplit("\n", 1)
    assert message.startswith("error: ")
    assert words in message
    assert remedy.startswith("→ ")
    assert "Traceback" not in said.err

    said = nova(*arguments, "--json", code=code)
    assert said.out == ""
    assert (said.error["type"], said.error["exit_code"]) == (kind, code)
    assert words in said.error["message"]
    assert said.error["remedy"]


def test_wrong_settings_are_named(bare: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "many")

    said = bare("client", "list", code=2)

    assert "PORT" in said.err


def test_a_missing_database_is_not_made(bare: Nova):
    said = bare("client", "list", code=2)

    assert "→ run `nova migrate`" in said.err
    assert not bare.home.exists()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """`nova client list` meets an error that nobody thought of."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody\x1b[31m thought of it")

    monkeypatch.setattr("nova_pipelines.cli.client.open_nova", fail)


def test_an_unexpected_error_is_one_line_and_a_file(nova: Nova, broken: None):
    said = nova("client", "list", code=70)

    assert said.out == ""
    assert "Traceback" not in said.err
    assert "\x1b" not in said.err
    assert said.err.startswith("error: ZeroDivisionError: nobody")
    (file,) = (nova.home / "logs").glob("error-*.log")
    assert str(file) in said.err
    assert "Traceback" in file.read_text()
    assert file.stat().st_mode & 0o077 == 0


def test_debugging_shows_the_traceback(nova: Nova, broken: None, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVA_DEBUG", "1")

    assert "Traceback" in nova("client", "list", code=70).err


def test_an_unexpected_error_as_json(nova: Nova, broken: None):
    assert nova("client", "list", "--json", code=70).error["type"] == "ZeroDivisionError"


def test_a_traceback_that_cannot_be_written(nova: Nova, broken: None):
    (nova.home / "logs").write_text("a file is in the way")

    assert "could not be written" in nova("client", "list", code=70).err


@pytest.mark.parametrize(("raised", "code"), [(KeyboardInterrupt(), 130), (typer.Abort(), 130)])
def test_interrupts_are_quiet(nova: Nova, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int):
    def interrupted(*_: object) -> None:
        raise raised

    monkeypatch.setattr("nova_pipelines.cli.client.open_nova", interrupted)

    assert nova("client", "list", code=code) == Said(code, "", "")


def test_a_reader_that_goes_away_is_quiet(nova: Nova):
    """As `nova … | head -1`, with more output than a pipe holds."""
    with subprocess.Popen(
        [*PROGRAM, "workflow", "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


def test_ctrl_c_of_the_program_is_quiet(nova: Nova):
    """It waits for a definition on stdin when the signal comes."""
    with subprocess.Popen(
        [*PROGRAM, "workflow", "validate", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONFAULTHANDLER": ""},
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        while "pipe" not in _reading(process.pid):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read() == b""


def _reading(pid: int) -> str:
    """What the kernel says the process waits for."""
    from pathlib import Path

    syscall = Path(f"/proc/{pid}/syscall").read_text().split()
    # read(0, …): number 0 on x86-64, 63 on arm64
    return "pipe" if syscall[0] in ("0", "63") and syscall[1] == "0x0" else ""


def test_there_is_one_command_group_for_the_program_and_for_tests():
    assert isinstance(typer.main.get_command(app), NovaGroup)


def test_json_is_never_mixed_with_messages(nova: Nova):
    said = nova("client", "add", "idom", "--json")

    assert json.loads(said.out)["slug"] == "idom"
    assert said.err == ""
