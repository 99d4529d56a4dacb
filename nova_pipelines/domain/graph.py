"""Which graphs are valid workflows. Every check adds to one list of problems, so that a user sees all at once.

The graph is checked on outlines of the nodes, also when settings of a node could not be read. What could not
be read at all is never reported as missing: checks for absent things run only where everything they need is known.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nova_pipelines.domain.errors import Problem, clipped
from nova_pipelines.domain.workflow import Edge

BOOLEAN = frozenset({"true", "false"})
#: cycles that are told, and ids of one cycle
MAX_CYCLES = 10
MAX_CYCLE_IDS = 12
#: conditions that one problem names
MAX_WORDS = 10


@dataclass(frozen=True, slots=True)
class Outline:
    """A node as the graph sees it, and its place in the file. None: could not be read."""

    place: str
    id: str | None
    kind: str | None
    #: as `Node.ways`
    ways: frozenset[str] | None = frozenset()
    #: as `Node.more_ways`
    more_ways: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """An edge and its place in the file. `listed`: among the edges, else written as `next` of a node."""

    place: str
    edge: Edge
    listed: bool


def graph_problems(
    nodes: Sequence[Outline], ways: Sequence[Way], *, place: str = "nodes", all_ways_read: bool = True
) -> list[Problem]:
    """All problems of a graph. `place`: where the list of nodes stands in the file.

    `all_ways_read`: False when an edge of the file could not be read.
    """
    problems = [*_identity_problems(nodes), *_start_and_end_problems(nodes, place)]
    if all(node.id is not None for node in nodes):
        problems += _target_problems(nodes, ways)
    outgoing: defaultdict[str, list[Way]] = defaultdict(list)
    for way in ways:
        outgoing[way.edge.source].append(way)
    ids = Counter(node.id for node in nodes)
    entered = {way.edge.target for way in ways}
    for node in nodes:
        if node.id is not None and ids[node.id] == 1:
            problems += _double_ways(node.id, outgoing[node.id])
            problems += _way_problems(node, node.id, outgoing[node.id], all_ways_read=all_ways_read)
            if node.kind == "start" and node.id in entered:
                problems.append(Problem(node.place, f"an edge leads back to the start {quoted(node.id)}: remove it"))
    problems += _cycle_problems(nodes, outgoing)
    if all_ways_read and all(node.id is not None and node.kind is not None for node in nodes):
        problems += _reach_problems(nodes, outgoing)
    return problems


def quoted(text: str) -> str:
    return clipped(repr(text))


def _identity_problems(nodes: Sequence[Outline]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for node in nodes:
        if node.id is None:
            continue
        if node.id in first:
            yield Problem(
                f"{node.place}.id", f"{quoted(node.id)} is already the id of {first[node.id]}: ids are unique"
            )
        first.setdefault(node.id, node.place)


def _start_and_end_problems(nodes: Sequence[Outline], place: str) -> Iterator[Problem]:
    kinds_known = all(node.kind is not None for node in nodes)
    starts = [node for node in nodes if node.kind == "start"]
    if not starts and kinds_known:
        yield Problem(place, "no start node: add one node of type start")
    for node in starts[1:]:
        yield Problem(node.place, f"a second start (the first is {starts[0].place}): keep exactly one")
    if kinds_known and not any(node.kind == "end" for node in nodes):
        yield Problem(place, "no end node: add at least one node of type end")


def _target_problems(nodes: Sequence[Outline], ways: Sequence[Way]) -> Iterator[Problem]:
    known = {node.id for node in nodes}
    for way in ways:
        for field, name in (("from", way.edge.source), ("to", way.edge.target)):
            if name not in known:
                place = f"{way.place}.{field}" if way.listed else way.place
                yield Problem(place, f"there is no node {quoted(name)}: correct the id or add the node")


def _double_ways(node_id: str, outgoing: Sequence[Way]) -> Iterator[Problem]:
    seen: dict[str | None, str] = {}
    for way in outgoing:
        condition = way.edge.condition
        if condition in seen:
            with_what = f"the condition {quoted(condition)}" if condition else "no condition"
            yield Problem(
                way.place,
                f"{quoted(node_id)} already has a way with {with_what} ({seen[condition]}): keep one of them",
            )
        seen.setdefault(condition, way.place)


def _way_problems(node: Outline, node_id: str, outgoing: Sequence[Way], *, all_ways_read: bool) -> Iterator[Problem]:
    if node.kind is None:
        return
    name = quoted(node_id)
    if node.kind == "end":
        if outgoing:
            target = quoted(outgoing[0].edge.target)
            yield Problem(node.place, f"the end {name} has an edge to {target}: nothing follows an end, remove it")
        return
    conditions = {way.edge.condition for way in outgoing}
    named = {condition for condition in conditions if condition is not None}
    if node.ways is None:
        yield from _decision_problems(node.place, name, conditions, all_ways_read=all_ways_read)
    elif not outgoing:
        if all_ways_read:
            yield Problem(node.place, f"{name} leads nowhere: give it an edge (or `next`)")
    elif not node.ways and named:
        reason = f"{name} is of type {node.kind}, and only decisions have conditions"
        yield Problem(node.place, f"{reason}: remove {_words(named)}")
    elif node.more_ways:
        if None in conditions or named - node.ways - node.more_ways or (all_ways_read and node.ways - named):
            also = f", and may have {_words(node.more_ways)}"
            yield Problem(node.place, f"{name} needs the ways {_words(node.ways)}{also}: name them in its edges")
    elif named and (None in conditions or named - node.ways or (all_ways_read and node.ways - named)):
        yield Problem(node.place, f"{name} needs one edge without a condition, or the ways {_words(node.ways)}")


def _decision_problems(place: str, name: str, conditions: set[str | None], *, all_ways_read: bool) -> Iterator[Problem]:
    if None in conditions:
        yield Problem(place, f"an edge of the decision {name} has no condition: say which way it is")
    if not all_ways_read:
        return
    named = {condition for condition in conditions if condition is not None}
    missing = BOOLEAN - named if named & BOOLEAN else frozenset[str]()
    if missing:
        yield Problem(place, f"the decision {name} has no way for {_words(missing)}: add an edge for it")
    elif len(named) < 2:
        yield Problem(place, f"the decision {name} needs at least two ways: add edges with conditions")


def _reach_problems(nodes: Sequence[Outline], outgoing: dict[str, list[Way]]) -> Iterator[Problem]:
    todo = [node.id for node in nodes if node.kind == "start" and node.id is not None]
    if not todo:
        return
    reached = set(todo)
    while todo:
        for way in outgoing.get(todo.pop(), ()):
            if way.edge.target not in reached:
                reached.add(way.edge.target)
                todo.append(way.edge.target)
    for node in nodes:
        if node.id is not None and node.id not in reached:
            yield Problem(node.place, f"{quoted(node.id)} cannot be reached from the start: add an edge to it")


def _cycle_problems(nodes: Sequence[Outline], outgoing: dict[str, list[Way]]) -> Iterator[Problem]:
    ids = [node.id for node in nodes if node.id is not None]
    for number, (cycle, way) in enumerate(_cycles(ids, outgoing)):
        if number == MAX_CYCLES:
            yield Problem("edges", "more cycles: correct these first")
            return
        names = [clipped(name) for name in cycle]
        if len(names) > MAX_CYCLE_IDS:
            names = [*names[: MAX_CYCLE_IDS - 2], f"… ({len(names) - MAX_CYCLE_IDS} more)", *names[-2:]]
        path = " → ".join(names)
        yield Problem(way.place, f"a cycle: {path}; workflows run forward only, remove one of these edges")


def _cycles(ids: list[str], outgoing: dict[str, list[Way]]) -> Iterator[tuple[list[str], Way]]:
    """For each edge that leads back: the cycle it closes, as ids of which the last is the first again.

    A depth-first search without recursion, since graphs may be deep. Without these edges no cycle is left.
    """
    done: set[str] = set()
    for root in ids:
        if root in done:
            continue
        depth = {root: 0}  # of the nodes on the path, in order
        todo = [iter(outgoing.get(root, ()))]
        while todo:
            way = next(todo[-1], None)
            if way is None:
                todo.pop()
                done.add(depth.popitem()[0])
                continue
            target = way.edge.target
            if target in depth:
                yield [*list(depth)[depth[target] :], target], way
            elif target not in done:
                depth[target] = len(depth)
                todo.append(iter(outgoing.get(target, ())))


def _words(names: Iterable[str]) -> str:
    words = [quoted(name) for name in sorted(names)]
    shown = words if len(words) <= MAX_WORDS else [*words[:MAX_WORDS], f"{len(words) - MAX_WORDS} more"]
    return " and ".join(shown)
