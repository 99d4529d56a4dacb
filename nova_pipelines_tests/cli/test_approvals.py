"""`nova approvals …`: what waits, what is known of it, and the answer from the command line."""

from __future__ import annotations

from nova_pipelines.database.approvals import Question, ask
from nova_pipelines.database.session import Database
from nova_pipelines.nodes.assignment import new_execution
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.fixtures.chains import publish_chained


def question(title: str = "Pay it?", **facts: str) -> int:
    database = Database(load_settings().database_url)
    workflow_id, version_id = publish_chained(database)
    with database.session() as session:
        execution = new_execution(workflow_id, version_id, None, {})
        session.add(execution)
        session.flush()
        execution.status = "in_approval"
        number = ask(session, execution.id, "ask", Question(title, "operator", facts, 3600, "reject")).id
    database.close()
    return number


def test_a_decision(nova: Nova):
    number = question(supplier="Suministros \x1b[31m S.L.", amount="15.000,59 €")
    listed = nova("approvals", "list").out
    assert "15.000,59 €" in listed
    assert "\x1b" not in listed
    shown = nova("approvals", "show", str(number)).out
    assert "then reject" in shown
    assert "in_approval" in shown
    said = nova("approvals", "approve", str(number), "--note", "as ordered", "--by", "Ana").out
    assert f"approval {number} is approved" in said
    assert "goes on" in said
    row = nova.json("approvals", "show", str(number))
    assert (row["status"], row["decided_by"], row["decided_via"], row["note"]) == (
        "approved",
        "Ana",
        "cli",
        "as ordered",
    )
    assert nova.json("executions", "list")[0]["status"] == "pending"
    assert nova.json("approvals", "list") == []
    assert [row["id"] for row in nova.json("approvals", "list", "--all")] == [number]
    assert [row["id"] for row in nova.json("approvals", "list", "--status", "approved")] == [number]


def test_only_once(nova: Nova):
    number = question()
    assert nova.json("approvals", "reject", str(number), "--by", "Ana")["status"] == "rejected"
    error = nova("approvals", "approve", str(number), code=None)
    assert error.code != 0
    assert f"approval {number} was rejected by Ana at" in error.err


def test_what_is_not_there(nova: Nova):
    assert "there is no approval 7" in nova("approvals", "show", "7", code=3).err
    assert "there is no approval 7" in nova("approvals", "approve", "7", code=3).err
    assert nova.json("approvals", "list") == []
    assert "nothing waits" in nova("approvals", "list").err + nova("approvals", "list").out
