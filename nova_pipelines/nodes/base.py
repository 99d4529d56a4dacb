"""What a node kind is: a config model and a function from an item to a result.

A kind knows nothing of Dagster. It gets its outside world as `Services`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nova_pipelines.domain.workflow import Node

if TYPE_CHECKING:
    from nova_pipelines.nodes.services import Services


@dataclass(frozen=True, slots=True)
class ClientView:
    """What a node may know of a client. No secrets."""

    id: int
    slug: str
    name: str
    email: str | None
    sender_whitelist: tuple[str, ...]
    expose_credentials: bool
    allow_network: bool


@dataclass(frozen=True, slots=True)
class Item:
    """One execution on its way through a node. `context` is the node's own copy."""

    execution_id: int
    workflow_id: int
    workflow_name: str
    client: ClientView | None
    context: dict[str, Any]
    #: the conditions between which this node may choose; empty where there is one way only
    ways: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Result:
    """What a node made of an item.

    `path`: the condition whose way the item takes; None where there is only one way.
    `stop`: the execution is complete here (an empty inbox), nothing after this node runs.
    `metadata`: short facts for the run's page (amount, invoice number, link to a document).
    """

    context: dict[str, Any]
    path: str | None = None
    decision: str | None = None
    code: str | None = None
    stop: bool = False
    metadata: dict[str, Any] = field(default_factory=dict)


def repeatable(node: Node, item: Item) -> bool:
    """The rule for most kinds: a node that a crash interrupted can be begun again."""
    return True


@dataclass(frozen=True, slots=True)
class NodeKind:
    """A kind of node. `run(node, item, services)` raises the errors of `domain.errors`."""

    type: str
    model: type[Node]
    run: Callable[[Any, Item, Services], Result]
    #: whether it may simply be begun again after a crash in its middle; if not, a person decides
    repeatable: Callable[[Any, Item], bool] = repeatable
    #: the item is handed to a sandbox: Dagster's pool and the session are needed
    uses_sandbox: bool = False
    #: the table that the kind writes, as an asset of Dagster's; None: it writes none
    asset: str | None = None
