"""From text to a `Definition`: JSON or YAML, the NOVA dialect or ours, all problems reported at once.

The text is hostile: its size is bounded, YAML is read without tags, anchors or repeated keys.
"""

from __future__ import annotations

import json
from typing import Any, Literal, NoReturn

import yaml
from pydantic import TypeAdapter, ValidationError

from nova_pipelines.domain.errors import DefinitionError, Problem
from nova_pipelines.domain.graph import graph_problems
from nova_pipelines.domain.workflow import MAX_NAME, MAX_NODES, Definition, Edge, Node, Trigger

MAX_BYTES = 1_048_576
MAX_DEPTH = 50
ROOT_FIELDS = {"name", "description", "trigger", "nodes", "edges", "graph_definition"}
Format = Literal["json", "yaml"]


def parse_definition(text: str, kinds: TypeAdapter[Any], *, source: str = "definition") -> Definition:
    """The definition in `text`. `kinds` is the adapter of the union of node models (discriminated by `type`).

    Raises DefinitionError with every problem found, each with its place in the file.
    """
    return build_definition(load_text(text, source=source), kinds, source=source)


def text_format(text: str) -> Format:
    return "json" if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[") else "yaml"


def load_text(text: str, *, source: str) -> Any:
    """The plain data in a JSON or YAML text. Raises DefinitionError with line and column."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_BYTES:
        _fail(source, f"{size:,} bytes: a definition has at most {MAX_BYTES:,}; move data out of the definition")
    text = text.lstrip("\ufeff")
    if not text.strip():
        _fail(source, "the file is empty: it must hold a workflow definition")
    try:
        data = _load_json(text) if text_format(text) == "json" else yaml.load(text, _Loader)  # noqa: S506
    except json.JSONDecodeError as error:
        _fail(
            source,
            f"not valid JSON: {error.msg}; correct the text there",
            f"line {error.lineno} column {error.colno}",
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1} column {mark.column + 1}" if mark else ""
        _fail(source, f"not valid YAML: {error.problem or error.context}; correct the text there", place)
    except (yaml.YAMLError, ValueError) as error:
        _fail(source, f"cannot be read: {error}")
    except RecursionError:
        _fail(source, f"nested deeper than {MAX_DEPTH} levels: simplify it")
    if _depth_exceeds(data, MAX_DEPTH):
        _fail(source, f"nested deeper than {MAX_DEPTH} levels: simplify it")
    return data


def build_definition(data: Any, kinds: TypeAdapter[Any], *, source: str = "definition") -> Definition:
    """The definition in plain data (as from JSON). Raises DefinitionError with every problem found."""
    if not isinstance(data, dict):
        _fail(source, "the top level must be an object with name, nodes and edges")
    problems: list[Problem] = []
    body, prefix = _unwrap(data, problems)
    name = _name(data, problems)
    description = data.get("description")
    if description is not None and not isinstance(description, str):
        problems.append(Problem("description", "must be a text"))
    trigger = _model(Trigger, data["trigger"], "trigger", problems) if data.get("trigger") is not None else None
    nodes = _nodes(body.get("nodes"), f"{prefix}nodes", kinds, problems)
    edges = _edges(body.get("edges"), f"{prefix}edges", problems) + _next_edges(nodes)
    if nodes and not any(problem.path.startswith(f"{prefix}nodes") for problem in problems):
        problems += graph_problems(nodes, edges)
    elif nodes:
        # the graph is checked only when every node could be read: what is missing would be reported as unknown
        problems += [p for p in graph_problems(nodes, edges) if "already" in p.reason]
    if problems or trigger is _BAD:
        raise DefinitionError(problems, source=source)
    return Definition.model_construct(
        name=name,
        description=description,
        trigger=trigger,
        nodes=tuple(node.model_copy(update={"next": None}) for _, node in nodes),
        edges=tuple(edge for _, edge in edges),
    )


_BAD: Any = object()


def _fail(source: str, reason: str, place: str = "") -> NoReturn:
    raise DefinitionError([Problem(place, reason)], source=source)


def _unwrap(data: dict[Any, Any], problems: list[Problem]) -> tuple[dict[Any, Any], str]:
    for key in data:
        if key not in ROOT_FIELDS:
            problems.append(Problem(str(key), f"unknown field; known are {', '.join(sorted(ROOT_FIELDS))}"))
    graph = data.get("graph_definition")
    if graph is None:
        return data, ""
    if not isinstance(graph, dict):
        problems.append(Problem("graph_definition", "must be an object with nodes and edges"))
        return {}, "graph_definition."
    for key in graph:
        if key not in ("nodes", "edges"):
            problems.append(Problem(f"graph_definition.{key}", "unknown field; known are edges, nodes"))
    for key in ("nodes", "edges"):
        if key in data:
            problems.append(Problem(key, "stands at the top level and under graph_definition: keep one of them"))
    return graph, "graph_definition."


def _name(data: dict[Any, Any], problems: list[Problem]) -> str:
    name = data.get("name")
    if not isinstance(name, str) or not name.strip():
        problems.append(Problem("name", "missing: give the workflow a name"))
        return ""
    if len(name) > MAX_NAME:
        problems.append(Problem("name", f"{len(name)} characters: at most {MAX_NAME}"))
    if not any(character.isascii() and character.isalnum() for character in name):
        problems.append(Problem("name", "needs at least one letter or digit (A–Z, 0–9) for the name of its job"))
    return name.strip()


def _nodes(raw: Any, place: str, kinds: TypeAdapter[Any], problems: list[Problem]) -> list[tuple[int, Node]]:
    if not isinstance(raw, list) or not raw:
        problems.append(Problem(place, "missing: a list of nodes is needed"))
        return []
    if len(raw) > MAX_NODES:
        problems.append(Problem(place, f"{len(raw)} nodes: at most {MAX_NODES}; split the workflow"))
        return []
    nodes: list[tuple[int, Node]] = []
    for index, item in enumerate(raw):
        where = f"{place}[{index}]"
        if isinstance(item, dict) and item.get("executor") in ("cached", "ai"):
            reason = f"{item['executor']!r} (code written by a language model from a `prompt`) is not supported"
            problems.append(Problem(f"{where}.executor", f"{reason}: put the code itself under `code`"))
            continue
        node = _model(kinds, item, where, problems)
        if node is not _BAD:
            nodes.append((index, node))
    return nodes


def _edges(raw: Any, place: str, problems: list[Problem]) -> list[tuple[str, Edge]]:
    if raw is None:
        return []
    if not isinstance(raw, list):
        problems.append(Problem(place, "must be a list of {from, to, condition?}"))
        return []
    edges: list[tuple[str, Edge]] = []
    for index, item in enumerate(raw):
        edge = _model(Edge, item, f"{place}[{index}]", problems)
        if edge is not _BAD:
            edges.append((f"{place}[{index}]", edge))
    return edges


def _next_edges(nodes: list[tuple[int, Node]]) -> list[tuple[str, Edge]]:
    edges: list[tuple[str, Edge]] = []
    for index, node in nodes:
        if isinstance(node.next, str):
            edges.append((f"nodes[{index}].next", Edge(source=node.id, target=node.next)))
        elif node.next is not None:
            edges += [
                (f"nodes[{index}].next.{way}", Edge(source=node.id, target=target, condition=way))
                for way, target in node.next.items()
            ]
    return edges


def _model(model: Any, data: Any, place: str, problems: list[Problem]) -> Any:
    validate = model.validate_python if isinstance(model, TypeAdapter) else model.model_validate
    try:
        return validate(data)
    except ValidationError as error:
        kinds = isinstance(model, TypeAdapter)
        for detail in error.errors(include_url=False, include_context=True, include_input=False):
            problems.append(_problem(place, detail, data, tagged=kinds))
        return _BAD


def _problem(place: str, detail: Any, data: Any, *, tagged: bool) -> Problem:
    """One pydantic error as a problem: the tag of the union and inner union members are no places of a file."""
    location = list(detail["loc"])
    if tagged and location and isinstance(data, dict) and location[0] == data.get("type"):
        location = location[1:]
    if location[:1] == ["next"]:
        return Problem(f"{place}.next", "must be a node's id, or an object {condition: node id}")
    path = place + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location)
    reason, kind = str(detail["msg"]), str(detail["type"])
    if kind == "union_tag_invalid":
        tags = str(detail["ctx"]["expected_tags"]).replace("'", "")
        return Problem(f"{place}.type", f"unknown kind {detail['ctx']['tag']!r}; known are {tags}")
    if kind == "union_tag_not_found":
        return Problem(f"{place}.type", "missing: say what kind of node it is")
    if kind == "extra_forbidden":
        return Problem(path, "unknown field: remove it or correct its name")
    if kind == "missing":
        return Problem(path, "missing: this field is needed")
    return Problem(path, reason.removeprefix("Value error, "))


def _load_json(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is not a JSON number: use a finite number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                raise ValueError(f"the key {key!r} stands twice in one object: keep one of them")
            result[key] = value
        return result

    return json.loads(text, parse_constant=refuse, object_pairs_hook=unique)


class _Loader(yaml.SafeLoader):
    """SafeLoader without anchors (no entity bombs) and without repeated keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, (str, bool, int)):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _depth_exceeds(data: Any, limit: int) -> bool:
    level = [data]
    for _ in range(limit):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
        if not level:
            return False
    return True
