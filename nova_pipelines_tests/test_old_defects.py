"""The defects of the old NOVA that must not come back, by their numbers. (4, 7 and 8 stand with their parts.)"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import DagsterEventType

from nova_pipelines.adapters.sandbox.base import Job, Outcome, Sandbox, SandboxSession
from nova_pipelines.database.executions import release
from nova_pipelines.database.nova import Credential
from nova_pipelines.database.workflows import deactivate, find_workflow
from nova_pipelines.domain.reading import read_invoice
from nova_pipelines.nodes import wiring
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.fixtures.location import load_repository
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, ROOT, World, invoice_pdf

BROKEN_PDF = b"%PDF-1.7\nbroken"


def line(*nodes: dict[str, Any], name: str = "Line") -> str:
    """A workflow of nodes in a row, in JSON."""
    ids = ["start", *(node["id"] for node in nodes), "end"]
    listed = [{"id": "start", "type": "start"}, *nodes, {"id": "end", "type": "end"}]
    edges = [{"from": a, "to": b} for a, b in pairwise(ids)]
    return json.dumps({"name": name, "nodes": listed, "edges": edges})


def action(node: str, code: str, **more: Any) -> dict[str, Any]:
    return {"id": node, "type": "action", "code": code, **more}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def answer_through(world: World, port: int) -> None:
    """The client's answers go out by this port of the loopback."""
    with world.services.databases.nova.session() as session:
        credential = session.get_one(Credential, 1)
        credential.settings = {**credential.settings, "smtp_port": port}


def retry(world: World, *numbers: int) -> None:
    """As `nova executions retry` does."""
    with world.services.databases.nova.session() as session:
        assert release(session, numbers).refused == []


def steps(result: dg.ExecuteInProcessResult, kind: DagsterEventType) -> list[str | None]:
    return [event.step_key for event in result.all_events if event.event_type is kind]


# 1


def test_1_a_failed_node_is_a_failed_execution_a_failed_run_and_an_exit_code(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Was: task SUCCESS with a failed result inside."""
    compiled = world.publish(line(action("work", "raise ValueError('no luck')")))
    number = world.execution(compiled, client=None)

    result = world.run(compiled, executions=[number])

    assert not result.success
    (execution,) = world.executions()
    assert (execution.status, execution.failed_node) == ("failed", "work")
    assert "no luck" in (execution.error or "")
    assert [row.status for row in world.chain(number)] == ["success", "failed"]
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    said = Nova(world.settings.nova_home).program("run", "Line", "--wait", "--json", code=1)
    assert said.json["status"] == "failed"


# 2


@pytest.mark.parametrize(
    "text",
    ['it\'s "quoted" \\ and\\', "'''+__import__('os').system('touch {flag}')+'''", '"""\n{{ 7*7 }} %s {0} ${{x}}'],
    ids=["quotes", "code", "templates"],
)
def test_2_what_stands_in_a_mail_is_data_for_code_and_templates(world: World, tmp_path: Path, text: str):
    """Was: the context pasted into a Python literal, so that a quote broke the run and a subject ran as code."""
    flag = tmp_path / "owned"
    text = text.replace("{flag}", str(flag))
    subject = " ".join(text.split())
    nodes = (
        {"id": "fetch", "type": "mail_fetch"},
        action("measure", "context['seen'] = context['email']['subject'] + '|' + context['email']['text'].strip()"),
        {"id": "tell", "type": "send_mail", "subject": "Re: {{ context.email.subject }}", "body": "Thanks"},
    )
    compiled = world.publish(line(*nodes))
    world.deliver(subject=subject, text=text)

    assert world.run(compiled).success

    assert world.result(1)["seen"] == f"{subject}|{text}"
    (answer,) = world.sink.messages
    assert answer.message["Subject"] == f"Re: {subject}"
    assert not flag.exists()


# 3


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("Importe total: 15.000,00 €", "15000.00"),
        ("Importe total: 1.234,56 €", "1234.56"),
        ("TOTAL 2.500,00 EUR", "2500.00"),
        ("TOTAL FACTURA €1500", "1500"),
        ("Total amount due: EUR 1,500.00", "1500.00"),
    ],
)
def test_3_the_thousands_of_an_amount_count(text: str, amount: str):
    """Was: 15.0, 1.234 and 2.5, so that large invoices passed under the limit."""
    reading = read_invoice([text], today=date(2026, 11, 20))

    assert (reading.total_amount, reading.currency) == (Decimal(amount), "EUR")


# 5


def test_5_a_failure_leaves_the_mail_unread_and_the_next_run_has_it(world: World):
    """Was: marked as read before the work, so that a later failure lost the invoice."""
    compiled = world.publish(INVOICE_PROCESSING)
    uid = world.deliver(invoice_pdf("12100.00"))
    world.give_up_mail_at_once()
    with closed_port() as port:
        answer_through(world, port)
        assert not world.run(compiled).success
    assert "\\Seen" not in world.user.flags()[uid]

    answer_through(world, world.sink.port)
    retry(world, 1)
    assert world.run(compiled).success
    assert "\\Seen" in world.user.flags()[uid]
    assert (len(world.invoices()), len(world.sink.messages)) == (1, 1)


def test_5_two_runs_at_the_same_time_never_have_the_same_mail(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    for number in range(4):
        world.deliver(invoice_pdf("12100.00", number=f"F-{number}"))

    with ThreadPoolExecutor(2) as threads:
        results = [threads.submit(world.run, compiled) for _ in range(2)]
        assert all(result.result().success for result in results)

    counts = (len(world.messages()), len(world.executions()), len(world.invoices()), len(world.sink.messages))
    assert counts == (4, 4, 4, 4)
    assert {message.status for message in world.messages()} == {"assigned"}


def test_5_an_empty_inbox_rejects_nobody(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    assert world.run(compiled).success
    by_hand = world.execution(compiled)

    assert world.run(compiled, executions=[by_hand]).success

    assert world.sink.messages == []
    assert [row.node_id for row in world.chain(by_hand)] == ["start", "mail_fetch"]


# 6


def test_6_a_retry_goes_on_at_the_node_that_failed(world: World, instance: dg.DagsterInstance):
    """Was: the whole workflow again, from the mailbox on."""
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver(invoice_pdf("12100.00"))
    world.give_up_mail_at_once()
    with closed_port() as port:
        answer_through(world, port)
        failed = world.run(compiled, instance=instance)
    assert steps(failed, DagsterEventType.STEP_FAILURE) == ["tell_sender"]
    assert world.outbox()[0].attempts == 1

    answer_through(world, world.sink.port)
    retry(world, 1)
    assert world.run(compiled, instance=instance).success

    before, after = [row.node_id for row in world.chain(1) if row.status == "success"], world.chain(1)
    assert len(before) == len(set(before))
    assert [row.node_id for row in after if row.status == "failed"] == ["tell_sender"]
    assert len(world.invoices()) == 1


def test_6_what_is_not_valid_is_not_retried(world: World, instance: dg.DagsterInstance):
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver(BROKEN_PDF)

    result = world.run(compiled, instance=instance)

    assert not result.success
    assert steps(result, DagsterEventType.STEP_UP_FOR_RETRY) == []
    assert [row.node_id for row in world.chain(1)].count("extract_invoice") == 1


# 9


def test_9_a_workflow_with_executions_can_be_removed_and_its_history_stays(world: World):
    """Was: 500."""
    compiled = world.publish(line(action("work", "context['n'] = 1")))
    number = world.execution(compiled, client=None)
    assert world.run(compiled, executions=[number]).success
    assert "line" in load_repository().job_names

    with world.services.databases.nova.session() as session:
        deactivate(session, find_workflow(session, "Line"))

    assert "line" not in load_repository().job_names
    nova = Nova(world.settings.nova_home)
    assert nova.json("workflow", "list") == []
    assert nova.json("executions", "show", str(number))["context"] == {"n": 1}
    assert [row["node_id"] for row in nova.json("chain", "show", str(number))["entries"]] == ["start", "work", "end"]
    assert nova.json("chain", "verify")["intact"]


# 10


def test_10_alembic_works_from_the_root_on_databases_that_are_not_there_yet(
    bare_home: Path,
):
    """Was: failed on an empty database, and columns existed only in scripts. (The way down and up again:
    `database/test_migrations.py`.)"""
    alembic("upgrade", "head")
    full = {name: tables(bare_home / f"{name}.db") for name in ("nova", "facturas")}
    assert {"workflows", "executions", "chain_of_work", "clients"} <= full["nova"]
    assert "invoices" in full["facturas"]
    assert alembic("check") == "No new upgrade operations detected."


def alembic(*arguments: str) -> str:
    program = Path(sys.executable).parent / "alembic"
    done = subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def tables(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


@pytest.fixture
def bare_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("DATABASE_URL", "FACTURAS_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NOVA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


# 11


def test_11_a_high_amount_is_stored_as_waiting_for_approval_and_answered(world: World):
    """Was: only announced by mail, and stored nowhere."""
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver(invoice_pdf("12100.00"))

    assert world.run(compiled).success

    (invoice,) = world.invoices()
    assert (f"{invoice.total_amount:.2f}", invoice.status) == ("12100.00", "pending_approval")
    assert len(world.sink.messages) == 1
    assert world.result(1)["action_taken"] == "email_sent"


# 12


class Counted:
    """The real sandbox, which tells how often it was opened, for how long, and by which session jobs were run."""

    def __init__(self, real: Sandbox) -> None:
        self._real, self.name = real, real.name
        self.lives: list[float] = []
        self.jobs: list[SandboxSession] = []

    def check(self) -> list[str]:
        return self._real.check()

    def session(
        self, *, network: bool = False, life_seconds: float = 3600.0, metadata: Mapping[str, str] | None = None
    ) -> SandboxSession:
        self.lives.append(life_seconds)
        opened = self._real.session(network=network, life_seconds=life_seconds, metadata=metadata)
        run = opened.run

        def counting(job: Job) -> Outcome:
            self.jobs.append(opened)
            return run(job)

        opened.run = counting  # type: ignore[method-assign]
        return opened


def test_12_one_sandbox_for_all_nodes_and_items_of_a_run_and_for_long_enough(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Was: a new one for every node, which lived 120 s whatever the nodes' timeouts."""
    made: list[Counted] = []
    build = wiring.build_sandbox

    def counted(*arguments: Any, **named: Any) -> Counted:
        made.append(Counted(build(*arguments, **named)))
        return made[-1]

    monkeypatch.setattr(wiring, "build_sandbox", counted)
    nodes = [action(f"node{number}", f"context['n{number}'] = 1", timeout=300) for number in range(3)]
    compiled = world.publish(line({"id": "fetch", "type": "mail_fetch"}, *nodes))
    for number in range(4):
        world.deliver(subject=f"Mail {number}")

    result = world.run(compiled)

    assert result.success
    (sandbox,) = made
    assert len(sandbox.jobs) == 4 * 3
    assert len({id(session) for session in sandbox.jobs}) == 1
    (life,) = sandbox.lives
    assert life >= 3 * 300
    assert life >= float(result.dagster_run.tags["dagster/max_runtime"])
