"""Node code that has the network may have had effects before a crash: it is never begun again by itself."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.database.executions import release
from nova_pipelines.database.nova import Client
from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.ways import crash
from nova_pipelines_tests.crash.worker import Kill
from nova_pipelines_tests.fixtures.world import World

SENDS = """
import smtplib
with smtplib.SMTP(context["host"], context["port"], timeout=10) as server:
    server.sendmail("nova@idom.example", ["ana@proveedores.example"], "Subject: hello\\r\\n\\r\\nhello")
context["sent"] = True
"""


def definition(code: str) -> dict:
    nodes = [{"id": "start", "type": "start"}, {"id": "act", "type": "action", "code": code}]
    edges = [{"from": "start", "to": "act"}, {"from": "act", "to": "end"}]
    return {"name": "Acts", "nodes": [*nodes, {"id": "end", "type": "end"}], "edges": edges}


def allow_network(world: World) -> None:
    with world.services.databases.nova.session() as session:
        session.execute(update(Client).values(allow_network=True))


def test_code_with_the_network_is_not_repeated_after_a_crash(world: World, engine: Engine):
    allow_network(world)
    compiled = world.publish(definition(SENDS))
    number = world.execution(compiled, {"host": world.sink.host, "port": world.sink.port})
    retry = crash(engine, engine.launch([number], job="acts"), Kill("node", "after", "act"))
    assert retry is not None
    engine.work(retry)
    assert engine.status(retry) == "FAILURE"
    (row,) = world.executions()
    assert (row.status, row.failed_node, row.begun_node) == ("unknown", "act", None)
    assert "a crash interrupted node 'act'" in (row.error or "")
    assert len(world.sink.messages) == 1

    nova = world.services.databases.nova
    with nova.session() as session:
        assert [refusal.execution_id for refusal in release(session, [number]).refused] == [number]
        assert release(session, [number], force=True).released == [number]
    last = engine.launch([number], job="acts")
    assert engine.work(last) == 0
    assert [row.status for row in world.executions()] == ["completed"]
    assert len(world.sink.messages) == 2  # a person asked for it
    assert verify_chains(nova).intact


@pytest.mark.parametrize("network", [False, True])
def test_without_a_retry_a_person_is_asked_only_where_effects_are_possible(world: World, engine: Engine, network: bool):
    from nova_pipelines.orchestration.sensors import close_executions

    if network:
        allow_network(world)
    number = world.execution(world.publish(definition("context['done'] = True")))
    run_id = engine.launch([number], job="acts")
    assert engine.work(run_id, Kill("node", "after", "act")) == -9
    assert close_executions(world.services, run_id, None, "FAILURE", "killed") == 1
    (row,) = world.executions()
    assert (row.status, row.failed_node) == (("unknown", "act") if network else ("pending", None))


def test_code_without_the_network_is_simply_done_again(world: World, engine: Engine):
    number = world.execution(world.publish(definition("context['done'] = True")))
    retry = crash(engine, engine.launch([number], job="acts"), Kill("node", "after", "act"))
    assert retry is not None
    assert engine.work(retry) == 0
    assert [row.status for row in world.executions()] == ["completed"]
