"""All kinds of nodes, and the union of their models that reads definitions.

Adding a kind means adding one module and one line here.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from nova_pipelines.domain.parsing import build_definition, load_text
from nova_pipelines.domain.workflow import Definition, Edge, EndNode, StartNode, Trigger
from nova_pipelines.nodes import code, decision, extract_invoice, invoice_write, mail_fetch, send_mail
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.services import Services


def _pass(node: Any, item: Item, services: Services) -> Result:
    return Result(context=item.context)


KINDS: dict[str, NodeKind] = {
    kind.type: kind
    for kind in (
        NodeKind(type="start", model=StartNode, run=_pass),
        NodeKind(type="end", model=EndNode, run=_pass),
        code.KIND,
        decision.KIND,
        mail_fetch.KIND,
        extract_invoice.KIND,
        invoice_write.KIND,
        send_mail.KIND,
    )
}

#: the discriminated union of all node models
NODES: TypeAdapter[Any] = TypeAdapter(
    Annotated[reduce(or_, (kind.model for kind in KINDS.values())), Field(discriminator="type")]
)


def read_definition(text: str, *, source: str = "definition") -> Definition:
    """A definition from JSON or YAML text. Raises DefinitionError with every problem and its place."""
    return build_definition(load_text(text, source=source), NODES, source=source)


def definition_from(data: Any, *, source: str = "definition") -> Definition:
    """A definition from plain data, such as a stored version. Raises DefinitionError."""
    return build_definition(data, NODES, source=source)


def definition_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of definition files, for editors."""
    nodes = NODES.json_schema(ref_template="#/$defs/{model}")
    edge = TypeAdapter(Edge).json_schema(ref_template="#/$defs/{model}")
    trigger = TypeAdapter(Trigger).json_schema(ref_template="#/$defs/{model}")
    defs = {**nodes.pop("$defs", {}), **trigger.pop("$defs", {}), "Node": nodes, "Edge": edge, "Trigger": trigger}
    graph = {
        "nodes": {"type": "array", "items": {"$ref": "#/$defs/Node"}, "minItems": 2},
        "edges": {"type": "array", "items": {"$ref": "#/$defs/Edge"}},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NOVA workflow definition",
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 200},
            "description": {"type": ["string", "null"]},
            "trigger": {"anyOf": [{"$ref": "#/$defs/Trigger"}, {"type": "null"}]},
            **graph,
            "graph_definition": {
                "type": "object",
                "properties": graph,
                "required": ["nodes"],
                "additionalProperties": False,
            },
        },
        "required": ["name"],
        "anyOf": [{"required": ["nodes"]}, {"required": ["graph_definition"]}],
        "additionalProperties": False,
        "$defs": defs,
    }
