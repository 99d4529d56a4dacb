"""Hypothesis strategies for workflows, and the interpreter that says what a workflow means.

The interpreter follows the file's own edges and shares no code with parser, plan or job.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

_WORDS = [
    *("fetch", "read", "amount", "save", "tell-sender", "é", "ñandú", "日本", "😀", "Größe", "A", "a", "1", "2024"),
    *("context", "input", "type", "lambda", "None", "result", "run_outcome", "start", "end"),
    *("a_b", "a-b", "a.b", "a b", "a__b", "a_b_2", "_", "-", "__a__", "?", "true"),
]
#: ids of every sort that a definition may have; what clashes with Dagster's names, or with another id, is wanted here
NODE_IDS = _WORDS + [f"{one}{glue}{two}" for one in _WORDS for two in _WORDS for glue in (" ", "-")]

_CONDITIONS = st.one_of(
    st.just(["true", "false"]),
    st.just(["true", "false", "maybe"]),
    st.lists(
        st.sampled_from(["high", "low", "a", "a__b", "b__c", "c", "no pdf", "no_pdf", "result", "type", "ñ", "ü", "1"]),
        min_size=2,
        max_size=5,
        unique=True,
    ),
)


@dataclass(frozen=True, slots=True)
class Workflow:
    """A valid definition as plain data, and one decision for each of its decision nodes."""

    data: dict[str, Any]
    decisions: dict[str, str]

    @property
    def initial_context(self) -> dict[str, Any]:
        """Steers the generated decisions, whose expressions read `context.ways`."""
        return {"ways": self.decisions}


@dataclass(slots=True)
class _Slot:
    """A way out of a node whose target is not chosen yet."""

    source: int
    condition: str | None


@st.composite
def valid_graphs(draw: st.DrawFn, *, max_nodes: int = 30, actions: bool = True) -> Workflow:
    """Any shape of a valid workflow: nested decisions, several ends, merges of merges, many ways.

    Nodes come one after the other; each is entered by one or more of the ways that are still open, so that all
    are reached and no cycle is possible. With `actions=False` every inner node is a decision, which needs no sandbox.
    """
    inner = draw(st.integers(0, max_nodes - 2))
    conditions: list[list[str | None]] = [[None]]
    edges: list[tuple[int, str | None, int]] = []
    slots = [_Slot(0, None)]
    for index in range(1, inner + 1):
        for slot in _some(draw, slots):
            edges.append((slot.source, slot.condition, index))
        deciding = not actions or draw(st.booleans())
        conditions.append(list(draw(_CONDITIONS)) if deciding else [None])
        slots += [_Slot(index, condition) for condition in conditions[-1]]
    ends = draw(st.integers(1, min(3, len(slots))))
    for number in range(ends):
        later = ends - number - 1  # each needs a way of its own; the last takes all that are left
        taken = _some(draw, slots, leave=later) if later else slots
        edges += [(slot.source, slot.condition, inner + 1 + number) for slot in taken]
    # ids and order come from one seed: drawn one by one they would take most of the time
    random = draw(st.randoms(use_true_random=True))
    count = inner + 1 + ends
    ids = random.sample(NODE_IDS, count) if draw(st.booleans()) else [f"n{index}" for index in range(count)]
    random.shuffle(edges)
    data, decisions = _workflow(draw, ids, conditions, edges)
    random.shuffle(data["nodes"])
    return Workflow(data, decisions)


def _some(draw: st.DrawFn, slots: list[_Slot], *, leave: int = 0) -> list[_Slot]:
    """Takes one or more of the open ways out of `slots`."""
    many = min(len(slots) - leave, draw(st.sampled_from([1, 1, 1, 2, 3, 8])))
    return [slots.pop(draw(st.integers(0, len(slots) - 1))) for _ in range(many)]


def _workflow(
    draw: st.DrawFn, ids: list[str], conditions: list[list[str | None]], edges: list[tuple[int, str | None, int]]
) -> tuple[dict[str, Any], dict[str, str]]:
    nodes: list[dict[str, Any]] = [{"id": ids[0], "type": "start"}]
    decisions: dict[str, str] = {}
    for node_id, ways in zip(ids[1:], conditions[1:], strict=False):
        named = [way for way in ways if way is not None]
        if named:
            expression = f"context.ways[{json.dumps(node_id, ensure_ascii=False)}]"
            nodes.append({"id": node_id, "type": "decision", "expression": expression})
            decisions[node_id] = draw(st.sampled_from(named))
        else:
            nodes.append({"id": node_id, "type": "action", "code": f"context[{node_id!r}] = 'was here'"})
    nodes += [{"id": node_id, "type": "end"} for node_id in ids[len(conditions) :]]
    ways = [
        {"from": ids[source], "to": ids[target]} | ({"condition": condition} if condition is not None else {})
        for source, condition, target in edges
    ]
    return {"name": "Random", "nodes": nodes, "edges": ways}, decisions


def visited(data: dict[str, Any], decisions: dict[str, str]) -> list[str]:
    """The ids of the nodes that an execution passes, in order, when the decisions are as given."""
    kinds = {node["id"]: node["type"] for node in data["nodes"]}
    (here,) = [node_id for node_id, kind in kinds.items() if kind == "start"]
    path = [here]
    while kinds[here] != "end":
        wanted = decisions.get(here)
        (here,) = [edge["to"] for edge in data["edges"] if edge["from"] == here and edge.get("condition") == wanted]
        path.append(here)
    return path


#: JSON-like data of any shape, with the words of definitions among its keys and values
_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.sampled_from(
        [
            "start",
            "end",
            "action",
            "decision",
            "mail_fetch",
            "send_mail",
            "e2b",
            "ai",
            "a",
            "b",
            "true",
            "\x00",
            "\ud800",
        ]
    ),
)
_KEYS = st.one_of(
    st.sampled_from(
        [
            "name",
            "description",
            "trigger",
            "nodes",
            "edges",
            "graph_definition",
            "id",
            "type",
            "label",
            "timeout",
            "next",
            "from",
            "to",
            "condition",
            "code",
            "expression",
            "executor",
            "template",
            "subject",
            "body",
            "mailbox",
            "schedule",
            "timezone",
            "folder",
            "then",
            "clients",
        ]
    ),
    st.text(max_size=5),
)
JSON_LIKE = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(_KEYS, inner, max_size=6), max_leaves=40
)


@st.composite
def mutated_definitions(draw: st.DrawFn) -> dict[str, Any]:
    """A valid definition of which some places are replaced, removed or renamed."""
    data = json.loads(json.dumps(draw(valid_graphs(max_nodes=8)).data))
    for _ in range(draw(st.integers(1, 4))):
        container: Any = data
        while True:
            keys = list(container) if isinstance(container, dict) else list(range(len(container)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(container[key], (dict, list)) and draw(st.integers(0, 3)):
                container = container[key]
                continue
            change = draw(st.sampled_from(["replace", "remove", "add"]))
            if change == "replace":
                container[key] = draw(JSON_LIKE)
            elif change == "remove":
                del container[key]
            elif isinstance(container, dict):
                container[draw(_KEYS)] = draw(JSON_LIKE)
            break
    return data
