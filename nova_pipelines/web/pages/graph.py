"""The graph of a workflow as a drawing: places of nodes, and curves between them, in layers from top to bottom.

Pure: knows plans and states of nodes, no database and no HTML. Sugiyama's method: layers by the longest way from the
start, an order within them by the neighbours' middle, places that do not overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from nova_pipelines.compiler.plan import Plan

WIDTH, HEIGHT = 176.0, 54.0
GAP_X, GAP_Y = 26.0, 46.0
MARGIN = 12.0
#: larger graphs are a table only
MAX_NODES = 150
_SWEEPS = 6


@dataclass(frozen=True, slots=True)
class State:
    """How an execution stands at a node. `path`: the condition it took, or None where there is one way."""

    status: str
    seconds: float | None = None
    error: str = ""
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Box:
    id: str
    label: str
    kind: str
    x: float
    y: float
    state: State | None


@dataclass(frozen=True, slots=True)
class Curve:
    """`path`: of an SVG path; the words of its condition stand at `x`, `y`."""

    path: str
    condition: str
    x: float
    y: float
    taken: bool


@dataclass(frozen=True, slots=True)
class Drawing:
    width: float
    height: float
    boxes: tuple[Box, ...]
    curves: tuple[Curve, ...]


@dataclass(slots=True)
class _Point:
    """A node, or a place where an edge passes a layer."""

    key: str
    width: float
    above: list[str] = field(default_factory=list[str])
    below: list[str] = field(default_factory=list[str])
    x: float = 0.0


@dataclass(frozen=True, slots=True)
class _Edge:
    """All ways from one node to another; `conditions` is empty where there is one way only."""

    source: str
    target: str
    conditions: tuple[str, ...] = ()


def draw(plan: Plan, states: Mapping[str, State]) -> Drawing | None:
    """None: there are too many nodes for a drawing."""
    if len(plan.steps) > MAX_NODES:
        return None
    edges = _edges(plan)
    layers, points, routes = _layers(plan, edges)
    for sweep in range(_SWEEPS):
        _order(layers, points, down=sweep % 2 == 0)
    _spread(layers, points)
    rank = {key: number for number, layer in enumerate(layers) for key in layer}
    left = min(point.x - point.width / 2 for point in points.values())
    for point in points.values():
        point.x += MARGIN - left
    boxes = tuple(
        Box(
            step.node.id,
            step.node.label or step.node.id,
            step.node.kind,
            points[step.node.id].x,
            MARGIN + rank[step.node.id] * (HEIGHT + GAP_Y),
            states.get(step.node.id),
        )
        for step in plan.steps
    )
    curves = tuple(_curve(edge, routes[edge], points, rank, states) for edge in edges)
    width = max(point.x + point.width / 2 for point in points.values()) + MARGIN
    return Drawing(width, MARGIN * 2 + len(layers) * (HEIGHT + GAP_Y) - GAP_Y, boxes, curves)


def _edges(plan: Plan) -> list[_Edge]:
    found: list[_Edge] = []
    for step in plan.steps:
        targets: dict[str, tuple[str, ...]] = {}
        for condition, (_, target) in step.ways.items():
            targets[target] = (*targets.get(target, ()), condition)
        found += [_Edge(step.node.id, target, conditions) for target, conditions in targets.items()]
        found += [_Edge(step.node.id, step.following)] if step.following is not None else []
    return found


def _layers(
    plan: Plan, edges: Sequence[_Edge]
) -> tuple[list[list[str]], dict[str, _Point], dict[_Edge, tuple[str, ...]]]:
    """Layers of keys, the points by key, and for each edge the points it goes through, ends included."""
    rank = {step.node.id: 0 for step in plan.steps}
    outgoing: dict[str, list[_Edge]] = {key: [] for key in rank}
    for edge in edges:
        outgoing[edge.source].append(edge)
    for step in plan.steps:  # in an order in which every step comes after those that lead to it
        for edge in outgoing[step.node.id]:
            rank[edge.target] = max(rank[edge.target], rank[edge.source] + 1)
    layers: list[list[str]] = [[] for _ in range(max(rank.values()) + 1)]
    points = {key: _Point(key, WIDTH) for key in rank}
    for key, number in rank.items():
        layers[number].append(key)
    routes: dict[_Edge, tuple[str, ...]] = {}
    for edge in edges:
        route = [edge.source]
        for number in range(rank[edge.source] + 1, rank[edge.target]):
            key = f"{edge.source}\n{edge.target}\n{number}"  # no id holds a line break
            points[key] = _Point(key, GAP_X)
            layers[number].append(key)
            route.append(key)
        route.append(edge.target)
        for upper, lower in pairwise(route):
            points[upper].below.append(lower)
            points[lower].above.append(upper)
        routes[edge] = tuple(route)
    return layers, points, routes


def _order(layers: list[list[str]], points: dict[str, _Point], *, down: bool) -> None:
    for layer in layers if down else reversed(layers):
        place = {key: number for row in layers for number, key in enumerate(row)}
        middles = {key: _middle(points[key].above if down else points[key].below, place) for key in layer}
        now = {key: number for number, key in enumerate(layer)}
        layer.sort(key=lambda key: (middles[key] if middles[key] is not None else now[key], now[key]))


def _middle(keys: Sequence[str], place: Mapping[str, float]) -> float | None:
    return sum(place[key] for key in keys) / len(keys) if keys else None


def _spread(layers: list[list[str]], points: dict[str, _Point]) -> None:
    """Places within the layers: as near as may be to the neighbours, without overlapping."""
    for layer in layers:
        for number, key in enumerate(layer):
            points[key].x = (number - (len(layer) - 1) / 2) * (WIDTH + GAP_X)
    for sweep in range(_SWEEPS * 2):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            wanted: list[float] = []
            for key in layer:
                near = points[key].above if down else points[key].below
                middle = _middle(near, {other: points[other].x for other in near})
                wanted.append(points[key].x if middle is None else middle)
            _push_apart([points[key] for key in layer], wanted)


def _push_apart(row: Sequence[_Point], wanted: Sequence[float]) -> None:
    placed: list[float] = []
    for point, x in zip(row, wanted, strict=True):
        if placed:
            before = row[len(placed) - 1]
            x = max(x, placed[-1] + (before.width + point.width) / 2 + GAP_X)
        placed.append(x)
    # what was pushed to the right goes back by half of the push, on average
    shift = sum(w - p for w, p in zip(wanted, placed, strict=True)) / len(row)
    for point, x in zip(row, placed, strict=True):
        point.x = x + shift


def _curve(
    edge: _Edge,
    route: Sequence[str],
    points: Mapping[str, _Point],
    rank: Mapping[str, int],
    states: Mapping[str, State],
) -> Curve:
    x, y = points[edge.source].x, MARGIN + rank[edge.source] * (HEIGHT + GAP_Y) + HEIGHT
    parts = [f"M{x:.1f},{y:.1f}"]
    word_x, word_y = x, y
    for key in route[1:]:
        to_x, to_y = points[key].x, MARGIN + rank[key] * (HEIGHT + GAP_Y)
        half = (to_y - y) / 2
        parts.append(f"C{x:.1f},{y + half:.1f} {to_x:.1f},{to_y - half:.1f} {to_x:.1f},{to_y:.1f}")
        if key == route[1]:
            word_x, word_y = (x + to_x) / 2, y + half
        x, y = to_x, to_y
        if key != route[-1]:
            y += HEIGHT
            parts.append(f"L{x:.1f},{y:.1f}")
    state = states.get(edge.source)
    taken = state is not None and state.status == "success" and state.path in (edge.conditions or (edge.target,))
    return Curve(" ".join(parts), " / ".join(edge.conditions), word_x, word_y, taken)
