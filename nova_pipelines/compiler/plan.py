"""From a definition to an ordered plan of steps, with the names that Dagster will know them by.

Pure: no Dagster here, so that what a graph means can be tested without an engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nova_pipelines.domain.names import unique_names
from nova_pipelines.domain.workflow import Definition, Node, StartNode
from nova_pipelines.nodes.start import bound

#: the output of a node that has one way only
ONLY = "result"
#: the step after all ends, which tells how the run went
OUTCOME = "run_outcome"


@dataclass(frozen=True, slots=True)
class Source:
    """An output of another step that leads here."""

    step: str
    output: str


@dataclass(frozen=True, slots=True)
class Step:
    """A node in the plan. `ways` maps a condition to (output name, id of the node it leads to)."""

    name: str
    node: Node
    ways: Mapping[str, tuple[str, str]]
    #: the node that follows where there is one way only; None at an end
    following: str | None
    sources: tuple[Source, ...]

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(output for output, _ in self.ways.values()) or (ONLY,)


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in an order in which every step comes after those that lead to it."""

    name: str
    job_name: str
    steps: tuple[Step, ...]

    def step(self, node_id: str) -> Step:
        return next(step for step in self.steps if step.node.id == node_id)

    @property
    def ends(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.node.kind == "end")


def make_plan(definition: Definition) -> Plan:
    """The plan of a valid definition. Deterministic: the same definition gives the same plan."""
    names = unique_names((node.id for node in definition.nodes), taken={OUTCOME})
    ways, following = _ways(definition)
    sources: dict[str, list[Source]] = {node.id: [] for node in definition.nodes}
    for node in definition.nodes:
        for output, target in ways[node.id].values():
            sources[target].append(Source(names[node.id], output))
        if node.id in following:
            sources[following[node.id]].append(Source(names[node.id], ONLY))
    steps = [
        Step(
            name=names[node.id],
            node=bound(node, definition) if isinstance(node, StartNode) else node,
            ways=ways[node.id],
            following=following.get(node.id),
            sources=tuple(sources[node.id]),
        )
        for node in _ordered(definition)
    ]
    return Plan(definition.name, definition.job_name, tuple(steps))


def _ways(definition: Definition) -> tuple[dict[str, dict[str, tuple[str, str]]], dict[str, str]]:
    conditions: dict[str, dict[str, str]] = {node.id: {} for node in definition.nodes}
    following: dict[str, str] = {}
    for edge in definition.edges:
        if edge.condition is None:
            following[edge.source] = edge.target
        else:
            conditions[edge.source][edge.condition] = edge.target
    ways: dict[str, dict[str, tuple[str, str]]] = {}
    for node_id, targets in conditions.items():
        outputs = unique_names(sorted(targets), taken={ONLY})
        ways[node_id] = {condition: (outputs[condition], targets[condition]) for condition in sorted(targets)}
    return ways, following


def _ordered(definition: Definition) -> list[Node]:
    """Kahn's algorithm, first come first served: the order of the edges where the graph leaves a choice."""
    waiting = {node.id: 0 for node in definition.nodes}
    for edge in definition.edges:
        waiting[edge.target] += 1
    nodes = {node.id: node for node in definition.nodes}
    ready = [node.id for node in definition.nodes if waiting[node.id] == 0]
    order: list[Node] = []
    targets: dict[str, list[str]] = {node.id: [] for node in definition.nodes}
    for edge in definition.edges:
        targets[edge.source].append(edge.target)
    for node_id in ready:  # grows while it is read
        order.append(nodes[node_id])
        for target in targets[node_id]:
            waiting[target] -= 1
            if waiting[target] == 0:
                ready.append(target)
    return order
