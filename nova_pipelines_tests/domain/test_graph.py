"""Which graphs are valid: each fault is told with its place, and nothing is told that only follows from it."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given

from nova_pipelines.domain.graph import Outline, Way, graph_problems
from nova_pipelines.domain.workflow import Edge
from nova_pipelines_tests.strategies import Workflow, valid_graphs

_WAYS = {"decision": None, "extract_invoice": frozenset({"sure", "unsure"})}


def told(nodes: str, edges: str, **options) -> list[str]:
    """The problems of a graph such as ("s:start e:end", "s>e"); a condition stands as in "d>e:true"."""
    outlines = []
    for index, text in enumerate(nodes.split()):
        node_id, _, kind = text.partition(":")
        kind = kind or "action"
        ways = _WAYS.get(kind, frozenset())
        known = None if kind == "?" else kind
        outlines.append(Outline(f"nodes[{index}]", None if node_id == "?" else node_id, known, ways))
    found = []
    for index, text in enumerate(edges.split()):
        way, _, condition = text.partition(":")
        source, _, target = way.partition(">")
        edge = Edge.model_validate({"from": source, "to": target, "condition": condition or None})
        found.append(Way(f"edges[{index}]", edge, True))
    return [str(problem) for problem in graph_problems(outlines, found, **options)]


def test_a_straight_line_is_valid():
    assert told("s:start a e:end", "s>a a>e") == []


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [
        ("s:start d:decision e:end", "s>d d>e:true d>e:false"),
        ("s:start d:decision a b e:end f:end", "s>d d>a:x d>b:y d>e:z a>e b>f"),
        ("s:start r:extract_invoice e:end", "s>r r>e"),
        ("s:start r:extract_invoice e:end", "s>r r>e:sure r>e:unsure"),
        ("s:start e:end", "s>e"),
    ],
)
def test_valid(nodes, edges):
    assert told(nodes, edges) == []


@pytest.mark.parametrize(
    ("nodes", "edges", "problems"),
    [
        ("a e:end", "a>e", ["nodes: no start node: add one node of type start"]),
        ("s:start a", "s>a a>s", None),
        (
            "s:start t:start e:end",
            "s>e t>e",
            ["nodes[1]: a second start (the first is nodes[0]): keep exactly one"],
        ),
        (
            "s:start a a e:end",
            "s>a a>e",
            ["nodes[2].id: 'a' is already the id of nodes[1]: ids are unique"],
        ),
        (
            "s:start e:end",
            "s>e x>e",
            ["edges[1].from: there is no node 'x': correct the id or add the node"],
        ),
        (
            "s:start a e:end",
            "s>a a>x",
            [
                "edges[1].to: there is no node 'x': correct the id or add the node",
                "nodes[2]: 'e' cannot be reached from the start: add an edge to it",
            ],
        ),
        (
            "s:start a b e:end",
            "s>e a>e b>a",
            [
                "nodes[1]: 'a' cannot be reached from the start: add an edge to it",
                "nodes[2]: 'b' cannot be reached from the start: add an edge to it",
            ],
        ),
        ("s:start a b e:end", "s>e", None),
        (
            "s:start e:end",
            "s>e e>s",
            [
                "nodes[0]: an edge leads back to the start 's': remove it",
                "nodes[1]: the end 'e' has an edge to 's': nothing follows an end, remove it",
                "edges[1]: a cycle: s → e → s; workflows run forward only, remove one of these edges",
            ],
        ),
        (
            "s:start a b e:end",
            "s>a a>b b>a",
            [
                "edges[2]: a cycle: a → b → a; workflows run forward only, remove one of these edges",
                "nodes[3]: 'e' cannot be reached from the start: add an edge to it",
            ],
        ),
        (
            "s:start a e:end",
            "s>a a>e:true",
            ["nodes[1]: 'a' is of type action, and only decisions have conditions: remove 'true'"],
        ),
        (
            "s:start a e:end",
            "s>a a>e a>e",
            ["edges[2]: 'a' already has a way with no condition (edges[1]): keep one of them"],
        ),
        (
            "s:start d:decision e:end",
            "s>d d>e:true",
            ["nodes[1]: the decision 'd' has no way for 'false': add an edge for it"],
        ),
        (
            "s:start d:decision e:end",
            "s>d d>e:true d>e:maybe",
            ["nodes[1]: the decision 'd' has no way for 'false': add an edge for it"],
        ),
        (
            "s:start d:decision e:end",
            "s>d d>e:high",
            ["nodes[1]: the decision 'd' needs at least two ways: add edges with conditions"],
        ),
        (
            "s:start d:decision e:end",
            "s>d d>e:true d>e:false d>e:true",
            ["edges[3]: 'd' already has a way with the condition 'true' (edges[1]): keep one of them"],
        ),
        (
            "s:start d:decision e:end",
            "s>d d>e:true d>e:false d>e",
            ["nodes[1]: an edge of the decision 'd' has no condition: say which way it is"],
        ),
        (
            "s:start r:extract_invoice e:end",
            "s>r r>e:sure",
            ["nodes[1]: 'r' needs one edge without a condition, or the ways 'sure' and 'unsure'"],
        ),
        (
            "s:start r:extract_invoice e:end",
            "s>r r>e:true r>e:false",
            ["nodes[1]: 'r' needs one edge without a condition, or the ways 'sure' and 'unsure'"],
        ),
        (
            "s:start r:extract_invoice e:end",
            "s>r r>e r>e:sure",
            ["nodes[1]: 'r' needs one edge without a condition, or the ways 'sure' and 'unsure'"],
        ),
    ],
)
def test_each_fault_is_told(nodes, edges, problems):
    if problems is None:  # several at once; which, is tested below
        assert len(told(nodes, edges)) > 1
    else:
        assert told(nodes, edges) == problems


def test_every_cycle_is_told():
    found = told("s:start d:decision a b c e:end", "s>d d>a:true d>c:false a>b b>a c>c")
    assert [text for text in found if "cycle" in text] == [
        "edges[4]: a cycle: a → b → a; workflows run forward only, remove one of these edges",
        "edges[5]: a cycle: c → c; workflows run forward only, remove one of these edges",
    ]


def test_a_long_cycle_is_shortened():
    ids = [f"n{number}" for number in range(100)]
    edges = [f"{one}>{two}" for one, two in itertools.pairwise(ids)]
    found = told(f"s:start {' '.join(ids)} e:end", f"s>n0 {' '.join(edges)} n99>n0")
    assert any("a cycle: n0 → n1 → " in text and "(89 more)" in text and text.count("→") == 12 for text in found)


def test_thousands_of_cycles_are_counted_not_listed():
    ids = [f"n{number}" for number in range(2_000)]
    edges = [f"{one}>n0:x{number}" for number, one in enumerate(ids)]
    edges += [f"{one}>{two}:next" for one, two in itertools.pairwise(ids)]
    began = time.process_time()
    found = told(" ".join(f"{name}:decision" for name in ids), " ".join(edges))
    assert sum("cycle" in text for text in found) == 11
    assert time.process_time() - began < 5


def test_what_could_not_be_read_is_not_told_as_missing():
    assert told("s:start ?:? e:end", "s>a", all_ways_read=False) == []
    assert told("s:? e:end", "s>e") == []
    assert told("s:start d:decision e:end", "s>d d>e:true", all_ways_read=False) == []
    # but what is there is still judged
    assert told("s:start s:start ?:?", "s>a", all_ways_read=False) == [
        "nodes[1].id: 's' is already the id of nodes[0]: ids are unique",
        "nodes[1]: a second start (the first is nodes[0]): keep exactly one",
    ]


@given(valid_graphs())
def test_random_valid_graphs_have_no_problem(workflow: Workflow):
    kinds = {node["id"]: node["type"] for node in workflow.data["nodes"]}
    outlines = [Outline(name, name, kind, _WAYS.get(kind, frozenset())) for name, kind in kinds.items()]
    ways = [Way("", Edge.model_validate(edge), True) for edge in workflow.data["edges"]]
    assert graph_problems(outlines, ways) == []


@given(valid_graphs())
def test_a_random_graph_without_one_of_its_edges_is_invalid(workflow: Workflow):
    kinds = {node["id"]: node["type"] for node in workflow.data["nodes"]}
    outlines = [Outline(name, name, kind, _WAYS.get(kind, frozenset())) for name, kind in kinds.items()]
    ways = [Way("", Edge.model_validate(edge), True) for edge in workflow.data["edges"]]
    leaving = {
        edge["from"]: sum(other["from"] == edge["from"] for other in workflow.data["edges"])
        for edge in workflow.data["edges"]
    }
    for index, way in enumerate(ways):
        one_of_many = way.edge.condition not in ("true", "false") and leaving[way.edge.source] > 2
        if not one_of_many:
            assert graph_problems(outlines, ways[:index] + ways[index + 1 :])
