"""Tables for people and JSON for programs, whatever strange text they hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from nova_pipelines.cli.output import emit, moment, plain, table
from nova_pipelines_tests.cli.conftest import Nova

HOSTILE = "red \x1b[31m alert\x07 \u202egpj.exe [bold]not markup[/bold] \x9b1m \ud800 end\r\nnext"


def test_no_control_character_reaches_a_terminal(capsys: pytest.CaptureFixture[str]):
    table(("subject",), [(HOSTILE,)])

    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\u202e\x9b\r\ud800")
    assert "[bold]not markup[/bold]" in " ".join(out.split())


def test_json_escapes_what_a_terminal_would_obey(capsys: pytest.CaptureFixture[str]):
    emit({"subject": HOSTILE, "name": "Peña €"})

    out = capsys.readouterr().out
    assert json.loads(out) == {"subject": HOSTILE, "name": "Peña €"}
    assert not set(out) & set("\x1b\x07\u202e\x9b\r\ud800")
    assert "Peña €" in out


def test_json_keeps_decimals_exact_and_times_in_utc(capsys: pytest.CaptureFixture[str]):
    emit([Decimal("0.10"), datetime(2026, 8, 3, 12, tzinfo=timezone(timedelta(hours=2)))])

    assert json.loads(capsys.readouterr().out) == ["0.10", "2026-08-03T10:00:00+00:00"]


def test_times_are_shown_in_utc():
    assert moment(datetime(2026, 8, 3, 12, tzinfo=timezone(timedelta(hours=2)))) == "2026-08-03 10:00:00"
    assert moment("2026-08-03T12:00:00.5+02:00") == "2026-08-03 10:00:00"
    assert moment("not a time") == "not a time"
    assert moment(None) == ""
    assert moment(datetime(2026, 8, 3, tzinfo=UTC)) == "2026-08-03 00:00:00"


def test_plain_keeps_lines_only_when_asked():
    assert plain("a\nb\tc") == "a b c"
    assert plain("a\nb", lines=True) == "a\nb"
    assert plain(None) == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["client", "list"],
        ["workflow", "list"],
        ["executions", "list"],
        ["invoices", "list"],
        ["client", "show", "idom"],
    ],
)
def test_piped_output_has_80_columns_and_no_colours(nova: Nova, arguments: list[str]):
    for number in range(3):
        nova("client", "add", f"client-{number}", "--name", "A very long name of a client " * 4)
    nova("client", "add", "idom", "--email", "a@idom.es", "--allow-sender", "@proveedores.example")

    said = nova.program(*arguments)

    assert "\x1b" not in said.out
    assert max(map(len, said.out.splitlines())) <= 80
