"""`nova run`, `nova executions`, `nova chain`, `nova invoices`: work, and what came of it."""

from __future__ import annotations

import signal
import subprocess
import time
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.session import Database
from nova_pipelines_tests.cli.conftest import PROGRAM, Nova, arithmetic
from nova_pipelines_tests.fixtures.chains import change, write_chain


@pytest.fixture
def loaded(nova: Nova, tmp_path: Path) -> Nova:
    path = tmp_path / "double.json"
    path.write_text(arithmetic())
    nova("workflow", "load", path)
    nova("client", "add", "idom")
    return nova


@pytest.fixture
def database(nova: Nova):
    opened = Database(f"sqlite:///{nova.home / 'nova.db'}")
    yield opened
    opened.close()


def set_status(database: Database, number: int, status: str) -> None:
    with database.session() as session:
        row = session.get_one(Execution, number)
        row.status, row.run_id, row.error, row.failed_node = status, "run-1", "no luck", "work"


def test_run_leaves_it_to_the_daemon(loaded: Nova):
    said = loaded("run", "double it", "--client", "idom", "--context", '{"amount": 12}')

    assert "execution 1 of Double It is waiting" in said.out
    assert "when NOVA runs" in said.out
    shown = loaded.json("executions", "show", "1")
    assert (shown["status"], shown["client"], shown["run_id"]) == ("pending", "idom", None)
    assert shown["initial_context"] == shown["context"] == {"amount": 12}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--client", "nobody"), 3, "no client"),
        (("--context", "[1]"), 1, "must be a JSON object"),
        (("--context", "{"), 1, "not valid JSON"),
        (("--context", '{"a": NaN}'), 1, "not plain JSON"),
        (("--context", "[" * 100_000), 1, "not valid JSON"),
    ],
)
def test_run_with_wrong_input_stores_nothing(loaded: Nova, arguments: tuple[str, ...], code: int, words: str):
    assert words in loaded("run", "double it", *arguments, code=code).err
    assert loaded.json("executions", "list") == []


def test_an_inactive_client_gets_no_execution(loaded: Nova):
    loaded("client", "update", "idom", "--inactive")

    assert loaded("run", "double it", "--client", "idom", code=3).err


def test_run_and_wait(loaded: Nova):
    """By Dagster, in the command's own process: the result, its exit code, and a quiet console."""
    said = loaded.program("run", "double it", "--client", "idom", "--context", '{"amount": 77}', "--wait", "--json")

    shown = said.json
    assert (shown["status"], shown["version"], shown["error"]) == ("completed", 1, None)
    assert shown["context"]["result"] == 154
    assert "dagster" not in said.err.lower()
    assert (loaded.home / "dagster" / "dagster.yaml").exists()
    entries = loaded.json("chain", "show", "1")["entries"]
    assert [entry["node_id"] for entry in entries] == ["start", "work", "big", "end"]
    assert loaded.json("chain", "verify")["intact"]


def test_run_wait_fails_and_is_retried_at_the_node_where_it_stopped(loaded: Nova, tmp_path: Path):
    said = loaded.program("run", "double it", "--context", '{"amount": 1, "bad": 1}', "--wait", "--json", code=1)
    assert (said.json["status"], said.json["failed_node"]) == ("failed", "work")
    assert said.json["context"] == {"amount": 1, "bad": 1}
    assert "bad luck" in said.json["error"]

    # a corrected version, which the retry takes: the newest
    path = tmp_path / "double.json"
    path.write_text(arithmetic(factor=10).replace("if context.get('bad'):", "if False:"))
    loaded("workflow", "load", path)
    said = loaded.program("executions", "retry", "1", "--wait", "--json")

    (shown,) = said.json["retried"]
    assert (shown["status"], shown["version"], shown["context"]["result"]) == ("completed", 2, 10)
    entries = loaded.json("chain", "show", "1")["entries"]
    assert [(entry["node_id"], entry["status"]) for entry in entries] == [
        ("start", "success"),
        ("work", "failed"),
        ("work", "success"),
        ("big", "success"),
        ("small end", "success"),
    ]
    assert loaded.json("chain", "verify")["intact"]


def test_retry_for_the_daemon(loaded: Nova, database: Database):
    for _ in range(3):
        loaded("run", "double it", "--context", '{"amount": 1}')
    for number, status in ((1, "failed"), (2, "completed"), (3, "unknown")):
        set_status(database, number, status)

    said = loaded("executions", "retry", "1", "2", "3", "99", code=1)
    assert "execution 1: waiting again" in said.out
    assert "execution 2 is not retried: it is completed" in said.err
    assert "execution 3 is not retried: the work at node 'work' may have been done" in said.err
    assert "execution 99 is not retried: there is no such execution" in said.err

    assert loaded.json("executions", "retry", "3", "--force")["refused"] == []
    assert [row["status"] for row in loaded.json("executions", "list")] == ["pending", "completed", "pending"]


def test_retry_all_that_failed(loaded: Nova, database: Database):
    for _ in range(3):
        loaded("run", "double it", "--context", '{"amount": 1}')
    for number, status in ((1, "failed"), (2, "failed"), (3, "needs_review")):
        set_status(database, number, status)

    assert [row["id"] for row in loaded.json("executions", "retry", "--failed")["retried"]] == [1, 2]
    assert "no execution has failed" in loaded("executions", "retry", "--failed").out


def test_retry_needs_numbers_or_failed(loaded: Nova):
    loaded("executions", "retry", code=2)
    loaded("executions", "retry", "1", "--failed", code=2)


def test_lists_are_filtered(loaded: Nova, database: Database):
    loaded("run", "double it", "--client", "idom", "--context", '{"amount": 1}')
    loaded("run", "double it", "--context", '{"amount": 1}')
    set_status(database, 2, "failed")

    def listed(*arguments: str) -> list[int]:
        return [row["id"] for row in loaded.json("executions", "list", *arguments)]

    assert listed() == [2, 1]
    assert listed("--limit", "1") == [2]
    assert listed("--status", "failed", "--status", "pending") == [2, 1]
    assert listed("--status", "failed") == [2]
    assert listed("--client", "idom") == [1]
    assert listed("--workflow", "double_it", "--status", "completed") == []
    assert "1 pending, 1 failed" in loaded("executions", "list").err
    assert "no luck" in loaded("executions", "list").out


def test_the_chain_is_shown_with_contexts(nova: Nova, database: Database):
    number = write_chain(database, ["fetch", "save"], last="failed", context={"text": "ñ" * 40_000})

    out = nova("chain", "show", str(number)).out
    assert "error at save (row 2): it went wrong" in out
    assert "0.125" in out
    assert "ñ" * 40_000 in nova("chain", "show", str(number), "--context").out
    entries = nova.json("chain", "show", str(number))["entries"]
    assert entries[0]["input_context"] == {"text": "ñ" * 40_000}
    assert entries[1]["output_result"] is None


def test_verify_names_the_row(nova: Nova, database: Database):
    number = write_chain(database, ["fetch", "save"])
    assert "intact: 2 rows of 1 executions" in nova("chain", "verify").out

    change(database, "UPDATE chain_of_work SET path_taken = 'false' WHERE node_id = 'save'")

    said = nova("chain", "verify", code=1)
    assert "the row was changed" in said.out
    found = nova("chain", "verify", str(number), "--json", code=1).json
    assert not found["intact"]
    assert [(f["execution_id"], f["row_id"], f["node_id"]) for f in found["findings"]] == [(number, 2, "save")]


def test_a_row_that_became_unreadable_is_named_and_shown(nova: Nova, database: Database):
    number = write_chain(database, ["fetch", "save"])
    change(database, "UPDATE chain_of_work SET output_result = '{\"a\": ' WHERE id = 1")

    assert nova("chain", "verify", "--json", code=1).json["findings"][0]["row_id"] == 1
    assert nova.json("chain", "show", str(number))["entries"][0]["output_result"] == '{"a": '
    assert '{"a": ' in nova("chain", "show", str(number), "--context").out.replace('\\"', '"')


@pytest.fixture
def invoices(nova: Nova):
    facturas = Database(f"sqlite:///{nova.home / 'facturas.db'}")
    with facturas.session() as session:
        for number, amount in enumerate(("1234.56", "0.10", "0.20"), start=1):
            session.add(
                Invoice(
                    client_slug="idom" if number > 1 else "other",
                    supplier_name="Suministros \x1b[31m",
                    invoice_number=f"F-{number}",
                    issue_date=date(2026, 8, number),
                    total_amount=Decimal(amount),
                    currency="EUR",
                    document_sha256=f"{number}",
                    status="pending_approval" if number == 1 else "accepted",
                )
            )
    facturas.close()
    return nova


def test_invoices(invoices: Nova):
    said = invoices("invoices", "list")
    assert "1.234,56 €" in said.out
    assert "3 invoices in EUR: 1.234,86 €" in said.err
    assert "\x1b" not in said.out

    rows = invoices.json("invoices", "list", "--client", "idom")
    assert [(row["invoice_number"], Decimal(row["total_amount"])) for row in rows] == [
        ("F-3", Decimal("0.20")),
        ("F-2", Decimal("0.10")),
    ]
    assert "2 invoices in EUR: 0,30 €" in invoices("invoices", "list", "--client", "idom").err
    assert [row["id"] for row in invoices.json("invoices", "list", "--status", "pending_approval")] == [1]
    assert [row["id"] for row in invoices.json("invoices", "list", "--limit", "1")] == [3]


def test_ctrl_c_leaves_an_execution_that_can_be_retried(loaded: Nova, tmp_path: Path):
    path = tmp_path / "sleeper.json"
    path.write_text(arithmetic("Sleeper").replace("context['result'] =", "import time; time.sleep(50); x ="))
    loaded("workflow", "load", path)
    with subprocess.Popen([*PROGRAM, "run", "sleeper", "--wait"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        deadline = time.monotonic() + 60
        while len(loaded.json("chain", "show", "1")["entries"] if loaded.json("executions", "list") else ()) < 1:
            assert time.monotonic() < deadline
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        code, said = process.wait(60), process.stderr.read()

    assert code == 130, said
    assert "Traceback" not in said
    shown = loaded.json("executions", "show", "1")
    assert shown["status"] == "failed", shown
    assert loaded.json("executions", "retry", "1")["refused"] == []
