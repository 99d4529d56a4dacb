"""The JSON Schema for editors accepts what the parser accepts, and refuses what it can know to be wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from nova_pipelines.domain.errors import DefinitionError
from nova_pipelines.domain.text import load_text
from nova_pipelines.nodes.registry import MODELS, definition_from, definition_schema
from nova_pipelines_tests.strategies import mutated_definitions, valid_graphs

ROOT = Path(__file__).parent.parent.parent
FILES = [
    *sorted((ROOT / "workflows").glob("*.yaml")),
    *[ROOT / "nova_pipelines_tests" / "fixtures" / name for name in ("old_dialect.json", "every_setting.json")],
]
SCHEMA = definition_schema()

_ANNOTATIONS = {"$schema", "$defs", "title", "description", "default"}
_NUMBERS = (int, float)
#: keyword → the type it applies to, and whether the value keeps it
_KEYWORDS: dict[str, tuple[Any, Callable[[Any, Any], bool]]] = {
    "$ref": (object, lambda to, value: accepts(SCHEMA["$defs"][to.removeprefix("#/$defs/")], value)),
    "type": (
        object,
        lambda kinds, value: any(_is(kind, value) for kind in ([kinds] if _is("string", kinds) else kinds)),
    ),
    "anyOf": (object, lambda options, value: any(accepts(option, value) for option in options)),
    "oneOf": (object, lambda options, value: sum(accepts(option, value) for option in options) == 1),
    "not": (object, lambda schema, value: not accepts(schema, value)),
    "const": (object, lambda constant, value: value == constant),
    "enum": (object, lambda values, value: value in values),
    "minLength": (str, lambda least, value: len(value) >= least),
    "maxLength": (str, lambda most, value: len(value) <= most),
    "pattern": (str, lambda pattern, value: re.search(pattern, value) is not None),
    "exclusiveMinimum": (_NUMBERS, lambda least, value: value > least),
    "maximum": (_NUMBERS, lambda most, value: value <= most),
    "items": (list, lambda schema, value: all(accepts(schema, item) for item in value)),
    "minItems": (list, lambda least, value: len(value) >= least),
    "maxItems": (list, lambda most, value: len(value) <= most),
    "required": (dict, lambda names, value: set(names) <= set(value)),
    "properties": (
        dict,
        lambda members, value: all(accepts(members[key], value[key]) for key in members if key in value),
    ),
}


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """JSON Schema 2020-12, as far as the schema uses it; a keyword that is not known here is an error."""
    for name, argument in schema.items():
        if name in _ANNOTATIONS:
            continue
        if name == "additionalProperties":
            others = [key for key in value if key not in schema.get("properties", {})] if _is("object", value) else []
            if not all(argument is not False and accepts(argument, value[key]) for key in others):
                return False
            continue
        type_, keeps = _KEYWORDS[name]
        if isinstance(value, type_) and not keeps(argument, value):
            return False
    return True


def _is(kind: str, value: Any) -> bool:
    if kind == "number":
        return isinstance(value, _NUMBERS) and not isinstance(value, bool)
    return isinstance(value, {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}[kind])


def test_it_is_plain_json_of_a_known_dialect():
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_every_reference_leads_somewhere():
    references = set(re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(SCHEMA)))
    assert references <= set(SCHEMA["$defs"])
    assert {model.__name__ for model in MODELS.values()} <= references


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_good_files_are_accepted(path):
    data = load_text(path.read_text("utf-8"), source=path.name)
    assert accepts(SCHEMA, data)
    graph = {"nodes": data.pop("nodes"), "edges": data.pop("edges", None)}
    assert accepts(SCHEMA, data | {"graph_definition": graph})


START, END = {"id": "s", "type": "start", "next": "e"}, {"id": "e", "type": "end"}


def small(**fields) -> dict[str, Any]:
    return {"name": "x", "nodes": [START, END]} | fields


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"name": "x"},
        small(name=""),
        small(name="日本"),
        small(name=5),
        small(owner="me"),
        small(nodes=[]),
        small(nodes=["start", "end"]),
        small(graph_definition={"nodes": [START, END]}),
        small(nodes=[START, {"id": "e", "type": "acton"}]),
        small(nodes=[START, {"id": "e"}]),
        small(nodes=[START, END | {"id": ""}]),
        small(nodes=[START, END | {"id": " e"}]),
        small(nodes=[START, END | {"timeout": 0}]),
        small(nodes=[START, END | {"timeout": "60"}]),
        small(nodes=[START, END | {"timeout": 1e9}]),
        small(nodes=[START, END | {"colour": "red"}]),
        small(nodes=[START | {"next": ["e"]}, END]),
        small(nodes=[START | {"next": {"true": 5}}, END]),
        small(nodes=[START, END, {"id": "a", "type": "action"}]),
        small(nodes=[START, END, {"id": "a", "type": "action", "code": "pass", "executor": "ai"}]),
        small(nodes=[START, END, {"id": "d", "type": "decision"}]),
        small(nodes=[START, END, {"id": "d", "type": "decision", "code": "pass", "expression": "true"}]),
        small(nodes=[START, END, {"id": "m", "type": "send_mail", "subject": "x"}]),
        small(nodes=[START, END, {"id": "m", "type": "send_mail", "template": "unknown"}]),
        small(edges=[{"from": "s"}]),
        small(edges=[{"source": "s", "target": "e"}]),
        small(trigger={}),
        small(trigger={"mailbox": {}, "schedule": "0 8 * * *"}),
        small(trigger={"mailbox": {"then": "delete"}}),
    ],
)
def test_bad_definitions_are_refused_by_schema_and_parser(data):
    assert not accepts(SCHEMA, data)
    with pytest.raises(DefinitionError):
        definition_from(data)


_FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@_FUZZ
@given(valid_graphs(max_nodes=10))
def test_valid_definitions_are_accepted(workflow):
    assert accepts(SCHEMA, workflow.data)
    assert accepts(SCHEMA, definition_from(workflow.data).canonical())


@_FUZZ
@given(mutated_definitions())
def test_the_schema_refuses_nothing_that_the_parser_takes(data):
    try:
        definition_from(data)
    except DefinitionError:
        return
    assert accepts(SCHEMA, data)
