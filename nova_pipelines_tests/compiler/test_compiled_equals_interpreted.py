"""Any valid graph, compiled and run by Dagster, takes each execution along the way an interpreter takes it.

`make test` tries a few graphs; HYPOTHESIS_EXAMPLES=1000 in the environment tries as many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.compiler.job import Compiled
from nova_pipelines_tests.fixtures.world import World
from nova_pipelines_tests.strategies import Workflow, valid_graphs, visited

_SOME = settings(
    max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", "25")),
    deadline=None,
    # one world for all examples: each publishes a new version, and looks at its own executions alone
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def instance():
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@dataclass(frozen=True)
class Case:
    """A workflow, and for each execution of one batch its decisions; a decision without one cannot be made."""

    data: dict[str, Any]
    batch: list[dict[str, str]]


@st.composite
def cases(draw: st.DrawFn, *, actions: bool = False, max_nodes: int = 16) -> Case:
    workflow: Workflow = draw(valid_graphs(actions=actions, max_nodes=max_nodes))
    ways = ways_of(workflow.data)
    one = st.fixed_dictionaries({}, optional={node: st.sampled_from(sorted(words)) for node, words in ways.items()})
    all_of_them = st.fixed_dictionaries({node: st.sampled_from(sorted(words)) for node, words in ways.items()})
    batch = draw(st.lists(st.one_of(all_of_them, all_of_them, all_of_them, one), min_size=1, max_size=6))
    return Case(workflow.data, batch)


def ways_of(data: Mapping[str, Any]) -> dict[str, set[str]]:
    """The conditions of each decision, as its edges say."""
    found: dict[str, set[str]] = {}
    for edge in data["edges"]:
        if "condition" in edge:
            found.setdefault(edge["from"], set()).add(edge["condition"])
    return found


def interpret(data: Mapping[str, Any], decisions: Mapping[str, str]) -> list[tuple[str, str]]:
    """What the chain of work must say: nodes and statuses. Knows nothing but nodes, edges and decisions."""
    here = next(node["id"] for node in data["nodes"] if node["type"] == "start")
    deciding = {node["id"] for node in data["nodes"] if node["type"] == "decision"}
    chain = []
    while True:
        if here in deciding and here not in decisions:
            return [*chain, (here, "failed")]
        chain.append((here, "success"))
        leaving = [edge for edge in data["edges"] if edge["from"] == here]
        if not leaving:
            return chain
        chosen = decisions[here] if here in deciding else None
        (here,) = (edge["to"] for edge in leaving if edge.get("condition") == chosen)


def run(world: World, instance: dg.DagsterInstance, case: Case) -> tuple[Compiled, list[int], bool]:
    compiled = world.publish(json.dumps(case.data))
    numbers = [world.execution(compiled, {"ways": decisions}, client=None) for decisions in case.batch]
    result = world.run(compiled, instance=instance, executions=numbers)
    return compiled, numbers, result.success


def check(world: World, instance: dg.DagsterInstance, case: Case) -> None:
    _, numbers, success = run(world, instance, case)
    expected = [interpret(case.data, decisions) for decisions in case.batch]
    assert [chain(world, number) for number in numbers] == expected
    ends = [way[-1][1] for way in expected]
    statuses = {row.id: row.status for row in world.executions()}
    assert [statuses[number] for number in numbers] == [{"success": "completed"}.get(end, end) for end in ends]
    assert success == ("failed" not in ends)
    assert all(verify_chains(world.services.databases.nova, number).intact for number in numbers)


def chain(world: World, number: int) -> list[tuple[str, str]]:
    return [(row.node_id, row.status) for row in world.chain(number)]


@_SOME
@given(case=cases())
def test_random_graphs_of_decisions(world: World, instance: dg.DagsterInstance, case: Case):
    check(world, instance, case)


@settings(_SOME, max_examples=max(2, _SOME.max_examples // 4))
@given(case=cases(actions=True, max_nodes=10))
def test_random_graphs_with_code_in_the_sandbox(world: World, instance: dg.DagsterInstance, case: Case):
    check(world, instance, case)


@_SOME
@given(workflow=valid_graphs(actions=False))
def test_the_two_interpreters_of_the_tests_agree(workflow: Workflow):
    """Written apart from each other: a mistake would have to be made twice."""
    assert [node for node, _ in interpret(workflow.data, workflow.decisions)] == visited(
        workflow.data, workflow.decisions
    )


# ---------------------------------------------------------------- shapes that chance seldom draws


def decision(node: str) -> dict[str, Any]:
    return {"id": node, "type": "decision", "expression": f"context.ways[{json.dumps(node)}]"}


def graph(nodes: Iterable[dict[str, Any]], edges: Iterable[tuple[str, str | None, str]]) -> dict[str, Any]:
    listed = [{"from": a, "to": b} | ({"condition": way} if way else {}) for a, way, b in edges]
    return {"name": "Shape", "nodes": list(nodes), "edges": listed}


START, END = {"id": "start", "type": "start"}, {"id": "end", "type": "end"}
TRUE_FALSE = ("true", "false")


def test_hundreds_of_nodes(world: World, instance: dg.DagsterInstance):
    """A ladder of 120 rungs: 240 decisions, each rung entered by two ways, merges after merges."""
    rungs = range(120)
    nodes = [START, *(decision(f"{side}{rung}") for rung in rungs for side in "ab"), END]
    edges: list[tuple[str, str | None, str]] = [("start", None, "a0")]
    for rung in rungs:
        last = rung == rungs[-1]
        edges.append((f"a{rung}", "true", f"b{rung}"))
        edges.append((f"a{rung}", "false", "end" if last else f"a{rung + 1}"))
        edges.append((f"b{rung}", "true", "end" if last else f"a{rung + 1}"))
        edges.append((f"b{rung}", "false", "end" if last else f"b{rung + 1}"))
    batch = [
        {f"{side}{rung}": TRUE_FALSE[(rung * step + ord(side)) % 2] for rung in rungs for side in "ab"}
        for step in (1, 2, 3)
    ]
    check(world, instance, Case(graph(nodes, edges), batch))


def test_nested_decisions_of_many_ways_with_several_ends(world: World, instance: dg.DagsterInstance):
    """Every leaf of a tree of three levels and five ways, two of which share an end, in one batch of 125."""
    words = ["high", "low", "no pdf", "ñandú", "true-ish"]
    nodes, edges = [START, decision("0")], [("start", None, "0")]
    batch: list[dict[str, str]] = []
    for a in words:
        nodes.append(decision(f"1 {a}"))
        edges.append(("0", a, f"1 {a}"))
        for b in words:
            nodes.append(decision(f"2 {a} {b}"))
            edges.append((f"1 {a}", b, f"2 {a} {b}"))
            for c in words:
                edges.append((f"2 {a} {b}", c, f"end {words.index(c) // 2}"))
                batch.append({"0": a, f"1 {a}": b, f"2 {a} {b}": c})
    nodes += [{"id": f"end {number}", "type": "end"} for number in range(3)]
    case = Case(graph(nodes, edges), batch)
    check(world, instance, case)
    assert {world.chain(number)[-1].node_id for number in range(1, 126)} == {"end 0", "end 1", "end 2"}


def test_one_that_fails_before_a_merge_keeps_nobody_back(world: World, instance: dg.DagsterInstance):
    """All executions of one branch fail; the merge after it still runs for those of the other."""
    nodes = [START, decision("way"), decision("left"), decision("right"), decision("merge"), END]
    edges = [("start", None, "way"), ("way", "true", "left"), ("way", "false", "right"), ("merge", "true", "end")]
    edges += [(side, word, "merge") for side in ("left", "right") for word in TRUE_FALSE]
    edges += [("merge", "false", "end")]
    doomed, fine = {"way": "true"}, {"way": "false", "right": "true", "merge": "false"}
    check(world, instance, Case(graph(nodes, edges), [doomed, fine, doomed, fine]))


def test_all_fail_at_the_first_node(world: World, instance: dg.DagsterInstance):
    nodes = [START, decision("way"), END]
    edges = [("start", None, "way"), ("way", "true", "end"), ("way", "false", "end")]
    check(world, instance, Case(graph(nodes, edges), [{}, {}]))
