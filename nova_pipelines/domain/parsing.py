"""From plain data to a `Definition`: the NOVA dialect or ours, all problems reported at once.

It knows the shape of a file and which model reads which node; what makes a good graph is `graph.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import DefinitionError, Problem, clipped
from nova_pipelines.domain.graph import Outline, Way, graph_problems
from nova_pipelines.domain.plain import as_list, as_object, member, plain_problems
from nova_pipelines.domain.text import fail, load_text
from nova_pipelines.domain.workflow import (
    MAX_EDGES,
    MAX_NAME,
    MAX_NODES,
    Definition,
    Edge,
    Node,
    NodeId,
    Part,
    Trigger,
    one_line,
)

#: bytes of a definition as compact JSON
MAX_BYTES = 1_048_576
ROOT_FIELDS = ("name", "description", "trigger", "nodes", "edges", "graph_definition")
#: executors of later systems, which let a language model write the code
_GENERATED = ("cached", "ai")

Kinds = Mapping[str, type[Node]]
_PartT = TypeVar("_PartT", bound=Part)


def parse_definition(text: str, kinds: Kinds, *, source: str = "definition") -> Definition:
    """The definition in `text`. `kinds` gives the model of each type of node.

    Raises DefinitionError with every problem found, each with its place in the file.
    """
    return build_definition(load_text(text, source=source), kinds, source=source)


def build_definition(data: object, kinds: Kinds, *, source: str = "definition") -> Definition:
    """The definition in plain data (as from JSON). Raises DefinitionError with every problem found."""
    problems, too_much = plain_problems(data, max_characters=MAX_BYTES)
    root = as_object(data)
    if root is None and not too_much:
        fail(source, "the top level must be an object with name, nodes and edges")
    if root is None or too_much:
        raise DefinitionError(problems, source=source)
    reading = _Reading(kinds, problems)
    definition = reading.definition(root)
    if definition is None:
        raise DefinitionError(list(dict.fromkeys(problems)), source=source)
    size = len(canonical_json(definition.canonical()).encode())
    if size > MAX_BYTES:
        fail(source, f"{size:,} bytes as compact JSON: a definition has at most {MAX_BYTES:,}; move data out of it")
    return definition


class _Reading:
    """One reading of a file. Every method adds what it finds wrong to `problems` and goes on."""

    def __init__(self, kinds: Kinds, problems: list[Problem]) -> None:
        self.kinds = kinds
        self.problems = problems
        #: values that are no sane JSON are not judged any further
        self.unsound = {problem.path for problem in problems}
        self.nodes: list[Node] = []
        self.outlines: list[Outline] = []
        self.ways: list[Way] = []
        self.ways_seen = 0
        self.all_ways_read = True

    def definition(self, root: dict[str, Any]) -> Definition | None:
        graph, prefix = self._graph(root)
        name, description = self._name(root), self._description(root)
        trigger = None if root.get("trigger") is None else self._part(Trigger, root["trigger"], "trigger")
        if graph is not None:
            self._read_nodes(graph.get("nodes"), f"{prefix}nodes")
            self._read_edges(graph.get("edges"), f"{prefix}edges")
        if self.outlines:
            place, whole = f"{prefix}nodes", self.all_ways_read
            self.problems += graph_problems(self.outlines, self.ways, place=place, all_ways_read=whole)
        if self.problems:
            return None
        return Definition.model_construct(
            name=name,
            description=description,
            trigger=trigger,
            nodes=tuple(self.nodes),
            edges=tuple(way.edge for way in self.ways),
        )

    def _add(self, place: str, reason: str) -> None:
        if place not in self.unsound:
            self.problems.append(Problem(place, reason))

    def _graph(self, root: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """The object that holds nodes and edges, and the place of its members."""
        self._unknown_fields(root, "", ROOT_FIELDS)
        if root.get("graph_definition") is None:
            return root, ""
        place = "graph_definition"
        graph = as_object(root[place])
        if graph is None:
            self._add(place, "must be an object with nodes and edges")
            return None, f"{place}."
        self._unknown_fields(graph, place, ("nodes", "edges"))
        for key in ("nodes", "edges"):
            if root.get(key) is not None:
                self._add(key, f"stands at the top level and {place} is given too: keep one of them")
        return graph, f"{place}."

    def _unknown_fields(self, found: dict[str, Any], place: str, known: tuple[str, ...]) -> None:
        for key in found:
            if key not in known:
                self._add(member(place, key), f"unknown field: remove it; known are {', '.join(known)}")

    def _name(self, root: dict[str, Any]) -> str:
        name = root.get("name")
        if name is None or name == "":
            self._add("name", "missing: give the workflow a name")
            return ""
        if not isinstance(name, str):
            self._add("name", f"must be a text, not {clipped(repr(name))}: put it in quotes")
            return ""
        name = name.strip()
        if len(name) > MAX_NAME:
            self._add("name", f"{len(name):,} characters: at most {MAX_NAME}")
        if not any(character.isascii() and character.isalnum() for character in name):
            self._add("name", "needs at least one letter or digit (A–Z, 0–9) for the name of its job")
        try:
            return one_line(name)
        except ValueError as error:
            self._add("name", str(error))
            return ""

    def _description(self, root: dict[str, Any]) -> str | None:
        description = root.get("description")
        if description is None or isinstance(description, str):
            return description
        self._add("description", "must be a text: put it in quotes")
        return None

    def _read_nodes(self, raw: object, place: str) -> None:
        items = as_list(raw)
        if not items:
            self._add(place, "missing: a list of nodes is needed")
        elif len(items) > MAX_NODES:
            self._add(place, f"{len(items):,} nodes: at most {MAX_NODES:,}; split the workflow")
        else:
            for index, item in enumerate(items):
                self._read_node(item, f"{place}[{index}]")

    def _read_node(self, raw: object, place: str) -> None:
        item = as_object(raw)
        if item is None:
            self._add(place, "must be an object such as {id: …, type: …}")
            self.outlines.append(Outline(place, None, None))
            self.all_ways_read = False
            return
        body = {key: value for key, value in item.items() if key != "next"}
        model = self._model(body.get("type"), f"{place}.type")
        if model is None:
            # what every node has can still be checked
            self._part(Node, {key: body[key] for key in Node.model_fields if key in body}, place)
        else:
            node = self._part(model, self._without_generated(body, model, place), place)
            self.nodes += [node] if node is not None else []
        node_id = _readable_id(body.get("id"))
        kind = str(body["type"]) if model is not None else None
        ways, more = (model.ways, model.more_ways) if model is not None else (None, frozenset[str]())
        self.outlines.append(Outline(place, node_id, kind, ways, more))
        if item.get("next") is not None:
            self._read_next(item["next"], node_id, f"{place}.next")

    def _model(self, kind: object, place: str) -> type[Node] | None:
        model = self.kinds.get(kind) if isinstance(kind, str) else None
        if model is None:
            known = f"known are {', '.join(self.kinds)}"
            if kind is None:
                self._add(place, f"missing: say what kind of node it is; {known}")
            else:
                self._add(place, f"unknown kind {clipped(repr(kind))}: correct it; {known}")
        return model

    def _without_generated(self, body: dict[str, Any], model: type[Node], place: str) -> dict[str, Any]:
        """Refuses code that a language model would have to write; the rest of the node is read all the same."""
        executor = body.get("executor")
        if executor not in _GENERATED or "code" not in model.model_fields:
            return body
        reason = f"{executor!r} (code written by a language model from a `prompt`) is not supported"
        self._add(f"{place}.executor", f"{reason}: put the code itself under `code`")
        rest = {key: value for key, value in body.items() if key not in ("executor", "prompt")}
        return {"code": "pass"} | rest

    def _read_next(self, raw: object, source: str | None, place: str) -> None:
        ways = as_object(raw)
        if ways is None and not isinstance(raw, str):
            self._add(place, "must be a node's id, or an object {condition: node id}")
        if source is None or (ways is None and not isinstance(raw, str)):
            self.all_ways_read = False
            return
        if ways is None:
            self._read_way({"from": source, "to": raw}, place, listed=False)
            return
        for condition, target in ways.items():
            edge = {"from": source, "to": target, "condition": condition}
            self._read_way(edge, member(place, condition), listed=False)

    def _read_edges(self, raw: object, place: str) -> None:
        items = [] if raw is None else as_list(raw)
        if items is None:
            self._add(place, "must be a list of {from, to, condition?}")
            self.all_ways_read = False
        for index, item in enumerate(items or ()):
            self._read_way(item, f"{place}[{index}]", listed=True)
        if self.ways_seen > MAX_EDGES:
            self._add(place, f"{self.ways_seen:,} edges: at most {MAX_EDGES:,}; split the workflow")

    def _read_way(self, raw: object, place: str, *, listed: bool) -> None:
        self.ways_seen += 1
        edge = self._part(Edge, raw, place, whole=not listed) if self.ways_seen <= MAX_EDGES else None
        if edge is None:
            self.all_ways_read = False
        else:
            self.ways.append(Way(place, edge, listed))

    def _part(self, model: type[_PartT], raw: object, place: str, *, whole: bool = False) -> _PartT | None:
        """`raw` as a part of the definition, or None. `whole`: problems are told of the place as a whole."""
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
        for detail in details:
            path = place
            for step in () if whole else detail["loc"]:
                path = member(path, step)
            self._add(path, _reason(detail, model))
        body = as_object(raw)
        if body is not None and all(detail["loc"] for detail in details):
            # pydantic checks the model as a whole only when every field is right
            choice = model.choice_problem({key for key, value in body.items() if value is not None})
            self.problems += [Problem(place, choice)] if choice is not None else []
        return None


_NODE_ID: TypeAdapter[str] = TypeAdapter(NodeId)


def _readable_id(value: object) -> str | None:
    try:
        return _NODE_ID.validate_python(value)
    except ValidationError:
        return None


#: pydantic's errors as a user is meant to read them
_REASONS = {
    "missing": "missing: this field is needed",
    "string_type": "must be a text: put it in quotes",
    "string_too_short": "must not be empty",
    "string_too_long": "more than {max_length} characters: shorten it",
    "float_type": "must be a number: without quotes",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "list_type": "must be a list",
    "too_short": "must not be empty: leave it out or fill it",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}


def _reason(detail: ErrorDetails, model: type[Part]) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        known = [field.alias or name for name, field in model.model_fields.items()]
        known += ["next"] if issubclass(model, Node) else []
        hint = f"; known are {', '.join(known)}" if len(detail["loc"]) == 1 else ""
        return f"unknown field: remove it or correct its name{hint}"
    if kind in _REASONS:
        return _REASONS[kind].format_map(detail.get("ctx", {}))
    return clipped(detail["msg"].removeprefix("Value error, "), 300)
