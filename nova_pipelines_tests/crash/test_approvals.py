"""SIGKILL around a question to a person: it is asked once, mailed once, answered once, and nothing is done twice."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.approvals import decide
from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.ways import crash
from nova_pipelines_tests.crash.worker import Kill
from nova_pipelines_tests.fixtures.world import ROOT, World, invoice_pdf

WORKFLOW = (ROOT / "workflows" / "invoice_approval.yaml").read_text()
ASKED = [
    Kill("nova_pipelines.nodes.approval:ask", "after"),
    Kill("nova_pipelines.nodes.approval:tell", "after"),
    Kill("nova_pipelines.compiler.journal:Journal.put_off", "before"),
    Kill("nova_pipelines.compiler.journal:Journal.put_off", "after"),
]
ANSWERED = [
    Kill("node", "after", "approval"),
    Kill("record", "after", "approval"),
    Kill("node", "after", "approved"),
    Kill("record", "after", "approved"),
]


def begun(world: World, engine: Engine) -> str:
    world.publish(WORKFLOW.replace("then: escalate ", "to: [luis@idom.example]\n    then: escalate "))
    world.deliver(invoice_pdf("15000.59"))
    return engine.launch(job="invoice_approval")


def the_question(world: World) -> Approval:
    with world.services.databases.nova.read() as session:
        (row,) = session.scalars(select(Approval)).all()
        return row


def answer_and_finish(world: World, engine: Engine, *kills: Kill) -> None:
    with world.services.databases.nova.session() as session:
        decide(session, the_question(world).id, "approved", by="Ana", via="page")
    (row,) = world.executions()
    run_id = engine.launch([row.id], job="invoice_approval")
    for kill in kills:
        retry = crash(engine, run_id, kill)
        assert retry is not None
        run_id = retry
    assert engine.work(run_id) == 0
    (row,) = world.executions()
    assert row.status == "completed"
    nodes = [(entry.node_id, entry.status) for entry in world.chain(row.id)]
    assert nodes[-3:] == [("approval", "success"), ("approved", "success"), ("end", "success")]
    assert len(nodes) == len(set(nodes))
    assert [invoice.status for invoice in world.invoices()] == ["approved"]
    assert verify_chains(world.services.databases.nova).intact


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(kill, id=str(kill), marks=[pytest.mark.crash] if kill.place.endswith("put_off") else [])
        for kill in ASKED
    ],
)
def test_it_is_asked_once(world: World, engine: Engine, kill: Kill):
    retry = crash(engine, begun(world, engine), kill)
    if retry is not None:
        assert engine.work(retry) == 0
    assert world.executions()[0].status == "in_approval"
    assert the_question(world).round == 1
    assert [mail.recipients for mail in world.sink.messages] == [["luis@idom.example"]]
    answer_and_finish(world, engine)


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(kill, id=str(kill), marks=[] if place == 0 else [pytest.mark.crash])
        for place, kill in enumerate(ANSWERED)
    ],
)
def test_an_answer_is_not_lost(world: World, engine: Engine, kill: Kill):
    assert engine.work(begun(world, engine)) == 0
    answer_and_finish(world, engine, kill)
