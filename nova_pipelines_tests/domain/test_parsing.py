"""The dialects that are read, and that every fault of a file is told at once, with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nova_pipelines.domain.errors import DefinitionError
from nova_pipelines.domain.text import text_format
from nova_pipelines.nodes.registry import definition_from, read_definition

FIXTURES = Path(__file__).parent.parent / "fixtures"
WORKFLOWS = Path(__file__).parent.parent.parent / "workflows"

DESIGN = """
name: Invoice Processing
trigger: {mailbox: {folder: INBOX, then: mark_as_read}}      # or schedule: "0 8 * * 1-5", or none
nodes:
  - {id: start,   type: start,           next: fetch}
  - {id: fetch,   type: mail_fetch,      next: has_pdf}
  - {id: has_pdf, type: decision,        expression: context.has_pdf, next: {true: read, false: no_pdf}}
  - {id: read,    type: extract_invoice, next: amount}
  - {id: amount,  type: decision,        expression: context.invoice.total_amount > 1000.0,
                                         next: {true: high, false: save}}
  - {id: save,    type: invoice_write,   next: end}
  - {id: high,    type: invoice_write,   status: pending_approval, next: tell}
  - {id: tell,    type: send_mail,       template: high_amount, next: end}
  - {id: no_pdf,  type: send_mail,       template: no_pdf, next: end}
  - {id: end,     type: end}
"""

SMALL = {
    "name": "Small",
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "work", "type": "action", "code": "context['x'] = 1", "timeout": 30},
        {"id": "which", "type": "decision", "code": "context['branch_decision'] = True"},
        {"id": "end", "type": "end"},
    ],
    "edges": [
        {"from": "start", "to": "work"},
        {"from": "work", "to": "which"},
        {"from": "which", "to": "end", "condition": "true"},
        {"from": "which", "to": "end", "condition": "false"},
    ],
}


def problems(text_or_data) -> list[str]:
    """What is told of a file; empty if it is valid."""
    read = read_definition if isinstance(text_or_data, str) else definition_from
    try:
        read(text_or_data)
    except DefinitionError as error:
        return [str(problem) for problem in error.problems]
    return []


def changed(**nodes) -> dict:
    """SMALL with fields of its nodes replaced; `...` takes a field away."""
    data = json.loads(json.dumps(SMALL))
    for node in data["nodes"]:
        for key, value in nodes.get(node["id"], {}).items():
            if value is ...:
                del node[key]
            else:
                node[key] = value
    return data


# ---------------------------------------------------------------- what is read


def test_the_old_published_file_is_read_unchanged():
    text = (FIXTURES / "old_dialect.json").read_text("utf-8")
    definition = read_definition(text)
    assert definition.canonical() == json.loads(text) | {"nodes": definition.canonical()["nodes"]}
    assert [node.id for node in definition.nodes if node.kind == "decision"] == ["has_pdf_decision", "amount_decision"]
    code = {node["id"]: node.get("code") for node in json.loads(text)["nodes"]}
    assert {node.id: getattr(node, "code", None) for node in definition.nodes} == code


def test_both_shapes_of_json_mean_the_same():
    graph = {key: SMALL[key] for key in ("nodes", "edges")}
    wrapped = {"name": "Small", "description": None, "graph_definition": graph}
    assert definition_from(wrapped) == definition_from(SMALL)
    assert read_definition(json.dumps(wrapped)) == read_definition(json.dumps(SMALL))


def test_next_and_edges_mean_the_same():
    yaml = """
        name: Small
        nodes:
          - {id: start, type: start, next: work}
          - {id: work, type: action, code: "context['x'] = 1", timeout: 30, next: which}
          - {id: which, type: decision, code: "context['branch_decision'] = True", next: {true: end, false: end}}
          - {id: end, type: end}
    """
    assert read_definition(yaml) == definition_from(SMALL)


def test_the_workflow_of_the_design_page():
    definition = read_definition(DESIGN)
    ways = {(edge.source, edge.condition): edge.target for edge in definition.edges}
    assert ways["has_pdf", "true"] == "read"
    assert ways["has_pdf", "false"] == "no_pdf"
    assert ways["start", None] == "fetch"
    assert len(ways) == 11


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yaml")), ids=lambda path: path.name)
def test_the_shipped_workflows_are_valid(path):
    assert problems(path.read_text("utf-8")) == []


def test_both_ways_of_deciding_are_read():
    assert problems(changed(which={"code": "context['which'] = 'true'"})) == []
    assert problems(changed(which={"code": ..., "expression": "context.x == 1"})) == []


@pytest.mark.parametrize("spelling", ["true", "True", " TRUE ", True])
def test_conditions_may_be_booleans_or_words_of_any_case(spelling):
    data = json.loads(json.dumps(SMALL))
    data["edges"][2]["condition"] = spelling
    assert definition_from(data) == definition_from(SMALL)


def test_a_byte_order_mark_and_windows_lines_do_not_matter():
    assert read_definition("\ufeff" + DESIGN.replace("\n", "\r\n")) == read_definition(DESIGN)
    text = json.dumps(SMALL, indent=2)
    assert read_definition("\ufeff" + text.replace("\n", "\r\n")) == read_definition(text)


def test_words_that_older_yaml_bends_mean_themselves():
    text = """
        name: 'No'
        nodes:
          - {id: on, type: start, next: off}
          - {id: off, type: decision, expression: context.x, next: {yes: y, no: 2024-01-01, 010: '1:30'}}
          - {id: y, type: end}
          - {id: 2024-01-01, type: end}
          - {id: '1:30', type: end}
    """
    edges = [(edge.source, edge.condition, edge.target) for edge in read_definition(text).edges]
    assert edges == [("on", None, "off"), ("off", "yes", "y"), ("off", "no", "2024-01-01"), ("off", "010", "1:30")]


@pytest.mark.parametrize(
    ("text", "format_"), [('{"a"', "json"), ("\ufeff \n[", "json"), ("a: b", "yaml"), ("", "yaml")]
)
def test_the_format_is_told_by_the_first_character(text, format_):
    assert text_format(text) == format_


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("executor", ["ai", "cached"])
def test_code_to_be_written_by_a_language_model_is_refused(executor):
    data = changed(work={"executor": executor, "prompt": "find the amount", "code": ...})
    (told,) = problems(data)
    assert told == (
        f"nodes[1].executor: {executor!r} (code written by a language model from a `prompt`) is not supported: "
        "put the code itself under `code`"
    )
    data["nodes"][1]["timeout"] = -1  # the rest of such a node is read all the same
    assert [text.partition(":")[0] for text in problems(data)] == ["nodes[1].executor", "nodes[1].timeout"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"work": {"timeout": 0}}, "nodes[1].timeout: must be greater than 0.0"),
        ({"work": {"timeout": -3}}, "nodes[1].timeout: must be greater than 0.0"),
        ({"work": {"timeout": "60"}}, "nodes[1].timeout: must be a number: without quotes"),
        ({"work": {"timeout": True}}, "nodes[1].timeout: must be a number: without quotes"),
        ({"work": {"timeout": 1e9}}, "nodes[1].timeout: must be at most 86400.0"),
        ({"work": {"timeout": float("nan")}}, "nodes[1].timeout: not a finite number of a sane size: correct it"),
        ({"work": {"timeout": float("inf")}}, "nodes[1].timeout: not a finite number of a sane size: correct it"),
        ({"work": {"timeout": 10**30}}, "nodes[1].timeout: not a finite number of a sane size: correct it"),
        ({"work": {"code": ...}}, "nodes[1].code: missing: this field is needed"),
        ({"work": {"code": " \n"}}, "nodes[1].code: empty: put the Python code of the node here"),
        ({"work": {"code": 5}}, "nodes[1].code: must be a text: put it in quotes"),
        (
            {"work": {"code": "x = 1\nif x:\n  y = (2\n"}},
            "nodes[1].code: not valid Python: '(' was never closed (line 3 column 7): correct the code there",
        ),
        ({"work": {"executor": "lambda"}}, "nodes[1].executor: must be 'e2b' or 'local'"),
        ({"work": {"label": ["x"]}}, "nodes[1].label: must be a text: put it in quotes"),
        ({"work": {"label": "a\nb"}}, "nodes[1].label: must be one line of printable characters"),
        (
            {"work": {"retries": 3}},
            "nodes[1].retries: unknown field: remove it or correct its name; "
            "known are id, label, timeout, type, code, executor, next",
        ),
        ({"work": {"next": ["end"]}}, "nodes[1].next: must be a node's id, or an object {condition: node id}"),
        ({"which": {"code": ...}}, "nodes[2]: give either `code`, or `expression`"),
        (
            {"which": {"expression": "context.x"}},
            "nodes[2]: give either `code`, or `expression`, and nothing of the other",
        ),
        (
            {"which": {"code": ..., "expression": "context.x >"}},
            "nodes[2].expression: not a CEL expression: Syntax error: mismatched input '<EOF>' expecting "
            "{'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, "
            "IDENTIFIER} (line 1 column 12): correct it there",
        ),
        (
            {"which": {"code": ..., "expression": "context.a.all(x, context.b.map//\n(y, y > x))"}},
            "nodes[2].expression: more than one of map, filter, all, exists, exists_one: decide by `code` instead",
        ),
    ],
)
def test_faults_of_nodes(change, told):
    assert problems(changed(**change)) == [told]


def _with(**fields) -> dict:
    return {key: value for key, value in (SMALL | fields).items() if value is not ...}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ([], "the top level must be an object with name, nodes and edges"),
        ("text", "the top level must be an object with name, nodes and edges"),
        (_with(name=...), "name: missing: give the workflow a name"),
        (_with(name=""), "name: missing: give the workflow a name"),
        (_with(name=5), "name: must be a text, not 5: put it in quotes"),
        (_with(name="日本!"), "name: needs at least one letter or digit (A–Z, 0–9) for the name of its job"),
        (_with(name="a" * 201), "name: 201 characters: at most 200"),
        (_with(name="a\x1b[2Jb"), "name: must be one line of printable characters"),
        (_with(description=5), "description: must be a text: put it in quotes"),
        (_with(nodes=...), "nodes: missing: a list of nodes is needed"),
        (_with(nodes=[]), "nodes: missing: a list of nodes is needed"),
        (_with(nodes={"a": 1}), "nodes: missing: a list of nodes is needed"),
        (_with(edges={"a": "b"}), "edges: must be a list of {from, to, condition?}"),
        (_with(trigger={}), "trigger: give either `mailbox`, or `schedule`"),
        (_with(trigger="daily"), "trigger: must be an object"),
        (
            _with(trigger={"mailbox": {"then": "delete"}}),
            "trigger.mailbox.then: must be mark_as_read, nothing, move:<folder> or keyword:<name>",
        ),
        (
            _with(owner="me"),
            "owner: unknown field: remove it; known are name, description, trigger, nodes, edges, graph_definition",
        ),
        (_with(graph_definition=[], nodes=..., edges=...), "graph_definition: must be an object with nodes and edges"),
    ],
)
def test_faults_of_the_file(data, told):
    assert problems(data if not isinstance(data, str) else f'"{data}"') == [told]


def test_places_within_graph_definition_are_told_as_they_stand():
    data = changed(work={"timeout": 0}, end={"id": "start"}, which={"next": "x", "type": "acton"})
    told = problems({"name": "Small", "graph_definition": {"nodes": data["nodes"], "edges": data["edges"]}})
    assert told
    assert all(text.startswith(("graph_definition.nodes[", "graph_definition.edges[")) for text in told)


def test_a_missing_start_is_told_where_the_nodes_stand():
    graph = {"nodes": SMALL["nodes"][1:], "edges": SMALL["edges"][1:]}
    assert problems({"name": "Small", "graph_definition": graph}) == [
        "graph_definition.nodes: no start node: add one node of type start"
    ]


def test_nodes_in_two_places_are_refused():
    told = problems(SMALL | {"graph_definition": {"nodes": SMALL["nodes"], "edges": SMALL["edges"]}})
    assert told == [
        "nodes: stands at the top level and graph_definition is given too: keep one of them",
        "edges: stands at the top level and graph_definition is given too: keep one of them",
    ]


def test_all_faults_are_told_at_once():
    text = """
        name: Everything
        trigger: {mailbox: {}, schedule: "0 8 * * *"}
        nodes:
          - {id: start, type: start, next: work}
          - {id: work, type: action, code: "x = = 1", timeout: -1, next: which}
          - {id: which, type: decision, next: {true: work}}
          - {id: work, type: end}
          - {id: lost, type: invoice_write, status: stored, status: accepted, next: nowhere}
          - {id: odd, type: acton, colour: red, next: end}
          - {id: '', type: end}
          - {id: mail, type: send_mail, template: hello, subject: x, timeout: a, next: {true: work, "True": which}}
        edges:
          - {from: lost, to: end, condition: ''}
          - {source: lost, to: end}
    """
    expected = """
        nodes[4].status: stands twice: keep one of them
        trigger: give either `mailbox`, or `schedule`, and nothing of the other
        nodes[1].timeout: must be greater than 0.0
        nodes[1].code: not valid Python: invalid syntax (line 1 column 5): correct the code there
        nodes[2]: give either `code`, or `expression`
        nodes[5].type: unknown kind 'acton': correct it; known are start, end, action, decision, mail_fetch, \
extract_invoice, invoice_write, invoice_status, approval, send_mail
        nodes[6].id: must not be empty
        nodes[7].timeout: must be a number: without quotes
        nodes[7].template: no template 'hello': known are high_amount, no_pdf, rejected, unreadable
        nodes[7]: give either `template`, or `subject` and `body`, and nothing of the other
        edges[0].condition: must not be empty
        edges[1].from: missing: this field is needed
        edges[1].source: unknown field: remove it or correct its name; known are from, to, condition
        nodes[3].id: 'work' is already the id of nodes[1]: ids are unique
        nodes[7].next.True: 'mail' already has a way with the condition 'true' (nodes[7].next.true): keep one of them
        nodes[7]: 'mail' is of type send_mail, and only decisions have conditions: remove 'true'
        nodes[2].next.true: a cycle: work → which → work; workflows run forward only, remove one of these edges
    """
    assert problems(text) == [line.strip() for line in expected.strip().splitlines()]


def test_a_fault_of_a_node_does_not_hide_those_of_the_graph():
    data = changed(work={"timeout": 0})
    data["nodes"].append({"id": "lost", "type": "end"})
    data["edges"].pop()
    assert problems(data) == [
        "nodes[1].timeout: must be greater than 0.0",
        "nodes[2]: the decision 'which' has no way for 'false': add an edge for it",
        "nodes[4]: 'lost' cannot be reached from the start: add an edge to it",
    ]
