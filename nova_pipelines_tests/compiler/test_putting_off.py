"""A service that is known to be down keeps executions waiting: they do not fail, and go on where they were."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.compiler.catalog import compile_version
from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database.nova import Execution
from nova_pipelines.domain.errors import TransientError, Unavailable
from nova_pipelines.nodes.registry import KINDS
from nova_pipelines.orchestration.dispatch import request_runs
from nova_pipelines.orchestration.loaded import Loaded
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf

DEFINITION = {
    "name": "Waits",
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "first", "type": "action", "code": "context['first'] = context.get('first', 0) + 1"},
        {"id": "second", "type": "action", "code": "context['second'] = True"},
        {"id": "end", "type": "end"},
    ],
    "edges": [
        {"from": "start", "to": "first"},
        {"from": "first", "to": "second"},
        {"from": "second", "to": "end"},
    ],
}


class Outage:
    """While `errors` has one for an execution number, the node `second` raises it instead of working."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: dict[int, list[Exception]] = {}
        kind = KINDS["action"]

        def run(node: Any, item: Any, services: Any) -> Any:
            if node.id == "second" and self.errors.get(item.execution_id):
                raise self.errors[item.execution_id].pop(0)
            return kind.run(node, item, services)

        monkeypatch.setitem(KINDS, "action", dataclasses.replace(kind, run=run))


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> Outage:
    return Outage(monkeypatch)


def down(seconds: float = 300) -> Unavailable:
    return Unavailable("E2B is down", after_seconds=seconds)


def by_name(world: World, compiled: Compiled) -> dict[str, Loaded]:
    definition, compiled = compile_version(
        DEFINITION, workflow_id=compiled.workflow_id, version_id=compiled.version_id, version=1, source="test"
    )
    return {"waits": Loaded(definition, compiled)}


def asked_for(world: World, compiled: Compiled) -> list[int]:
    requests = request_runs(world.services.databases.nova, by_name(world, compiled), max_batch=50)
    return [number for request in requests for number in request.run_config["ops"]["start"]["config"]["executions"]]


def test_it_waits_and_goes_on_where_it_was(world: World, outage: Outage):
    compiled = world.publish(DEFINITION)
    waiting, other = world.execution(compiled), world.execution(compiled)
    outage.errors[waiting] = [down()]
    before = datetime.now(UTC)

    result = world.run(compiled, executions=[waiting, other])

    assert result.success
    row, completed = world.executions()
    assert completed.status == "completed"
    assert (row.status, row.run_id, row.put_off_by) == ("pending", None, result.run_id)
    assert row.waits_until is not None
    assert timedelta(seconds=299) < row.waits_until - before < timedelta(seconds=330)
    assert row.error == "waits: E2B is down"
    assert [entry.node_id for entry in world.chain(waiting)] == ["start", "first"]
    (outcome,) = [
        event for event in result.all_events if event.is_successful_output and event.step_key == "run_outcome"
    ]
    assert outcome.step_output_data.metadata["waiting"].value == 1
    assert asked_for(world, compiled) == []  # not before its time

    with world.services.databases.nova.session() as session:
        session.execute(update(Execution).values(waits_until=datetime.now(UTC)))
    assert asked_for(world, compiled) == [waiting]
    assert asked_for(world, compiled) == []  # once
    key = world.executions()[0].run_id
    assert world.run(compiled, executions=[waiting], tags={"dagster/run_key": str(key)}).success
    row = world.executions()[0]
    assert (row.status, row.waits_until, row.put_off_by, row.error) == ("completed", None, None, None)
    assert world.result(waiting) == {"first": 1, "second": True}
    assert [entry.node_id for entry in world.chain(waiting)] == ["start", "first", "second", "end"]
    assert verify_chains(world.services.databases.nova).intact


def test_a_retry_of_the_op_leaves_it_waiting(world: World, outage: Outage):
    """Another item's passing fault makes Dagster repeat the op: what was put off meanwhile stays so."""
    compiled = world.publish(DEFINITION)
    waiting, shaky = world.execution(compiled), world.execution(compiled)
    outage.errors = {waiting: [down()], shaky: [TransientError("cut")]}
    result = world.run(compiled, executions=[waiting, shaky])
    assert result.success
    assert [row.status for row in world.executions()] == ["pending", "completed"]
    assert [entry.node_id for entry in world.chain(waiting)] == ["start", "first"]


def test_alone_it_fails_no_run(world: World, outage: Outage):
    compiled = world.publish(DEFINITION)
    waiting = world.execution(compiled)
    outage.errors[waiting] = [down()]
    assert world.run(compiled, executions=[waiting]).success
    assert [row.status for row in world.executions()] == ["pending"]


def test_an_invoice_waits_for_a_facturas_database_that_is_away(world: World):
    """A new run worker has never reached it: that is an outage, and no reason to fail."""
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver(invoice_pdf("242.00"))
    home = world.settings
    with closed_port() as port:
        away = SecretStr(f"postgresql+psycopg2://nova:nova@127.0.0.1:{port}/facturas")
        world.settings = home.model_copy(update={"given_facturas_database_url": away})
        assert world.run(compiled, client="idom").success
    (row,) = world.executions()
    assert (row.status, row.failed_node) == ("pending", None)
    assert row.waits_until is not None
    assert "waits: PostgreSQL database facturas" in (row.error or "")
    before = [entry.node_id for entry in world.chain(row.id)]
    assert before[-1] == "amount"

    world.settings = home
    with world.services.databases.nova.session() as session:
        session.execute(update(Execution).values(waits_until=datetime.now(UTC)))
    assert world.run(compiled, executions=[row.id]).success

    (row,) = world.executions()
    assert (row.status, row.error) == ("completed", None)
    assert [invoice.processed_by_execution_id for invoice in world.invoices()] == [row.id]
    assert [entry.node_id for entry in world.chain(row.id)][: len(before)] == before
    assert verify_chains(world.services.databases.nova).intact
