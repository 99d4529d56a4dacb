"""The model of a workflow definition: nodes, edges, trigger.

It owns what a definition *is*; how text becomes one is `parsing.py`, which graphs are valid is `graph.py`.
The kinds of nodes are given by the registry: this module knows only `start` and `end`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal, Self
from zoneinfo import available_timezones

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from nova_pipelines.domain.names import job_name

#: longest time a node may ask for (seconds): a day
MAX_TIMEOUT = 86_400.0
MAX_NODES = 2_000
MAX_EDGES = 10_000
MAX_NAME = 200


def one_line(text: str) -> str:
    """Refuses line breaks, control and invisible characters: the text stands in names, logs and headers."""
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


def _no_blanks_around(text: str) -> str:
    if text != text.strip():
        raise ValueError("must not begin or end with blanks: remove them")
    return text


def condition_name(value: object) -> object:
    """A condition as it is matched: booleans and strings become lower-case words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.strip().lower() if isinstance(value, str) else value


# the order counts: lengths are checked on the text itself, with messages of their own, only where they come first
_ONE_LINE = AfterValidator(one_line)
NodeId = Annotated[
    str,
    Field(min_length=1, max_length=100, json_schema_extra={"pattern": r"^\S(.*\S)?$"}),
    _ONE_LINE,
    AfterValidator(_no_blanks_around),
]
Condition = Annotated[
    str,
    Field(min_length=1, max_length=100, json_schema_extra={"type": ["string", "boolean"]}),
    BeforeValidator(condition_name),
    _ONE_LINE,
]
Label = Annotated[str, Field(max_length=MAX_NAME), _ONE_LINE]
Folder = Annotated[str, Field(min_length=1, max_length=255), _ONE_LINE]
Slug = Annotated[str, Field(min_length=1, max_length=100), _ONE_LINE]


class Part(BaseModel):
    """A part of a definition. Types are strict (`"60"` is no number) and unknown fields are refused.

    `one_of`: groups of fields of which exactly one is given, and given whole.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    one_of: ClassVar[tuple[tuple[str, ...], ...]] = ()

    @model_validator(mode="after")
    def _one_group(self) -> Self:
        reason = self.choice_problem(
            {name for group in self.one_of for name in group if getattr(self, name) is not None}
        )
        if reason is not None:
            raise ValueError(reason)
        return self

    @classmethod
    def choice_problem(cls, given: set[str]) -> str | None:
        """What is wrong with giving these fields of `one_of`, or None."""
        choices = [set(group) for group in cls.one_of]
        if not choices or given & set().union(*choices) in choices:
            return None
        words = [" and ".join(f"`{name}`" for name in group) for group in cls.one_of]
        return f"give either {', or '.join(words)}" + (", and nothing of the other" if given else "")


class Node(Part):
    """What every node has. Subclasses add a `type` literal and the settings of their kind.

    `timeout` is in seconds. Where a node leads to stands in the definition's edges.
    """

    #: conditions the kind can take; None: decided by the edges; empty: one way without a condition
    ways: ClassVar[frozenset[str] | None] = frozenset()
    #: conditions that it can take besides, if there are edges for them; a kind with such must have all of `ways`
    more_ways: ClassVar[frozenset[str]] = frozenset()

    id: NodeId
    label: Label | None = None
    timeout: float = Field(default=60.0, gt=0, le=MAX_TIMEOUT, allow_inf_nan=False)

    @property
    def kind(self) -> str:
        return str(getattr(self, "type", ""))


class StartNode(Node):
    """Where every execution begins."""

    type: Literal["start"]


class EndNode(Node):
    """Where executions are complete. There may be several."""

    type: Literal["end"]


class Edge(Part):
    """A way from one node to another; `condition` where the node decides between ways."""

    source: NodeId = Field(alias="from")
    target: NodeId = Field(alias="to")
    condition: Condition | None = None


#: an atom (RFC 9051, 9: flag-keyword) of signs that every server takes
_KEYWORD = r"[$A-Za-z0-9_][A-Za-z0-9_.$-]{0,63}"


def _what_then(then: str) -> str:
    if then in ("mark_as_read", "nothing") or then.removeprefix("move:").strip() not in ("", then):
        return then
    if then.startswith("keyword:") and re.fullmatch(_KEYWORD, then.removeprefix("keyword:")):
        return then
    raise ValueError("must be mark_as_read, nothing, move:<folder> or keyword:<name>")


Then = Annotated[
    str,
    Field(max_length=260, json_schema_extra={"pattern": rf"^(mark_as_read|nothing|move:.*\S.*|keyword:{_KEYWORD})$"}),
    _ONE_LINE,
    AfterValidator(_what_then),
]


class MailboxTrigger(Part):
    """New mail in a client's mailbox starts an execution for each document."""

    folder: Folder = "INBOX"
    then: Then = "mark_as_read"
    #: slugs of the clients it serves; None: every active client with a mailbox
    clients: Annotated[list[Slug], Field(min_length=1)] | None = None


@lru_cache(maxsize=1)
def _timezones() -> frozenset[str]:
    return frozenset(available_timezones())


def _known_timezone(name: str) -> str:
    if name not in _timezones():
        raise ValueError(f"no time zone {name!r}: use a name of the IANA list, such as Europe/Madrid")
    return name


class Trigger(Part):
    """What starts executions without being asked: a mailbox or a schedule (cron, five fields)."""

    one_of = (("mailbox",), ("schedule",))

    mailbox: MailboxTrigger | None = None
    schedule: Annotated[str, Field(min_length=1, max_length=100), _ONE_LINE] | None = None
    timezone: Annotated[str, Field(max_length=64), AfterValidator(_known_timezone)] = "UTC"


class Definition(Part):
    """A workflow that passed every check (see `parsing.py`, which alone makes them)."""

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
            | node.model_dump(mode="json", exclude_defaults=True, exclude={"id", "type"})
            for node in self.nodes
        ]
        body["edges"] = [edge.model_dump(mode="json", by_alias=True, exclude_none=True) for edge in self.edges]
        return body
