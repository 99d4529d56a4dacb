"""The model of a workflow definition: nodes, edges, trigger.

It owns what a definition *is*; how text becomes one is `parsing.py`, which graphs are valid is `graph.py`.
The kinds of nodes are given by the registry: this module knows only the four of the NOVA dialect's shape.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

#: longest time a node may ask for (seconds): a day
MAX_TIMEOUT = 86_400.0
MAX_NODES = 2_000
MAX_NAME = 200

NodeId = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^\S(.*\S)?$")]


def condition_name(value: object) -> object:
    """A condition as it is matched: booleans and strings become lower-case words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.strip().lower() if isinstance(value, str) else value


Condition = Annotated[str, BeforeValidator(condition_name), Field(min_length=1, max_length=100)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Node(_Strict):
    """What every node has. Subclasses add a `type` literal and the settings of their kind.

    `timeout` is in seconds. `next` is a way to write edges and is empty in a finished definition.
    """

    #: conditions the kind can take; None: decided by the edges; empty: one way without a condition
    ways: ClassVar[frozenset[str] | None] = frozenset()

    id: NodeId
    label: str | None = Field(default=None, max_length=MAX_NAME)
    timeout: float = Field(default=60.0, gt=0, le=MAX_TIMEOUT, allow_inf_nan=False)
    next: NodeId | dict[Condition, NodeId] | None = None

    @property
    def kind(self) -> str:
        return str(getattr(self, "type", ""))


class StartNode(Node):
    """Where every execution begins."""

    type: Literal["start"]


class EndNode(Node):
    """Where executions are complete. There may be several."""

    type: Literal["end"]


class Edge(_Strict):
    """A way from one node to another; `condition` where the node decides between ways."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    source: NodeId = Field(alias="from")
    target: NodeId = Field(alias="to")
    condition: Condition | None = None


class MailboxTrigger(_Strict):
    """New mail in a client's mailbox starts an execution for each document."""

    folder: str = Field(default="INBOX", min_length=1, max_length=255)
    then: Literal["mark_as_read", "nothing"] | Annotated[str, Field(pattern=r"^move:.+$")] = "mark_as_read"
    #: slugs of the clients it serves; None: every active client with a mailbox
    clients: list[str] | None = None


class Trigger(_Strict):
    """What starts executions without being asked: a mailbox or a schedule (cron, five fields)."""

    mailbox: MailboxTrigger | None = None
    schedule: str | None = Field(default=None, max_length=100)
    timezone: str = Field(default="UTC", max_length=64)

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.mailbox is None) == (self.schedule is None):
            raise ValueError("give either `mailbox` or `schedule`")
        return self


class Definition(_Strict):
    """A workflow that passed every check: `nodes` without `next`, all ways in `edges`."""

    name: str
    description: str | None = None
    trigger: Trigger | None = None
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def job_name(self) -> str:
        return job_name(self.name)

    def node(self, node_id: str) -> Node:
        return next(node for node in self.nodes if node.id == node_id)

    def canonical(self) -> dict[str, Any]:
        """The definition as plain JSON: what is stored, hashed and exported. Defaults are left out."""
        body: dict[str, Any] = {"name": self.name}
        if self.description is not None:
            body["description"] = self.description
        if self.trigger is not None:
            body["trigger"] = self.trigger.model_dump(mode="json", exclude_defaults=True)
        body["nodes"] = [
            {"id": node.id, "type": node.kind}
            | node.model_dump(mode="json", exclude_defaults=True, exclude={"id", "type", "next"})
            for node in self.nodes
        ]
        body["edges"] = [edge.model_dump(mode="json", by_alias=True, exclude_none=True) for edge in self.edges]
        return body


#: names that Dagster keeps for itself, for ops, outputs and jobs
_RESERVED = frozenset(keyword.kwlist) | frozenset(
    "context conf config meta arg_dict dict input_arg_dict output_arg_dict int str float bool input output type".split()  # noqa: SIM905
)


def safe_name(text: str) -> str:
    """`text` as a name that Dagster accepts (letters, digits, underscores); it itself where possible."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "node"
    if text and text == name and name not in _RESERVED:
        return name
    return f"{name}_" if name in _RESERVED else name


def job_name(name: str) -> str:
    """The name of a workflow's Dagster job: "Invoice Processing" → "invoice_processing"."""
    return safe_name(name.lower())


def unique_names(texts: Mapping[str, object] | list[str] | tuple[str, ...]) -> dict[str, str]:
    """A safe name for each text, none twice; in order, so that the same texts give the same names."""
    taken: set[str] = set()
    names: dict[str, str] = {}
    for text in texts:
        base = name = safe_name(text)
        number = 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        names[text] = name
    return names
