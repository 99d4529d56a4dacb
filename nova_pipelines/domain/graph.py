"""Which graphs are valid workflows. Every check adds to one list of problems, so that a user sees all at once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from nova_pipelines.domain.errors import Problem
from nova_pipelines.domain.workflow import Edge, Node

BOOLEAN = frozenset({"true", "false"})


def graph_problems(nodes: Sequence[tuple[int, Node]], edges: Sequence[tuple[str, Edge]]) -> list[Problem]:
    """All problems of a graph. `nodes` come with their index in the file, `edges` with their place."""
    problems = [*_identity_problems(nodes), *_edge_problems(nodes, edges)]
    known = {node.id for _, node in nodes}
    sound = [edge for _, edge in edges if edge.source in known and edge.target in known]
    for index, node in nodes:
        outgoing = [edge for edge in sound if edge.source == node.id]
        incoming = any(edge.target == node.id for edge in sound)
        problems += _way_problems(f"nodes[{index}]", node, outgoing, incoming)
    problems += _reach_problems(nodes, sound)
    return problems


def _identity_problems(nodes: Sequence[tuple[int, Node]]) -> Iterable[Problem]:
    first: dict[str, int] = {}
    for index, node in nodes:
        if node.id in first:
            yield Problem(
                f"nodes[{index}].id",
                f"{node.id!r} is already the id of nodes[{first[node.id]}]: ids are unique",
            )
        first.setdefault(node.id, index)
    starts = [index for index, node in nodes if node.kind == "start"]
    if not starts:
        yield Problem("nodes", "no start node: add one node of type start")
    for index in starts[1:]:
        yield Problem(f"nodes[{index}]", f"a second start (the first is nodes[{starts[0]}]): keep exactly one")
    if not any(node.kind == "end" for _, node in nodes):
        yield Problem("nodes", "no end node: add at least one node of type end")


def _edge_problems(nodes: Sequence[tuple[int, Node]], edges: Sequence[tuple[str, Edge]]) -> Iterable[Problem]:
    known = {node.id for _, node in nodes}
    for place, edge in edges:
        for end, name in (("from", edge.source), ("to", edge.target)):
            if name not in known:
                where = place if place.endswith(".next") or ".next." in place else f"{place}.{end}"
                yield Problem(where, f"there is no node {name!r}: correct the id or add the node")
    seen: set[tuple[str, str | None]] = set()
    for place, edge in edges:
        key = (edge.source, edge.condition)
        if key in seen:
            way = f"the condition {edge.condition!r}" if edge.condition else "no condition"
            yield Problem(place, f"node {edge.source!r} already has an edge with {way}: one way for each condition")
        seen.add(key)


def _way_problems(place: str, node: Node, outgoing: list[Edge], incoming: bool) -> Iterable[Problem]:
    if node.kind == "end":
        if outgoing:
            yield Problem(place, f"end node {node.id!r} has an edge to {outgoing[0].target!r}: nothing follows an end")
        return
    if node.kind == "start" and incoming:
        yield Problem(place, f"an edge leads back to the start node {node.id!r}: remove it")
    conditions = {edge.condition for edge in outgoing}
    if not outgoing:
        yield Problem(place, f"node {node.id!r} leads nowhere: give it an edge (or `next`)")
    elif node.ways is None:
        yield from _decision_problems(place, node, conditions)
    elif conditions == {None}:
        return  # one way; two edges without a condition were reported as a double edge
    elif not node.ways:
        named = ", ".join(sorted(c for c in conditions if c))
        yield Problem(place, f"only decisions have conditions, {node.id!r} is of type {node.kind}: remove {named}")
    elif conditions != node.ways:
        yield Problem(place, f"{node.id!r} needs one edge without a condition, or the ways {_words(node.ways)}")


def _decision_problems(place: str, node: Node, conditions: set[str | None]) -> Iterable[Problem]:
    if None in conditions:
        yield Problem(place, f"an edge of the decision {node.id!r} has no condition: say which way it is")
    named = {condition for condition in conditions if condition}
    missing = BOOLEAN - named if named & BOOLEAN else frozenset[str]()
    if missing:
        yield Problem(place, f"the decision {node.id!r} has no way for {_words(missing)}: add an edge for it")
    elif len(named) < 2:
        yield Problem(place, f"the decision {node.id!r} needs at least two ways: add edges with conditions")


def _reach_problems(nodes: Sequence[tuple[int, Node]], edges: list[Edge]) -> Iterable[Problem]:
    ways: defaultdict[str, list[str]] = defaultdict(list)
    for edge in edges:
        ways[edge.source].append(edge.target)
    cycle = _find_cycle([node.id for _, node in nodes], ways)
    if cycle:
        yield Problem("edges", f"a cycle: {' → '.join(cycle)}; workflows run forward only, remove one of these edges")
    starts = [node.id for _, node in nodes if node.kind == "start"]
    if not starts:
        return
    reached, todo = set(starts), list(starts)
    while todo:
        for target in ways[todo.pop()]:
            if target not in reached:
                reached.add(target)
                todo.append(target)
    for index, node in nodes:
        if node.id not in reached:
            yield Problem(f"nodes[{index}]", f"node {node.id!r} cannot be reached from the start: add an edge to it")


def _find_cycle(ids: list[str], ways: dict[str, list[str]]) -> list[str] | None:
    """One cycle as a path that ends where it begins, or None. Iterative: graphs may be deep."""
    state: Counter[str] = Counter()  # 0 new, 1 on the path, 2 done
    for root in ids:
        if state[root]:
            continue
        path, iterators = [root], [iter(ways.get(root, []))]
        state[root] = 1
        while path:
            target = next(iterators[-1], None)
            if target is None:
                state[path.pop()] = 2
                iterators.pop()
            elif state[target] == 1:
                return [*path[path.index(target) :], target]
            elif state[target] == 0:
                state[target] = 1
                path.append(target)
                iterators.append(iter(ways.get(target, [])))
    return None


def _words(names: Iterable[str]) -> str:
    return " and ".join(repr(name) for name in sorted(names))
