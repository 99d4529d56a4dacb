"""A batch whose worker is killed in its middle: every mail of it is worked on once."""

from __future__ import annotations

import pytest
from dagster._core.events import DagsterEventType

from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.ways import WAYS, assert_once, crash
from nova_pipelines_tests.crash.worker import Kill
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World

whole_matrix = pytest.mark.crash


@pytest.mark.parametrize(
    "kill",
    [
        pytest.param(Kill("node", "after", "extract_invoice", nth=3), id="extract_invoice"),
        pytest.param(Kill("node", "after", "invoice_write", nth=3), id="invoice_write"),
        pytest.param(Kill("record", "before", "invoice_write"), id="all-written-none-recorded", marks=whole_matrix),
        pytest.param(Kill("record", "after", "invoice_write"), id="all-recorded", marks=whole_matrix),
        pytest.param(Kill("record", "before", "start"), id="start", marks=whole_matrix),
        pytest.param(
            Kill("nova_pipelines.adapters.imap:Mailbox.mark_seen", "after", nth=3), id="flags", marks=whole_matrix
        ),
    ],
)
def test_five_mails_are_each_worked_on_once(world: World, engine: Engine, kill: Kill):
    world.publish(INVOICE_PROCESSING)
    ways = [WAYS["low"]] * 5
    uids = [way.deliver(world, number) for number, way in enumerate(ways)]
    retry = crash(engine, engine.launch(), kill)
    assert retry is not None
    assert engine.work(retry) == 0
    assert engine.status(retry) == "SUCCESS", engine.failures(retry)
    assert_once(world, ways, uids)


def test_a_batch_on_all_ways_survives_two_deaths(world: World, engine: Engine):
    world.publish(INVOICE_PROCESSING)
    ways = [WAYS[name] for name in ("low", "high", "no_pdf", "high", "low")]
    uids = [way.deliver(world, number) for number, way in enumerate(ways)]
    first = crash(engine, engine.launch(), Kill("node", "after", "approval", nth=2))
    assert first is not None
    second = crash(engine, first, Kill("node", "after", "tell_sender", nth=1))
    assert second is not None
    assert engine.work(second) == 0
    assert engine.status(second) == "SUCCESS", engine.failures(second)
    assert_once(world, ways, uids)


def test_rows_of_a_dead_worker_are_told_to_dagster(world: World, engine: Engine):
    """The assets after the invoice table must learn of rows whose worker died before it could tell."""
    world.publish(INVOICE_PROCESSING)
    WAYS["low"].deliver(world)
    first = engine.launch()
    retry = crash(engine, first, Kill("record", "after", "invoice_write"))
    assert retry is not None
    assert engine.work(retry) == 0
    assert engine.events(first, DagsterEventType.ASSET_MATERIALIZATION) == []
    (event,) = engine.events(retry, DagsterEventType.ASSET_MATERIALIZATION)
    assert event.asset_key is not None
    assert event.asset_key.to_user_string() == "invoices"
