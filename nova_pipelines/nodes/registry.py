"""All kinds of nodes, and the union of their models that reads definitions.

Adding a kind means adding one module and one line here.
"""

from __future__ import annotations

from typing import Any

from nova_pipelines.domain.parsing import build_definition, parse_definition
from nova_pipelines.domain.workflow import (
    MAX_EDGES,
    MAX_NAME,
    MAX_NODES,
    Definition,
    Edge,
    EndNode,
    Node,
    Trigger,
)
from nova_pipelines.nodes import (
    approval,
    code,
    decision,
    extract_invoice,
    invoice_status,
    invoice_write,
    mail_fetch,
    send_mail,
    start,
)
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.services import Services


def _pass(node: Any, item: Item, services: Services) -> Result:
    return Result(context=item.context)


KINDS: dict[str, NodeKind] = {
    kind.type: kind
    for kind in (
        start.KIND,
        NodeKind(type="end", model=EndNode, run=_pass),
        code.KIND,
        decision.KIND,
        mail_fetch.KIND,
        extract_invoice.KIND,
        invoice_write.KIND,
        invoice_status.KIND,
        approval.KIND,
        send_mail.KIND,
    )
}

#: the model of each type of node: what reads definitions
MODELS = {name: kind.model for name, kind in KINDS.items()}


def read_definition(text: str, *, source: str = "definition") -> Definition:
    """A definition from JSON or YAML text. Raises DefinitionError with every problem and its place."""
    return parse_definition(text, MODELS, source=source)


def definition_from(data: Any, *, source: str = "definition") -> Definition:
    """A definition from plain data, such as a stored version. Raises DefinitionError."""
    return build_definition(data, MODELS, source=source)


#: in a JSON Schema: there, and not null
_GIVEN = {"not": {"type": "null"}}


def definition_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of definition files, for editors. What only the graph tells is not in it."""
    defs: dict[str, Any] = {}
    for model in (*MODELS.values(), Edge, Trigger):
        schema = model.model_json_schema(ref_template="#/$defs/{model}")
        defs |= schema.pop("$defs", {}) | {model.__name__: schema}
        if issubclass(model, Node):
            schema["properties"]["next"] = {"$ref": "#/$defs/Next"}
        if model.one_of:
            schema["oneOf"] = [
                {"properties": dict.fromkeys(group, _GIVEN), "required": list(group)} for group in model.one_of
            ]
    models = [{"$ref": f"#/$defs/{model.__name__}"} for model in MODELS.values()]
    target = defs["Edge"]["properties"]["to"]
    defs["Next"] = {"anyOf": [target, {"type": "object", "additionalProperties": target}, {"type": "null"}]}
    graph: dict[str, Any] = {
        "nodes": {"type": "array", "items": {"oneOf": models}, "minItems": 2, "maxItems": MAX_NODES},
        "edges": {
            "anyOf": [{"type": "array", "items": {"$ref": "#/$defs/Edge"}, "maxItems": MAX_EDGES}, {"type": "null"}]
        },
    }
    within = {"type": "object", "properties": graph, "required": ["nodes"], "additionalProperties": False}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "NOVA workflow definition",
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": "[A-Za-z0-9]"},
            "description": {"type": ["string", "null"]},
            "trigger": {"anyOf": [{"$ref": "#/$defs/Trigger"}, {"type": "null"}]},
            **graph,
            "graph_definition": within,
        },
        "required": ["name"],
        "oneOf": [{"required": ["nodes"]}, {"required": ["graph_definition"]}],
        "additionalProperties": False,
        "$defs": defs,
    }
