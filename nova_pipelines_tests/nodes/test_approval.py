"""An execution waits for a person without a run, and goes on as was decided: by a person, once, or by the deadline."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.approvals import apply_deadlines, decide
from nova_pipelines.database.executions import release
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.outbox import resolve
from nova_pipelines.domain.approval_links import PURPOSE, read
from nova_pipelines.domain.errors import Conflict, DefinitionError
from nova_pipelines.nodes.registry import read_definition
from nova_pipelines_tests.fixtures.world import ROOT, World, invoice_pdf

APPROVAL_WORKFLOW = ROOT / "workflows" / "invoice_approval.yaml"


def asking(**config) -> dict:
    ways = config.pop("ways", ("approved", "rejected"))
    nodes = [
        {"id": "start", "type": "start", "next": "ask"},
        {"id": "ask", "type": "approval", "label": "Pay it?", **config, "next": {way: way for way in ways}},
        *({"id": way, "type": "end"} for way in ways),
    ]
    return {"name": "Asks", "nodes": nodes}


def approvals(world: World) -> list[Approval]:
    with world.services.databases.nova.read() as session:
        rows = list(session.scalars(select(Approval).order_by(Approval.id)))
        session.expunge_all()
        return rows


def answer(world: World, number: int, decision="approved", **more):
    with world.services.databases.nova.session() as session:
        return decide(session, number, decision, by="Ana", via="page", **more)


def deadlines(world: World) -> list[str]:
    with world.services.databases.nova.session() as session:
        return [done.status for done in apply_deadlines(session)]


def overdue(world: World) -> None:
    with world.services.databases.nova.session() as session:
        session.execute(update(Approval).values(deadline_at=datetime.now(UTC) - timedelta(seconds=1)))


def asked(world: World, **config) -> tuple[Compiled, int]:
    compiled = world.publish(asking(**config))
    number = world.execution(compiled, {"invoice": {"total_amount": 15000.59, "currency": "EUR"}})
    assert world.run(compiled, executions=[number]).success
    return compiled, number


def test_it_waits_without_a_run_and_goes_on_when_it_is_approved(world: World):
    compiled, number = asked(world)
    (row,) = world.executions()
    (approval,) = approvals(world)
    assert (row.status, row.run_id, row.waits_until) == ("in_approval", None, approval.deadline_at)
    assert [entry.node_id for entry in world.chain(number)] == ["start"]
    assert approval.facts == {"amount": "15.000,59 €", "total": "15000.59", "currency": "EUR"}

    done = answer(world, approval.id, note="Looks right")
    assert done.goes_on
    assert [row.status for row in world.executions()] == ["pending"]
    assert world.run(compiled, executions=[number]).success

    assert [row.status for row in world.executions()] == ["completed"]
    assert [entry.node_id for entry in world.chain(number)] == ["start", "ask", "approved"]
    entry = world.chain(number)[1]
    assert (entry.decision_result, entry.path_taken) == ("approved by Ana (page): Looks right", "approved")
    said = world.result(number)["approval"]
    assert {name: said[name] for name in ("decision", "by", "via", "note")} == {
        "decision": "approved",
        "by": "Ana",
        "via": "page",
        "note": "Looks right",
    }
    assert verify_chains(world.services.databases.nova).intact


def test_the_second_answer_is_told_who_gave_the_first(world: World):
    _, number = asked(world)
    answer(world, 1, "rejected")
    with pytest.raises(Conflict, match="approval 1 was rejected by Ana at"):
        answer(world, 1)
    assert [row.status for row in approvals(world)] == ["rejected"]
    with world.services.databases.nova.session() as session:
        assert [refusal.execution_id for refusal in release(session, [number]).refused] == [number]


def test_an_answer_while_its_run_still_works_is_not_lost(world: World, monkeypatch: pytest.MonkeyPatch):
    """It comes after the node has looked and before the execution is given back."""
    from nova_pipelines.compiler.journal import Journal

    given_back = Journal.put_off

    def first_somebody_answers(self, items):
        if items:
            assert not answer(world, 1).goes_on  # the run has it still
        given_back(self, items)

    monkeypatch.setattr(Journal, "put_off", first_somebody_answers)
    compiled, number = asked(world)
    monkeypatch.undo()
    (row,) = world.executions()
    assert (row.status, row.run_id, row.waits_until) == ("pending", None, None)
    world.run(compiled, executions=[number])
    assert world.executions()[0].status == "completed"


@pytest.mark.parametrize(
    ("then", "ways", "last"),
    [
        ("approve", ("approved", "rejected"), "approved"),
        ("reject", ("approved", "rejected"), "rejected"),
        ("expired", ("approved", "rejected", "expired"), "expired"),
    ],
)
def test_a_deadline_is_applied_once(world: World, then: str, ways: tuple[str, ...], last: str):
    compiled, number = asked(world, then=then, ways=ways, deadline="2h")
    assert deadlines(world) == []
    overdue(world)
    with pytest.raises(Conflict, match="the deadline of approval 1 passed"):
        answer(world, 1)
    assert deadlines(world) == [last]
    assert deadlines(world) == []
    world.run(compiled, executions=[number])
    assert [entry.node_id for entry in world.chain(number)] == ["start", "ask", last]
    assert world.chain(number)[1].decision_result == f"{last} by the deadline (deadline)"


def test_without_a_way_for_it_the_execution_fails_and_a_retry_asks_again(world: World):
    compiled, number = asked(world)
    overdue(world)
    assert deadlines(world) == ["expired"]
    assert not world.run(compiled, executions=[number]).success
    (row,) = world.executions()
    assert row.status == "failed"
    assert "nobody decided about approval 1" in (row.error or "")
    with world.services.databases.nova.session() as session:
        assert release(session, [number]).released == [number]
    assert world.run(compiled, executions=[number]).success
    (approval,) = approvals(world)
    assert (approval.status, approval.round, world.executions()[0].status) == ("pending", 2, "in_approval")
    assert approval.deadline_at > datetime.now(UTC) + timedelta(days=6)
    answer(world, 1)
    world.run(compiled, executions=[number])
    assert [(entry.node_id, entry.status) for entry in world.chain(number)] == [
        ("start", "success"),
        ("ask", "failed"),
        ("ask", "success"),
        ("approved", "success"),
    ]
    assert verify_chains(world.services.databases.nova).intact


def test_it_is_passed_on_once(world: World):
    compiled, number = asked(
        world, then="escalate", to=["ana@idom.example"], escalate_to=["boss@idom.example"], deadline=3600
    )
    overdue(world)
    assert deadlines(world) == ["pending"]
    assert deadlines(world) == []
    world.run(compiled, executions=[number])
    assert [mail.recipients for mail in world.sink.messages] == [["ana@idom.example"], ["boss@idom.example"]]
    assert world.executions()[0].status == "in_approval"
    overdue(world)
    assert deadlines(world) == ["expired"]


def test_mails_carry_links_that_are_stored_nowhere(world: World):
    _, number = asked(world, to=["ana@idom.example", "luis@idom.example"])
    sent = [mail.message for mail in world.sink.messages]
    assert [mail["To"] for mail in sent] == ["ana@idom.example", "luis@idom.example"]
    text = sent[0].get_content()
    assert "15.000,59 €" in text
    tokens = [word.partition("#")[2] for word in text.split() if "/pages/decide#" in word]
    keys = world.services.box().derived(PURPOSE)
    links = [read(keys, token) for token in tokens]
    assert [(link.approval_id, link.answer, link.address) for link in links] == [
        (1, "approved", "ana@idom.example"),
        (1, "rejected", "ana@idom.example"),
    ]
    stored = "".join(mail.body for mail in world.outbox())
    assert "decide#" not in stored
    assert [mail.status for mail in world.outbox()] == ["sent", "sent"]
    # a run that looks once more sends nothing more
    with world.services.databases.nova.session() as session:
        session.execute(update(Execution).values(status="pending"))
    with world.services.databases.nova.read() as session:
        version = session.get_one(Execution, number).version_id
    assert version
    world.run(world.publish(asking(to=["ana@idom.example", "luis@idom.example"])), executions=[number])
    assert len(world.sink.messages) == 2


def test_a_mail_that_does_not_go_out_keeps_nobody_from_deciding(world: World):
    world.sink.refuse["ana@idom.example"] = "550 5.1.1 no such user"
    compiled, number = asked(world, to=["ana@idom.example"])
    (approval,) = approvals(world)
    assert approval.mail_problem
    assert world.executions()[0].status == "in_approval"
    with world.services.databases.nova.session() as session:
        assert resolve(session, world.outbox()[0].id, "resend", by="Ana").goes_on
    answer(world, approval.id)
    world.run(compiled, executions=[number])
    assert world.executions()[0].status == "completed"


@pytest.mark.parametrize(
    ("decision", "status", "last", "mails"),
    [("approved", "approved", "invoice_approved", 0), ("rejected", "rejected", "email_sent", 1)],
)
def test_the_example_decides_about_a_high_amount(world: World, decision: str, status: str, last: str, mails: int):
    compiled = world.publish(APPROVAL_WORKFLOW)
    world.deliver(invoice_pdf("15000.59"))
    assert world.run(compiled).success
    (row,) = world.executions()
    assert row.status == "in_approval"
    assert [invoice.status for invoice in world.invoices()] == ["pending_approval"]
    (approval,) = approvals(world)
    assert approval.facts["supplier"] == "Suministros Ibéricos S.L."
    answer(world, approval.id, decision)
    assert world.run(compiled, executions=[row.id]).success
    assert [invoice.status for invoice in world.invoices()] == [status]
    assert world.result(row.id)["action_taken"] == last
    assert len(world.sink.messages) == mails
    assert world.messages()[0].flagged_at is not None


def test_a_low_amount_asks_nobody(world: World):
    compiled = world.publish(APPROVAL_WORKFLOW)
    world.deliver(invoice_pdf("242.00"))
    assert world.run(compiled).success
    assert [invoice.status for invoice in world.invoices()] == ["accepted"]
    assert approvals(world) == []


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"ways": ("approved",)}, "needs the ways 'approved' and 'rejected', and may have 'expired'"),
        ({"ways": ("approved", "rejected", "late")}, "needs the ways 'approved' and 'rejected'"),
        ({"deadline": "soon"}, "must be seconds, or a text"),
        ({"deadline": 0}, "between a second and a year"),
        ({"deadline": float("inf")}, "not a finite number"),
        ({"deadline": "53w"}, "between a second and a year"),
        ({"to": ["nobody"]}, "must be a mail address"),
        ({"to": ["a@b.example\nBcc: c@d.example"]}, "must be one line"),
        ({"then": "shrug"}, "must be"),
    ],
)
def test_what_cannot_work_is_refused(config: dict, reason: str):
    import json

    with pytest.raises(DefinitionError, match=reason):
        read_definition(json.dumps(asking(**config)))
