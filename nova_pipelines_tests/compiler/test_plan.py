"""Plans say what the graph says: every step after its sources, names that Dagster accepts."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from dagster._core.definitions.utils import check_valid_name
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nova_pipelines.compiler.job import op_name
from nova_pipelines.compiler.plan import ONLY, OUTCOME, Plan, Source, make_plan
from nova_pipelines.nodes.registry import definition_from, read_definition
from nova_pipelines_tests.strategies import Workflow, valid_graphs, visited

ROOT = Path(__file__).parent.parent.parent

_SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plan_of(data) -> Plan:
    return make_plan(definition_from(data))


def walked(plan: Plan, decisions: dict[str, str]) -> list[str]:
    """The nodes an item passes when it follows the outputs to the steps that have them as a source."""
    arrived, passed = {plan.steps[0].name}, []
    for step in plan.steps:
        if step.name in arrived:
            passed.append(step.node.id)
            output = step.ways[decisions[step.node.id]][0] if step.ways else ONLY
            arrived |= {other.name for other in plan.steps if Source(step.name, output) in other.sources}
    return passed


@_SOME
@given(valid_graphs())
def test_an_item_visits_what_the_interpreter_visits(workflow: Workflow):
    assert walked(plan_of(workflow.data), workflow.decisions) == visited(workflow.data, workflow.decisions)


@_SOME
@given(valid_graphs())
def test_steps_come_after_their_sources_and_start_is_first(workflow: Workflow):
    plan = plan_of(workflow.data)
    order = {step.name: number for number, step in enumerate(plan.steps)}
    assert plan.steps[0].node.kind == "start"
    assert len(plan.steps) == len(workflow.data["nodes"])
    assert all(order[source.step] < order[step.name] for step in plan.steps for source in step.sources)
    assert {step.node.id for step in plan.ends} == {
        node["id"] for node in workflow.data["nodes"] if node["type"] == "end"
    }


@_SOME
@given(valid_graphs())
def test_sources_and_outputs_are_the_edges(workflow: Workflow):
    plan = plan_of(workflow.data)
    by_name = {step.name: step for step in plan.steps}
    edges = []
    for step in plan.steps:
        assert step.following is None or not step.ways
        assert (step.following is None) == (bool(step.ways) or step.node.kind == "end")
        assert len(set(step.sources)) == len(step.sources)
        for source in step.sources:
            origin = by_name[source.step]
            assert source.output in origin.outputs
            condition = next((way for way, (output, _) in origin.ways.items() if output == source.output), None)
            target = origin.ways[condition][1] if condition else origin.following
            assert target == step.node.id
            edges.append((origin.node.id, step.node.id, condition))
    expected = [(edge["from"], edge["to"], edge.get("condition")) for edge in workflow.data["edges"]]
    assert sorted(edges, key=repr) == sorted(expected, key=repr)


@_SOME
@given(valid_graphs())
def test_names_are_unique_and_valid_for_dagster(workflow: Workflow):
    plan = plan_of(workflow.data)
    names = [check_valid_name(step.name) for step in plan.steps]
    assert len({*names, OUTCOME}) == len(names) + 1
    check_valid_name(plan.job_name)
    for step in plan.steps:
        assert len(set(step.outputs)) == len(step.outputs) == max(1, len(step.ways))
        for output in step.outputs:
            check_valid_name(output)
        check_valid_name(op_name(step.node.kind, step.outputs))


@_SOME
@given(valid_graphs())
def test_the_same_definition_gives_the_same_plan(workflow: Workflow):
    definition = definition_from(workflow.data)
    assert make_plan(definition) == make_plan(definition)
    assert make_plan(definition) == plan_of(json.loads(json.dumps(definition.canonical())))


def test_a_safe_id_is_the_name_of_its_step():
    plan = make_plan(read_definition((ROOT / "workflows" / "invoice_processing.yaml").read_text("utf-8")))
    assert [step.name for step in plan.steps] == [step.node.id for step in plan.steps]
    assert plan.job_name == "invoice_processing"
    assert plan.step("amount").outputs == ("high_amount", "low_amount")


def test_a_node_named_like_the_last_step_does_not_clash_with_it():
    nodes = [{"id": "s", "type": "start", "next": OUTCOME}, {"id": OUTCOME, "type": "end"}]
    assert [step.name for step in plan_of({"name": "x", "nodes": nodes}).steps] == ["s", f"{OUTCOME}_2"]


def test_names_of_shared_ops_are_readable_where_they_can_be():
    assert op_name("action", (ONLY,)) == "Action"
    assert op_name("decision", ("false", "true")) == "Decision__false__true"
    assert re.fullmatch(r"Decision__2_ways_[0-9a-f]{16}", op_name("decision", ("a__b", "c")))
    assert re.fullmatch(r"Decision__50_ways_[0-9a-f]{16}", op_name("decision", tuple(f"way{n}" for n in range(50))))


_OUTPUTS = st.lists(
    st.text(alphabet="ab_", max_size=4).map(lambda text: text.strip("_") or "node")
    | st.sampled_from(["type_", "a__b", "int_"])
    | st.text(alphabet="a", min_size=50, max_size=90),
    min_size=2,
    max_size=3,
    unique=True,
).map(tuple)


@given(_OUTPUTS, _OUTPUTS)
def test_different_ways_never_share_an_op(one, two):
    assert (op_name("decision", one) == op_name("decision", two)) == (one == two)
    assert len(op_name("decision", one)) <= 80


def test_hundreds_of_nodes_are_planned_fast():
    """Five hundred decisions in a row, each of whose ways merge again in the next, and in one end."""
    numbers = range(500)
    nodes = [{"id": "s", "type": "start", "next": "d0"}, {"id": "e", "type": "end"}]
    nodes += [
        {
            "id": f"d{number}",
            "type": "decision",
            "expression": "context.x",
            "next": {"true": f"d{number + 1}" if number + 1 in numbers else "e", "false": "e", "skip": "e"},
        }
        for number in numbers
    ]
    definition = definition_from({"name": "x", "nodes": nodes})
    began = time.process_time()
    plan = make_plan(definition)
    assert time.process_time() - began < 1.0
    assert len(plan.step("e").sources) == 1_001
    assert [step.node.id for step in plan.steps][:3] == ["s", "d0", "d1"]


def test_the_order_of_the_edges_decides_where_the_graph_does_not():
    nodes = [
        {"id": "s", "type": "start", "next": "d"},
        {"id": "d", "type": "decision", "expression": "context.x", "next": {"b": "b", "a": "a"}},
        {"id": "a", "type": "action", "code": "pass", "next": "e"},
        {"id": "b", "type": "action", "code": "pass", "next": "e"},
        {"id": "e", "type": "end"},
    ]
    order = [step.node.id for step in plan_of({"name": "x", "nodes": nodes}).steps]
    assert order == ["s", "d", "b", "a", "e"]
