"""What is tried again, by whom and how often: transient errors, crashes, a person's retry; and what never is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.database.executions import release
from nova_pipelines.database.nova import Credential, OutboxMail
from nova_pipelines.demo.pdfs import draw_scan
from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.ways import WAYS, crash
from nova_pipelines_tests.crash.worker import Kill
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, SENDER, World, invoice_pdf

OTHER = "otro@proveedores.example"


class Refusals(dict[str, str]):
    """Refuses mail for a recipient with these replies, one after another, and takes it then."""

    def __init__(self, **replies: list[str]) -> None:
        self._replies = {SENDER: replies.get("sender", []), OTHER: replies.get("other", [])}

    def __contains__(self, address: object) -> bool:
        return bool(self._replies.get(str(address)))

    def __getitem__(self, address: str) -> str:
        return self._replies[address].pop(0)


def high(world: World, number: int, sender: str = SENDER) -> int:
    return world.deliver(invoice_pdf("15000.59", number=f"H-{number}"), sender=sender, subject=f"Factura {number}")


def waits(result: dg.ExecuteInProcessResult) -> list[float]:
    """The seconds that were waited before each further try of an op."""
    events = [event for event in result.all_events if event.event_type is DagsterEventType.STEP_UP_FOR_RETRY]
    return [event.step_retry_data.seconds_to_wait or 0.0 for event in events]


def nodes(world: World, execution_id: int) -> list[tuple[str, str]]:
    return [(row.node_id, row.status) for row in world.chain(execution_id)]


def wait_for_a_person(world: World, *numbers: int, force: bool = False) -> None:
    """What `nova executions retry` does before it starts a run."""
    with world.services.databases.nova.session() as session:
        assert release(session, numbers, force=force).released == list(numbers)


# ---------------------------------------------------------------- transient and permanent


def test_a_server_that_is_busy_twice_gets_one_mail(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    world.sink.refuse = Refusals(sender=["451 4.3.0 try again later", "421 4.7.0 too many connections"])
    high(world, 1)
    words = ["451 4.3.0 try again later", "421 4.7.0 too many connections"]
    for number, said in enumerate(words, start=1):
        before = datetime.now(UTC)
        result = world.run(compiled, executions=[1]) if number > 1 else world.run(compiled)
        assert result.success  # it waits: nothing failed
        ((execution,), (mail,)) = world.executions(), world.outbox()
        assert (mail.status, mail.attempts, execution.status, execution.run_id) == ("pending", number, "pending", None)
        assert said in (mail.error or "")
        assert said in (execution.error or "")
        assert mail.next_try_at is not None
        assert execution.waits_until is not None
        assert 54 <= (mail.next_try_at - before).total_seconds() < 120
        assert abs((execution.waits_until - mail.next_try_at).total_seconds()) < 10
    assert world.run(compiled, executions=[1]).success
    assert [mail.recipients for mail in world.sink.messages] == [[SENDER]]
    assert [(row.status, row.attempts, row.error, row.next_try_at) for row in world.outbox()] == [
        ("sent", 3, None, None)
    ]
    assert nodes(world, 1)[-2:] == [("tell_sender", "success"), ("end", "success")]  # no row for the tries before


def test_a_server_that_stays_busy_fails_the_execution_with_its_words(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    world.sink.refuse = Refusals(sender=["451 4.3.0 try again later"] * 99)
    high(world, 1)
    assert world.run(compiled).success
    with world.services.databases.nova.session() as session:
        session.get_one(OutboxMail, 1).tried_since = datetime.now(UTC) - timedelta(hours=48)
    assert not world.run(compiled, executions=[1]).success
    assert [(row.status, row.attempts) for row in world.outbox()] == [("failed", 2)]
    (execution,) = world.executions()
    assert (execution.status, execution.failed_node) == ("failed", "tell_sender")
    assert "not taken for 48 h" in (execution.error or "")
    assert "451 4.3.0 try again later" in (execution.error or "")
    assert nodes(world, 1)[-1] == ("tell_sender", "failed")
    assert len(world.invoices()) == 1
    wait_for_a_person(world, 1)  # a person's retry begins a new time
    assert world.run(compiled, executions=[1]).success
    assert [(row.status, row.attempts) for row in world.outbox()] == [("pending", 3)]


def test_a_refused_recipient_is_not_tried_again_not_even_beside_a_busy_one(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    world.sink.refuse = Refusals(sender=["550 5.1.1 no such user"] * 99, other=["451 try again later"])
    high(world, 1)
    high(world, 2, OTHER)
    result = world.run(compiled)
    assert not result.success
    assert [(row.status, row.attempts) for row in world.outbox()] == [("failed", 1), ("pending", 1)]
    assert [row.status for row in world.executions()] == ["failed", "pending"]
    assert world.run(compiled, executions=[2]).success
    assert [(row.status, row.attempts) for row in world.outbox()] == [("failed", 1), ("sent", 2)]
    assert nodes(world, 1).count(("tell_sender", "failed")) == 1
    assert [mail.recipients for mail in world.sink.messages] == [[OTHER]]


@pytest.mark.parametrize(
    "kill",
    [
        Kill("nova_pipelines.nodes.send_mail:_put_off", "after"),
        pytest.param(Kill("nova_pipelines.compiler.journal:Journal.put_off", "after"), marks=pytest.mark.crash),
    ],
    ids=str,
)
def test_a_crash_beside_a_temporary_reply_sends_one_mail(world: World, engine: Engine, kill: Kill):
    """The server has certainly not taken it, and the row says so: what goes on after the crash just tries again."""
    compiled = world.publish(INVOICE_PROCESSING)
    world.sink.refuse = Refusals(sender=["451 4.7.1 greylisted"])
    high(world, 1)
    retry = crash(engine, engine.launch(), kill)
    assert [(row.status, row.attempts) for row in world.outbox()] == [("pending", 1)]
    if retry is not None:
        engine.work(retry)
    if world.executions()[0].status != "completed":  # it was given back before the crash
        assert world.run(compiled, executions=[1]).success
    assert [row.status for row in world.executions()] == ["completed"]
    assert [(row.status, row.attempts) for row in world.outbox()] == [("sent", 2)]
    assert len(world.sink.messages) == 1
    assert verify_chains(world.services.databases.nova).findings == []


def test_a_mailbox_that_is_down_is_tried_again_with_backoff_and_then_said(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    WAYS["low"].deliver(world)
    right = _set_port(world, None)
    with closed_port() as port:
        _set_port(world, port)
        result = world.run(compiled)
        assert not result.success
        assert len(waits(result)) == world.policy.max_retries
        failure = result.failure_data_for_node("start")
        assert failure is not None
        assert failure.user_failure_data is not None
        assert f"127.0.0.1:{port}" in (failure.user_failure_data.description or "")
    assert world.executions() == []
    _set_port(world, right)
    assert world.run(compiled).success
    assert [row.status for row in world.executions()] == ["completed"]


def test_an_execution_whose_mailbox_is_down_fails_after_the_last_try(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    number = world.execution(compiled)
    right = _set_port(world, None)
    with closed_port() as port:
        _set_port(world, port)
        result = world.run(compiled, executions=[number])
    assert not result.success
    assert len(waits(result)) == world.policy.max_retries
    assert nodes(world, number) == [("start", "success"), ("mail_fetch", "failed")]
    _set_port(world, right)
    WAYS["low"].deliver(world)
    wait_for_a_person(world, number)
    assert world.run(compiled, executions=[number]).success
    assert nodes(world, number)[1:3] == [("mail_fetch", "failed"), ("mail_fetch", "success")]
    assert len(world.executions()) == 1


def _set_port(world: World, port: int | None) -> int:
    with world.services.databases.nova.session() as session:
        credential = session.get_one(Credential, 1)
        before = credential.settings["imap_port"]
        if port is not None:
            credential.settings = {**credential.settings, "imap_port": port}
        return before


# ---------------------------------------------------------------- after failures: a person, a crash


def test_a_person_retries_only_what_failed_at_the_node_where_it_stopped(world: World):
    compiled = world.publish(INVOICE_PROCESSING)
    world.sink.refuse = Refusals(other=["550 5.1.1 no such user"])
    WAYS["low"].deliver(world, 1)
    high(world, 2, OTHER)
    high(world, 3)
    assert not world.run(compiled).success
    before = world.executions()
    assert [row.status for row in before] == ["completed", "failed", "completed"]
    wait_for_a_person(world, 2)
    assert [(row.status, row.run_id) for row in world.executions()][1] == ("pending", None)
    assert world.run(compiled, executions=[2]).success
    after = world.executions()
    assert [row.status for row in after] == ["completed"] * 3
    assert [row.run_id == old.run_id for row, old in zip(after, before, strict=True)] == [True, False, True]
    assert [row.chain_length - old.chain_length for row, old in zip(after, before, strict=True)] == [0, 2, 0]
    done = [(node, "success") for node in WAYS["high"].nodes]
    assert nodes(world, 2) == [*done[:-2], ("tell_sender", "failed"), *done[-2:]]
    assert verify_chains(world.services.databases.nova).findings == []
    assert len(world.invoices()) == 3


def test_a_crash_retry_leaves_failures_alone_and_a_person_does_not(world: World, engine: Engine):
    world.publish(INVOICE_PROCESSING)
    world.sink.refuse = Refusals(sender=["550 5.1.1 no such user"])
    high(world, 1)
    high(world, 2, OTHER)
    retry = crash(engine, engine.launch(), Kill("record", "after", "tell_sender"))
    assert retry is not None
    assert "dagster/retry_number" in engine.run(retry).tags
    assert engine.work(retry) == 0  # the server would take the mail by now
    assert [row.status for row in world.executions()] == ["failed", "completed"]
    assert [row.attempts for row in world.outbox()] == [1, 1]
    assert engine.status(retry) == "FAILURE"
    assert any("execution 1 at tell_sender" in text for text in engine.failures(retry))
    assert engine.retry(retry) is None
    again = engine.reexecute(retry, ReexecutionStrategy.ALL_STEPS)
    assert "dagster/retry_number" not in engine.run(again).tags
    assert engine.work(again) == 0
    assert engine.status(again) == "SUCCESS", engine.failures(again)
    assert [row.attempts for row in world.outbox()] == [2, 1]
    done = [(node, "success") for node in WAYS["high"].nodes]
    assert nodes(world, 1) == [*done[:-2], ("tell_sender", "failed"), *done[-2:]]
    assert nodes(world, 2) == done


def test_what_waits_for_a_person_waits(world: World, engine: Engine):
    world.publish(INVOICE_PROCESSING)
    world.deliver(draw_scan())
    WAYS["low"].deliver(world, 2)
    first = engine.launch()
    retry = crash(engine, first, Kill("record", "after", "extract_invoice"))
    assert retry is not None
    assert engine.work(retry) == 0
    again = engine.reexecute(retry, ReexecutionStrategy.ALL_STEPS)
    assert engine.work(again) == 0
    assert [engine.status(run_id) for run_id in (retry, again)] == ["SUCCESS", "SUCCESS"]
    assert [row.status for row in world.executions()] == ["needs_review", "completed"]
    assert [status for _, status in nodes(world, 1)] == ["success", "success", "success", "needs_review"]
    assert len(world.invoices()) == 1


def test_a_failed_item_keeps_no_other_from_its_end(world: World):
    """The ways meet again at `end`: an op that failed outright would keep it from running for the others."""
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver(b"%PDF-1.7\nbroken")
    WAYS["no_pdf"].deliver(world, 2)
    result = world.run(compiled)
    assert not result.success
    assert [row.status for row in world.executions()] == ["failed", "completed"]
    assert nodes(world, 2) == [(node, "success") for node in WAYS["no_pdf"].nodes]
    failure = result.failure_data_for_node("run_outcome")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "execution 1 at extract_invoice" in (failure.user_failure_data.description or "")


def test_a_run_by_hand_that_dies_makes_one_execution(world: World, engine: Engine):
    """The new execution belongs to its run at once: no retry makes another, and no sensor takes it."""
    definition = {
        "name": "By hand",
        "nodes": [{"id": "start", "type": "start"}, {"id": "end", "type": "end"}],
        "edges": [{"from": "start", "to": "end"}],
    }
    world.publish(definition)
    run_id = engine.launch(job="by_hand", context={"n": 1})
    retry = crash(engine, run_id, Kill("nova_pipelines.compiler.collect:_new", "after"))
    assert [row.run_id for row in world.executions()] == [run_id]
    assert retry is not None
    assert engine.work(retry) == 0
    assert [(row.status, row.run_id) for row in world.executions()] == [("completed", retry)]
