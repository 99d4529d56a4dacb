"""SIGKILL before and after each node of the Invoice Processing workflow, then Dagster's retry: all is done once."""

from __future__ import annotations

from typing import Literal

import pytest
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from sqlalchemy import update

from nova_pipelines.database.executions import release
from nova_pipelines.database.nova import Message
from nova_pipelines.nodes.reconciling import rest
from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.ways import WAYS, assert_once, crash, crash_and_retry
from nova_pipelines_tests.crash.worker import Kill
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World

#: the nodes that each way adds to those before it
NODES = {"low": WAYS["low"].nodes, "high": ("approval", "tell_sender"), "no_pdf": ("no_pdf",)}
EFFECTS = ("invoice_write", "approval", "tell_sender", "no_pdf")


def points():
    """All points; those beyond one for each node, and one for each effect, are part of the storm."""
    number = 0
    for way, nodes in NODES.items():
        for node in nodes:
            number += 1
            before = Kill("node", "before", node)
            unrecorded = Kill("node", "after", node)  # its work is done, but no row says so
            after = Kill("record", "after", node)
            short = {before if number % 2 else after}
            if node in EFFECTS:
                short.add(unrecorded)
            for kill in (before, unrecorded, after):
                marks = [] if kill in short else [pytest.mark.crash]
                name = f"{way}-unrecorded-{node}" if kill is unrecorded else f"{way}-{kill.when}-{node}"
                yield pytest.param(way, kill, id=name, marks=marks)


@pytest.mark.parametrize(("way", "kill"), list(points()))
def test_a_node_is_done_once(world: World, engine: Engine, way: str, kill: Kill):
    uid = crash_and_retry(world, engine, WAYS[way], kill)
    assert_once(world, [WAYS[way]], [uid])


#: between the nodes' own steps: on the way in, around each commit, on the way out
BETWEEN = [
    ("low", Kill("nova_pipelines.nodes.intake:_store", "after"), False),
    ("low", Kill("nova_pipelines.compiler.collect:make_executions", "after"), True),
    ("low", Kill("nova_pipelines.compiler.journal:Journal.claim", "after"), False),
    ("low", Kill("nova_pipelines.nodes.invoice_write:_insert_once", "before"), False),
    ("low", Kill("nova_pipelines.compiler.report:settle", "before"), False),
    ("low", Kill("nova_pipelines.adapters.imap:Mailbox.mark_seen", "after"), True),
    ("low", Kill("nova_pipelines.compiler.report:settle", "after"), False),
    ("high", Kill("nova_pipelines.nodes.send_mail:_outbox_row", "after"), True),
    ("no_pdf", Kill("nova_pipelines.nodes.send_mail:_begin", "before"), False),
]


@pytest.mark.parametrize(
    ("way", "kill"),
    [
        pytest.param(way, kill, id=f"{way}-{kill}", marks=[] if short else [pytest.mark.crash])
        for way, kill, short in BETWEEN
    ],
)
def test_nothing_is_lost_between_steps(world: World, engine: Engine, way: str, kill: Kill):
    uid = crash_and_retry(world, engine, WAYS[way], kill)
    assert_once(world, [WAYS[way]], [uid])


@pytest.mark.crash
def test_a_mail_that_was_claimed_and_not_stored_is_taken_in_after_its_rest(world: World, engine: Engine):
    crash_and_retry(world, engine, WAYS["low"], Kill("nova_pipelines.nodes.intake:_ledger_row", "after"))
    (claimed,) = world.messages()
    assert (claimed.status, claimed.attempts, world.executions()) == ("seen", 1, [])
    with world.services.databases.nova.session() as session:
        session.execute(update(Message).values(updated_at=claimed.updated_at - rest(1)))
    assert engine.work(engine.launch()) == 0
    assert_once(world, [WAYS["low"]], [claimed.uid])


def test_a_retry_may_die_too(world: World, engine: Engine):
    kills = [Kill("node", "after", "approval"), Kill("node", "after", "tell_sender")]
    uid = crash_and_retry(world, engine, WAYS["high"], *kills)
    assert_once(world, [WAYS["high"]], [uid])


@pytest.mark.parametrize("when", ["after", pytest.param("before", marks=pytest.mark.crash)])
def test_a_mail_that_may_have_been_sent_is_never_sent_again(
    world: World, engine: Engine, when: Literal["before", "after"]
):
    """Killed between the server's 250 and the commit of "sent" (after), or just before the mail goes out (before):
    nobody can tell the two apart, so a person decides."""
    went_out = 1 if when == "after" else 0
    world.publish(INVOICE_PROCESSING)
    uid = WAYS["high"].deliver(world)
    retry = crash(engine, engine.launch(), Kill("nova_pipelines.nodes.send_mail:send", when))
    assert retry is not None
    assert engine.work(retry) == 0
    assert engine.status(retry) == "FAILURE"
    (failure,) = engine.failures(retry)
    assert "may have been sent before a crash" in failure
    (execution,) = world.executions()
    assert (execution.status, execution.failed_node) == ("unknown", "tell_sender")
    assert [row.status for row in world.outbox()] == ["unknown"]
    assert engine.retry(retry) is None  # not by itself …
    for strategy in (ReexecutionStrategy.FROM_FAILURE, ReexecutionStrategy.ALL_STEPS):  # … nor by re-execution
        assert engine.work(engine.reexecute(retry, strategy)) == 0
    assert len(world.sink.messages) == went_out
    assert [row.status for row in world.executions()] == ["unknown"]
    assert len(world.invoices()) == 1
    assert "\\Seen" not in world.user.flags()[uid]

    with world.services.databases.nova.session() as session:
        assert [refusal.execution_id for refusal in release(session, [execution.id]).refused] == [execution.id]
        assert release(session, [execution.id], force=True).released == [execution.id]
    last = engine.launch([execution.id])
    assert engine.work(last) == 0
    assert engine.status(last) == "SUCCESS"
    ids = [mail.message["Message-ID"] for mail in world.sink.messages]
    assert len(ids) == went_out + 1
    assert len(set(ids)) == 1  # the receiving side can recognise the second one
    assert "\\Seen" in world.user.flags()[uid]
