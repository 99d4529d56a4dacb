"""Compiled jobs on Dagster: the main job, batches, failures of single items, re-execution."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf

PURE = {
    "name": "Pure code",
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "double", "type": "action", "code": "context['n'] = context['n'] * 2", "executor": "e2b"},
        {"id": "big", "type": "decision", "code": "context['branch_decision'] = context['n'] > 10"},
        {"id": "odd", "type": "decision", "code": "context['odd'] = 'Tiny' if context['n'] < 4 else False"},
        {"id": "praise", "type": "action", "code": "context['word'] = 'big'"},
        {"id": "end", "type": "end"},
    ],
    "edges": [
        {"from": "start", "to": "double"},
        {"from": "double", "to": "big"},
        {"from": "big", "to": "praise", "condition": "true"},
        {"from": "big", "to": "odd", "condition": "false"},
        {"from": "odd", "to": "end", "condition": "true"},
        {"from": "odd", "to": "end", "condition": "false"},
        {"from": "odd", "to": "end", "condition": "tiny"},
        {"from": "praise", "to": "end"},
    ],
}


def test_low_amount_goes_through_every_node(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    uid = world.deliver(invoice_pdf("242.00"))
    result = world.run(compiled)
    assert result.success
    (execution,) = world.executions()
    assert execution.status == "completed"
    chain = world.chain(execution.id)
    assert [row.node_id for row in chain] == [
        "start", "mail_fetch", "has_pdf", "extract_invoice", "amount", "invoice_write", "end",
    ]  # fmt: skip
    assert [row.decision_result for row in chain] == [None, None, "true", None, "low_amount", None, None]
    assert [row.path_taken for row in chain] == [
        "mail_fetch", "has_pdf", "true", "amount", "low_amount", "end", None,
    ]  # fmt: skip
    assert all(row.execution_time >= 0 and row.timestamp.tzinfo for row in chain)
    assert chain[2].input_context["has_pdf"] is True
    assert verify_chains(world.services.databases.nova, execution.id).findings == []
    (invoice,) = world.invoices()
    assert (f"{invoice.total_amount:.2f}", invoice.currency, invoice.status) == ("242.00", "EUR", "accepted")
    final = world.result(execution.id)
    assert final["decision"] == "low_amount"
    assert final["action_taken"] == "invoice_saved"
    assert final["invoice_id"] == invoice.id
    assert final["amount_detected"] == 242.00
    assert final["email_processed"] is True
    assert final["pdf_extracted"] is True
    assert "\\Seen" in world.user.flags()[uid]


def test_high_amount_is_stored_for_approval_and_answered(world: World):
    """Old defects 3 and 11: 15.000,00 € is not 15.0, and a high amount is stored too."""
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver(invoice_pdf("15000.59"), Message_ID="<high@proveedores.example>")
    assert world.run(compiled).success
    (invoice,) = world.invoices()
    assert (f"{invoice.total_amount:.2f}", invoice.status) == ("15000.59", "pending_approval")
    (execution,) = world.executions()
    final = world.result(execution.id)
    assert (final["decision"], final["action_taken"]) == ("high_amount", "email_sent")
    (answer,) = world.sink.messages
    assert answer.message["In-Reply-To"] == "<high@proveedores.example>"
    assert "15.000,59" in answer.message.get_content()


def test_a_mail_without_pdf_is_answered(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver()
    assert world.run(compiled).success
    assert [row.node_id for row in world.chain(1)] == ["start", "mail_fetch", "has_pdf", "no_pdf", "end"]
    assert len(world.sink.messages) == 1
    assert world.invoices() == []


def test_an_empty_inbox_does_nothing(world: World):
    """Old defect 5: an empty inbox went down the rejection branch."""
    compiled = world.publish(INVOICE_PROCESSING)
    result = world.run(compiled)
    assert result.success
    assert world.executions() == []
    assert world.sink.messages == []


def test_an_execution_by_hand_with_an_empty_inbox_completes_without_an_answer(world: World):
    """Old defect 5, by the API's way: one execution that finds no mail."""
    compiled = world.publish(INVOICE_PROCESSING)
    number = world.execution(compiled)
    assert world.run(compiled, executions=[number]).success
    (execution,) = world.executions()
    assert execution.status == "completed"
    assert world.result(number)["email_processed"] is False
    assert [row.node_id for row in world.chain(number)] == ["start", "mail_fetch"]
    assert world.sink.messages == []


@pytest.mark.parametrize(
    ("n", "nodes"),
    [
        (6, ["start", "double", "big", "praise", "end"]),
        (3, ["start", "double", "big", "odd", "end"]),
        (1, ["start", "double", "big", "odd", "end"]),
    ],
)
def test_old_dialect_of_pure_code_runs_unchanged(world: World, n: int, nodes: list[str]):
    compiled = world.publish(json.dumps(PURE))
    number = world.execution(compiled, {"n": n}, client=None)
    assert world.run(compiled, executions=[number]).success
    assert [row.node_id for row in world.chain(number)] == nodes
    assert world.result(number)["n"] == 2 * n


def test_a_failed_node_fails_the_run_and_says_why(world: World):
    """Old defect 1: a node's failure was reported as success."""
    definition = json.loads(json.dumps(PURE))
    definition["nodes"][1]["code"] = "x = 1\nraise ValueError('no luck')"
    compiled = world.publish(json.dumps(definition))
    number = world.execution(compiled, {"n": 1}, client=None)
    result = world.run(compiled, executions=[number])
    assert not result.success
    (execution,) = world.executions()
    assert (execution.status, execution.failed_node) == ("failed", "double")
    assert "no luck" in (execution.error or "")
    assert "line 2" in (execution.error or "")


def test_hostile_texts_are_data(world: World):
    """Old defect 2: a quote or a newline in a subject broke the run, and code in it ran."""
    definition = json.loads(json.dumps(PURE))
    definition["nodes"][1]["code"] = "context['n'] = len(context['subject'])"
    compiled = world.publish(json.dumps(definition))
    subject = "it's \"quoted\"\n'''+__import__('os').system('touch /tmp/owned')+'''\\"
    number = world.execution(compiled, {"subject": subject}, client=None)
    assert world.run(compiled, executions=[number]).success
    assert world.result(number)["subject"] == subject
    assert world.result(number)["n"] == len(subject)


def test_one_broken_pdf_in_a_batch_fails_alone(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    for number in range(4):
        pdf = invoice_pdf("242.00", number=f"F-{number}")
        world.deliver(pdf if number != 2 else b"%PDF-1.7\nbroken", subject=f"Factura {number}")
    with dg.DagsterInstance.ephemeral() as instance:
        result = world.run(compiled, instance=instance)
        assert not result.success
        statuses = [row.status for row in world.executions()]
        assert statuses == ["completed", "completed", "failed", "completed"]
        assert len(world.invoices()) == 3
        failure = result.failure_data_for_node("run_outcome")
        assert "execution 3" in (failure.user_failure_data.description or "")
    failed = world.executions()[2]
    assert failed.failed_node == "extract_invoice"
    flags = world.user.flags()
    assert [("\\Seen" in flags[uid]) for uid in sorted(flags)] == [True, True, False, True]


def test_reexecution_from_failure_does_nothing_twice(world: World):
    """A node that fails once, then works: what was done before it is not done again."""
    definition = json.loads(json.dumps(PURE))
    definition["nodes"][4]["code"] = "raise RuntimeError('not yet')"
    compiled = world.publish(json.dumps(definition))
    number = world.execution(compiled, {"n": 6}, client=None)
    with dg.DagsterInstance.ephemeral() as instance:
        assert not world.run(compiled, instance=instance, executions=[number]).success
        fixed = world.publish(json.dumps(PURE))
    with world.services.databases.nova.session() as session:
        from nova_pipelines.database.nova import Execution

        row = session.get_one(Execution, number)
        row.status, row.run_id = "pending", None
    assert world.run(fixed, executions=[number]).success
    chain = world.chain(number)
    assert [(row.node_id, row.status) for row in chain] == [
        ("start", "success"), ("double", "success"), ("big", "success"), ("praise", "failed"),
        ("praise", "success"), ("end", "success"),
    ]  # fmt: skip
    assert verify_chains(world.services.databases.nova, number).findings == []
