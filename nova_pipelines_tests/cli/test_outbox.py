"""`nova outbox`: what a person sees and says of a mail of which nobody else knows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nova_pipelines.cli import outbox
from nova_pipelines.database.nova import Execution, OutboxMail
from nova_pipelines.database.outbox import STATUSES
from nova_pipelines.database.session import Database
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.crash.rows import add_executions


def test_every_status_can_be_asked_for_and_is_explained():
    assert [status.value for status in outbox.Status] == list(STATUSES) == list(outbox.MEANINGS)


@pytest.fixture
def database(nova: Nova) -> Iterator[Database]:
    """Three mails for the client idom: sent, unknown, held; and one for nobody that waits."""
    database = Database(load_settings().database_url)
    numbers, _ = add_executions(database, 3, client="idom")
    states = (("sent", "completed"), ("unknown", "unknown"), ("held", "needs_review"), ("pending", "pending"))
    with database.session() as session:
        other = session.get_one(Execution, numbers[0])
        session.add(
            Execution(task_id="4", workflow_id=other.workflow_id, version_id=other.version_id, initial_context={})
        )
        session.flush()
        for number, (status, execution_status) in enumerate(states, start=1):
            execution = session.get_one(Execution, number)
            execution.status = execution_status
            execution.failed_node = "tell" if execution_status in ("unknown", "needs_review") else None
            mail = OutboxMail(
                execution_id=number,
                node_id="tell",
                message_id=f"<{number}@nova>",
                sender="a@idom.es",
                recipient=f"ana{number}@x.es",
                subject="Re: \x1b[31mFactura",
                body="Hola",
                status=status,
            )
            session.add(mail)
    yield database
    database.close()


def statuses(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        rows = [session.get_one(OutboxMail, number) for number in (1, 2, 3, 4)]
        return [(row.status, session.get_one(Execution, row.execution_id).status) for row in rows]


def test_before_there_is_any(nova: Nova):
    assert "no mail" in nova("outbox", "list").err
    assert nova.json("outbox", "list") == []
    assert nova("outbox", "show", "1", "--json", code=3).error["type"] == "NotFound"


@pytest.mark.usefixtures("database")
def test_list_and_show(nova: Nova):
    said = nova("outbox", "list")
    assert "\x1b[31m" not in said.out
    assert "1 sent" in said.err
    assert "1 unknown" in said.err
    assert [row["id"] for row in nova.json("outbox", "list")] == [4, 3, 2, 1]
    assert [row["id"] for row in nova.json("outbox", "list", "--status", "unknown", "--status", "held")] == [3, 2]
    assert [row["id"] for row in nova.json("outbox", "list", "--client", "idom", "--limit", "2")] == [3, 2]
    nova("outbox", "list", "--client", "nobody", code=3)
    nova("outbox", "list", "--status", "lost", code=2)
    shown = nova("outbox", "show", "2")
    assert "nobody knows whether the server took it" in shown.out
    assert "<2@nova>" in shown.out
    assert "nova outbox resolve 2" in shown.err
    assert nova.json("outbox", "show", "2")["body"] == "Hola"


def test_doctor_says_so_until_a_person_has_decided(nova: Nova, database: Database):
    checks = {check["name"]: check for check in nova.json("doctor", code=None)["checks"]}
    assert not checks["outbox"]["ok"]
    assert checks["outbox"]["message"] == "mails that need a person: unknown: 2; held: 3"
    assert "nova outbox resolve" in checks["outbox"]["remedy"]

    said = nova("outbox", "resolve", "2", "--sent", "--note", "it lies in Sent", "--by", "eva")
    assert "mail 2 counts as sent" in said.out
    assert "execution 2 goes on" in said.out
    assert nova.json("outbox", "resolve", "3", "--drop") == {
        "mail_id": 3,
        "status": "dropped",
        "execution_id": 3,
        "goes_on": True,
        "reason": "",
    }
    assert statuses(database)[1:3] == [("sent", "pending"), ("dropped", "pending")]
    (decision,) = nova.json("outbox", "show", "2")["decisions"]
    assert (decision["decision"], decision["by"], decision["note"]) == ("sent", "eva", "it lies in Sent")
    assert "by eva: it lies in Sent" in nova("outbox", "show", "2").out
    assert nova.json("outbox", "show", "3")["decisions"][0]["by"]  # the user of this machine
    checks = {check["name"]: check for check in nova.json("doctor", code=None)["checks"]}
    assert (checks["outbox"]["ok"], checks["outbox"]["message"]) == (True, "2 sent, 1 pending")


def test_what_cannot_be_decided(nova: Nova, database: Database):
    for options in ((), ("--sent", "--drop")):
        assert "say one thing" in nova("outbox", "resolve", "2", *options, code=2).err
    assert "is sent already" in nova("outbox", "resolve", "1", "--resend", code=1).err
    nova("outbox", "resolve", "99", "--sent", code=3)
    assert statuses(database)[:2] == [("sent", "completed"), ("unknown", "unknown")]


def test_a_forced_retry_is_a_decision_too(nova: Nova, database: Database):
    nova("executions", "retry", "2", "--force")
    assert statuses(database)[1] == ("pending", "pending")
    (decision,) = nova.json("outbox", "show", "2")["decisions"]
    assert (decision["decision"], decision["by"]) == ("resend", "nova executions retry --force")
