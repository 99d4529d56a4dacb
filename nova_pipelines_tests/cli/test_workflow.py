"""`nova workflow`: definitions from files into the database and back."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path

import pytest
import yaml

from nova_pipelines.compiler.versions import as_yaml
from nova_pipelines.nodes.registry import read_definition
from nova_pipelines_tests.cli.conftest import Nova, arithmetic
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING

BROKEN = "name: Broken\nnodes:\n  - {id: start, type: start, next: gone}\n  - {id: x, type: nonsense}\n"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.json"
    path.write_text(arithmetic())
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.yaml"
    path.write_text(BROKEN)
    return path


def test_validate_names_all_problems_of_all_files(bare: Nova, good: Path, broken: Path, tmp_path: Path):
    empty = tmp_path / "empty.yaml"
    empty.write_text("")

    said = bare("workflow", "validate", broken, good, empty, INVOICE_PROCESSING, code=4)

    assert f"{good}: valid" in said.out
    assert f"{INVOICE_PROCESSING}: valid" in said.out
    assert "nodes[1].type: unknown kind 'nonsense'" in said.err
    assert "the file is empty" in said.err
    assert not bare.home.exists()


def test_validate_as_json(bare: Nova, good: Path, broken: Path):
    said = bare("workflow", "validate", good, broken, "--json", code=4)

    first, second = said.json
    assert (first["valid"], first["problems"]) == (True, [])
    assert not second["valid"]
    assert "nodes[1].type" in [problem["path"] for problem in second["problems"]]


def test_validate_also_compiles(bare: Nova, tmp_path: Path):
    path = tmp_path / "cron.json"
    definition = json.loads(arithmetic()) | {"trigger": {"schedule": "every day"}}
    path.write_text(json.dumps(definition))

    assert "trigger.schedule" in bare("workflow", "validate", path, code=4).err


def test_load_says_the_version(nova: Nova, good: Path):
    said = nova("workflow", "load", good)
    assert "Double It version 1, job double_it" in said.out
    assert "will be live when NOVA starts" in said.out

    assert "version 1 (unchanged)" in nova("workflow", "load", good).out

    good.write_text(arithmetic(factor=3))
    (entry,) = nova.json("workflow", "load", good)["files"]
    assert (entry["version"], entry["changed"], entry["job_name"]) == (2, True, "double_it")


def test_a_broken_file_keeps_no_good_one_from_being_loaded(nova: Nova, good: Path, broken: Path):
    said = nova("workflow", "load", broken, good, "missing.json", code=4)

    assert "Double It version 1" in said.out
    assert "unknown kind 'nonsense'" in said.err
    assert "no such file" in said.err
    assert [row["name"] for row in nova.json("workflow", "list")] == ["Double It"]


def test_load_as_json_with_a_broken_file(nova: Nova, good: Path, broken: Path):
    said = nova("workflow", "load", broken, good, "--json", code=4)

    first, second = said.json["files"]
    assert first["error"]["type"] == "DefinitionError"
    assert first["error"]["problems"]
    assert second["version"] == 1
    assert said.json["live"] is False


@pytest.mark.parametrize("name", ["double it", "Double-It", "DOUBLE  IT"])
def test_another_name_for_the_same_job_is_refused(nova: Nova, good: Path, tmp_path: Path, name: str):
    nova("workflow", "load", good)
    other = tmp_path / "other.json"
    other.write_text(arithmetic(name))

    said = nova("workflow", "load", other, code=1)

    assert "is taken by the workflow 'Double It'" in said.err
    assert len(nova.json("workflow", "list")) == 1


def test_two_files_with_one_name(nova: Nova, good: Path, tmp_path: Path):
    other = tmp_path / "other.json"
    other.write_text(arithmetic(factor=5))

    said = nova("workflow", "load", good, other, code=1)

    assert "both define 'Double It'" in said.err
    assert nova.json("workflow", "show", "Double It")["version"] == 1


def test_load_from_stdin(nova: Nova):
    assert "<stdin>: Double It version 1" in nova("workflow", "load", "-", input=arithmetic()).out


def unreadable(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\x89PNG\x00\x01")
    elif kind == "not UTF-8":
        path.write_bytes(b"name: caf\xe9\n")
    elif kind == "big":
        path.write_bytes(b" " * 10_000_000)
    elif kind == "socket":
        os.mkfifo(path)
        path.unlink()
        path.symlink_to("/dev/null")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such file"),
        ("folder", "is a folder"),
        ("binary", "is a binary file"),
        ("not UTF-8", "line 1 column 10: is not UTF-8 text (byte 0xe9)"),
        ("big", "more than 4,194,304 bytes"),
        ("socket", "a device or socket is not read"),
    ],
)
def test_files_that_cannot_be_read(nova: Nova, tmp_path: Path, kind: str, words: str):
    path = tmp_path / "file.yaml"
    unreadable(path, kind)

    for command in ("validate", "load"):
        said = nova("workflow", command, path, code=4)
        assert str(path) in said.err
        assert words in said.err
    assert nova.json("workflow", "list") == []


def test_a_file_without_permission(nova: Nova, good: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may read everything

    monkeypatch.setattr(Path, "open", refuse)

    assert "may not be read by this user" in nova("workflow", "validate", good, code=4).err


def test_a_name_with_a_nul(nova: Nova):
    assert "cannot be read" in nova("workflow", "validate", "a\0b", code=4).err


def test_list_tells_what_no_longer_compiles(nova: Nova, good: Path):
    nova("workflow", "load", good, INVOICE_PROCESSING)
    assert [row["compiles"] for row in nova.json("workflow", "list")] == [True, True]
    with sqlite3.connect(nova.home / "nova.db") as connection:
        connection.execute("DROP TRIGGER workflow_versions_no_update")
        connection.execute(
            "UPDATE workflow_versions SET definition = replace(definition, 'mail_fetch\"', 'fetch_mail\"')"
        )
    connection.close()

    rows = {row["name"]: row for row in nova.json("workflow", "list")}
    assert rows["Double It"]["compiles"]
    assert not rows["Invoice Processing"]["compiles"]
    assert "fetch_mail" in rows["Invoice Processing"]["problem"]
    assert "fetch_mail" in nova("workflow", "list").out.replace("\n", "")
    assert "fetch_mail" in nova.json("workflow", "show", "Invoice Processing")["problem"]
    # and nothing can be started with it
    assert "fetch_mail" in nova("run", "Invoice Processing", code=4).err
    assert nova.json("executions", "list") == []


def test_show(nova: Nova, good: Path):
    nova("workflow", "load", INVOICE_PROCESSING)

    shown = nova.json("workflow", "show", "invoice_processing")
    assert (shown["trigger"], shown["version"], shown["problem"]) == ("mailbox INBOX", 1, None)
    assert "true → extract_invoice, false → no_pdf" in nova("workflow", "show", "1").out
    assert "it has version 1 only" in nova("workflow", "show", "1", "--version", "7", code=3).err


def test_diff(nova: Nova, good: Path):
    nova("workflow", "load", good)
    assert "are equal" in nova("workflow", "diff", "double it").err
    good.write_text(arithmetic(factor=3))
    assert "+    context['result'] = context['amount'] * 3" in nova("workflow", "diff", "double it", good).out
    nova("workflow", "load", good)

    for arguments in ((), ("1",), ("1", "2")):
        out = nova("workflow", "diff", "double it", *arguments).out
        assert "--- double it version 1" in out
        assert "-    context['result'] = context['amount'] * 2" in out
        assert "+    context['result'] = context['amount'] * 3" in out
    assert nova.json("workflow", "diff", "double it", "2", "2")["equal"]
    assert "not valid" in nova("workflow", "diff", "double it", "-", input="{", code=4).err


def test_export_gives_back_what_was_written(nova: Nova, tmp_path: Path):
    source = INVOICE_PROCESSING.read_text()
    nova("workflow", "load", INVOICE_PROCESSING)

    assert nova("workflow", "export", "Invoice Processing").out == source
    out = tmp_path / "out.yaml"
    nova("workflow", "export", "1", "-o", out)
    assert out.read_text() == source


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_the_canonical_form_loads_as_the_same_version(nova: Nova, good: Path, tmp_path: Path, form: str):
    nova("workflow", "load", good)
    out = tmp_path / f"out.{form}"

    nova("workflow", "export", "1", "--format", form, "-o", out)

    assert read_definition(out.read_text()).canonical() == read_definition(arithmetic()).canonical()
    assert "(unchanged)" in nova("workflow", "load", out).out


def test_export_to_a_place_that_cannot_be_written(nova: Nova, good: Path, tmp_path: Path):
    nova("workflow", "load", good)

    assert "cannot be made" in nova("workflow", "export", "1", "-o", tmp_path / "no" / "folder", code=2).err
    assert "choose json or yaml" in nova("workflow", "export", "1", "--format", "xml", code=2).err


def test_yaml_keeps_lines_of_code():
    text = as_yaml({"code": "a = 1\nb = 2\n", "name": "Peña"})

    assert "code: |\n  a = 1\n  b = 2\n" in text
    assert yaml.safe_load(text) == {"code": "a = 1\nb = 2\n", "name": "Peña"}


def test_schema(bare: Nova):
    assert bare("workflow", "schema").json["title"] == "NOVA workflow definition"


def test_remove_and_bring_back(nova: Nova, good: Path):
    nova("workflow", "load", good)
    nova("run", "double it", "--context", '{"amount": 1}')

    assert nova.json("workflow", "remove", "double it") == {"name": "Double It", "result": "removed", "live": False}
    assert nova.json("workflow", "list") == []
    assert len(nova.json("executions", "list", "--workflow", "double it")) == 1
    assert nova("run", "double it", code=3).err
    assert nova("workflow", "export", "double it").out == arithmetic() + "\n"
    assert "(offered again)" in nova("workflow", "load", good).out
    assert len(nova.json("workflow", "list")) == 1
