"""`nova migrate`, `nova doctor`, `nova demo`, and what the installation is made of."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from nova_pipelines.cli import dagster_home, processes, serve
from nova_pipelines.cli.main import app
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import Nova, arithmetic
from nova_pipelines_tests.fixtures.dovecot import MailUser
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.world import ROOT


def checks(nova: Nova, code: int) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in nova.json("doctor", code=code)["checks"]}


def test_migrate(bare: Nova):
    assert "nova: applied 0001" in bare("migrate").out
    assert "facturas: up to date" in bare("migrate").out
    shown = bare.json("migrate")
    assert shown["nova"]["applied"] == []
    assert shown["nova"]["revision"] == shown["facturas"]["revision"] >= "0002"


def test_a_healthy_machine(nova: Nova):
    said = nova("doctor")
    assert "all is well" in said.out
    assert max(map(len, said.out.splitlines())) <= 80
    found = checks(nova, 0)
    assert all(check["ok"] for check in found.values())
    assert found["Dagster"]["message"].startswith("not running")


def test_before_the_first_migration(bare: Nova):
    found = checks(bare, 1)

    for name in ("nova database", "facturas database"):
        assert (found[name]["ok"], found[name]["remedy"]) == (False, "run `nova migrate`")
    assert found["sandbox"]["ok"]
    assert found["document store"]["ok"]
    assert not (bare.home / "nova.db").exists()


def test_a_database_that_is_not_there(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FACTURAS_DATABASE_URL", "postgresql://nova:topsecret@127.0.0.1:1/facturas")

    found = checks(nova, 1)
    assert not found["facturas database"]["ok"]
    assert "127.0.0.1:1" in found["facturas database"]["message"]
    assert found["nova database"]["ok"]
    assert "topsecret" not in str(found)


def test_wrong_settings_are_the_only_check(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVA_MAX_BATCH", "-1")

    found = checks(nova, 1)
    assert list(found) == ["settings"]
    assert "NOVA_MAX_BATCH" in found["settings"]["message"]


def test_a_document_store_that_cannot_be_opened_hides_nothing(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVA_DOCUMENTS_URL", "nonsense://user:topsecret@bucket/folder")

    found = checks(nova, 1)
    assert not found["document store"]["ok"]
    assert found["nova database"]["ok"]
    assert "topsecret" not in str(found)


def test_a_full_disk(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nova_pipelines.compiler.health.FREE_BYTES", 10**18)

    assert "free some space" in checks(nova, 1)["disk"]["remedy"]


@pytest.fixture
def mailbox(nova: Nova, mail_user: MailUser, smtp_sink: SmtpSink) -> Nova:
    nova("client", "add", "idom")
    nova(
        *("client", "credentials", "set", "idom", "email", "--password-stdin"),
        *("--imap-host", mail_user.host, "--imap-port", mail_user.tls_port, "--ca-file", mail_user.ca_file),
        *("--smtp-host", smtp_sink.host, "--smtp-port", smtp_sink.port, "--smtp-tls", "none"),
        *("--user", mail_user.name, "--address", "ana@idom.example"),
        input=mail_user.password,
    )
    return nova


def test_each_mailbox_is_tried(mailbox: Nova, smtp_sink: SmtpSink):
    found = checks(mailbox, None)

    assert found["IMAP idom"]["ok"], found["IMAP idom"]
    assert "INBOX opened" in found["IMAP idom"]["message"]
    assert "SMTP idom" in found
    assert found["secret key"]["message"] == "opens all credentials (1)"


def test_a_wrong_password_and_a_wrong_server(mailbox: Nova):
    mailbox("client", "credentials", "set", "idom", "email", "--password-stdin", "--smtp-port", "1", input="wrong")

    found = checks(mailbox, 1)
    assert not found["IMAP idom"]["ok"]
    assert found["IMAP idom"]["remedy"]
    assert not found["SMTP idom"]["ok"]
    assert "wrong" not in found["IMAP idom"]["message"]


def test_a_folder_that_is_not_there(mailbox: Nova):
    mailbox("client", "credentials", "set", "idom", "email", "--folder", "Nowhere")

    assert "Nowhere" in checks(mailbox, 1)["IMAP idom"]["message"]


def test_a_key_that_does_not_fit(mailbox: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVA_SECRET_KEY", "A" * 43 + "=")

    found = checks(mailbox, 1)["secret key"]
    assert "does not open 1 of 1: email of idom" in found["message"]
    assert found["remedy"]


def test_a_workflow_that_no_longer_compiles(nova: Nova, tmp_path: Path):
    import sqlite3

    path = tmp_path / "double.json"
    path.write_text(arithmetic())
    nova("workflow", "load", path)
    with sqlite3.connect(nova.home / "nova.db") as connection:
        connection.execute("DROP TRIGGER workflow_versions_no_update")
        connection.execute('UPDATE workflow_versions SET definition = \'{"name": "Double It"}\'')
    connection.close()

    found = checks(nova, 1)["workflows"]
    assert "1 of 1 do not compile: Double It" in found["message"]


def test_a_dagster_that_does_not_answer(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVA_DAGSTER_URL", "http://127.0.0.1:1")

    assert "does not answer" in checks(nova, 1)["Dagster"]["message"]


def test_a_check_that_hangs_is_left_behind():
    from threading import Event

    from nova_pipelines.compiler.health import Check, run_checks

    release = Event()
    found = run_checks([Check("slow", lambda: str(release.wait())), Check("quick", lambda: "here")], seconds=0.2)
    release.set()

    assert [(check.name, check.ok, check.message) for check in found] == [
        ("slow", False, "no answer within 0.2 s"),
        ("quick", True, "here"),
    ]


def test_an_unexpected_error_of_a_check_is_an_answer():
    from nova_pipelines.compiler.health import Check, run_checks

    (found,) = run_checks([Check("odd", lambda: str(1 // 0))])

    assert (found.ok, found.message.partition(":")[0]) == (False, "ZeroDivisionError")


# Dagster's home and programs


def test_the_embedded_configuration_is_that_of_the_repository():
    """Which must do without DAGSTER_HOME, since `dagster` reads it there too."""
    embedded = yaml.safe_load(dagster_home.embedded_configuration())
    assert embedded.pop("event_log_storage")["config"] == {"base_dir": {"env": "DAGSTER_HOME"}}
    text = (ROOT / "dagster.yaml").read_text()
    assert embedded == yaml.safe_load(text)
    assert "env:" not in text


def test_a_dagster_home_is_made_once(nova: Nova):
    home = dagster_home.prepare_dagster_home(load_settings())
    assert home == nova.home / "dagster"
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    dagster_home.prepare_dagster_home(load_settings())

    assert (home / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


def test_a_given_dagster_home_is_used(nova: Nova, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(given))

    assert dagster_home.prepare_dagster_home(load_settings()) == given
    assert list(given.iterdir()) == []
    assert "holds no dagster.yaml" in checks(nova, 1)["Dagster home"]["message"]


def test_a_dagster_home_that_is_no_folder(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DAGSTER_HOME", "relative")

    said = nova("serve", "daemon", code=2)
    assert "DAGSTER_HOME=relative" in said.err


class _Replaced(Exception):
    """Where `nova serve` would become another program."""


@pytest.fixture
def becomes(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    """What a `nova serve …` becomes: (arguments, environment)."""
    seen: list[tuple[list[str], dict[str, str]]] = []

    def execve(_: str, arguments: list[str], environment: dict[str, str]) -> None:
        seen.append((arguments, environment))
        raise _Replaced

    monkeypatch.setattr(serve.os, "execve", execve)

    def call(*arguments: str) -> tuple[list[str], dict[str, str]]:
        result = CliRunner().invoke(app, arguments)
        assert seen, result.output
        return seen.pop()

    return call


def procfile() -> dict[str, list[str]]:
    lines = (ROOT / "Procfile").read_text().splitlines()
    # the entry point only chooses Dagster's instance; without DAGSTER_DATABASE_URL it changes nothing
    return {
        name: command.removeprefix("sh deploy/entrypoint.sh ").split()
        for name, _, command in (line.partition(": ") for line in lines)
    }


def test_the_procfile_starts_the_programs_of_nova_up(becomes, nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PORT", "5123")
    started: list[list[str]] = []
    monkeypatch.setattr(processes.subprocess, "Popen", lambda command, **_: started.append(command))
    family = processes.Family(nova.home / "logs", {})
    commands = procfile()
    assert commands.pop("release") == ["nova", "migrate"]
    assert tuple(commands) == serve.PROGRAMS

    for name, command in commands.items():
        by_procfile, _ = becomes(*command[1:])
        place = command[3:] if name == "web" else []
        family.start(name, *place)
        assert started[-1][:3] == [sys.executable, "-m", "nova_pipelines.cli.main"]
        by_up, _ = becomes(*started[-1][3:])
        # the same but for the process that they must not outlive
        assert [by_procfile[3], by_up[3]] == ["0", str(os.getpid())]
        assert by_procfile[4:] == by_up[4:]
        if name == "web":
            assert by_procfile[-2:] == ["--port", "5123"]


def test_without_a_key_nobody_else_can_reach_it(nova: Nova):
    refused = nova.program("serve", "web", "--host", "0.0.0.0", code=2).err  # noqa: S104 - it is refused
    assert "there is no key and no user, and 0.0.0.0 can be reached from other machines" in refused


def test_where_the_programs_find_each_other(becomes, nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVA_CODE_HOST", "code")
    monkeypatch.setenv("NOVA_CODE_PORT", "4321")

    arguments, environment = becomes("serve", "daemon")

    workspace = Path(arguments[arguments.index("--workspace") + 1])
    assert yaml.safe_load(workspace.read_text()) == {
        "load_from": [{"grpc_server": {"host": "code", "port": 4321, "location_name": "nova"}}]
    }
    assert environment["NOVA_HOME"] == str(nova.home)
    assert environment["DAGSTER_HOME"] == str(nova.home / "dagster")
    code, _ = becomes("serve", "code")
    assert code[code.index("--host") + 1 : code.index("--host") + 4] == ["code", "--port", "4321"]


# the demo


def test_the_demo_without_its_packages(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "nova_pipelines.demo.run", None)
    import builtins

    real = builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "nova_pipelines.demo.run":
            raise ModuleNotFoundError("No module named 'fpdf'", name="fpdf")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)

    said = nova("demo", code=2)
    assert "a package that is not installed: fpdf" in said.err
    assert "pip install 'nova-pipelines[demo]'" in said.err


def test_disk_space_is_that_of_the_nearest_folder(nova: Nova, tmp_path: Path):
    from nova_pipelines.compiler.health import _existing

    assert _existing(tmp_path / "not" / "there") == tmp_path
    assert shutil.disk_usage(tmp_path).free > 0
