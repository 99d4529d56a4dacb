"""Hostile files: whatever the text, the only error is DefinitionError, soon, with a place and a remedy."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nova_pipelines.domain.errors import DefinitionError
from nova_pipelines.nodes.registry import definition_from, read_definition
from nova_pipelines_tests.strategies import JSON_LIKE, mutated_definitions, valid_graphs

#: CPU seconds; generous, since the machine may be slow
SOON = 10.0


@contextmanager
def soon(seconds: float = SOON):
    began = time.process_time()
    yield
    assert time.process_time() - began < seconds


def told(text: str) -> list[str]:
    with soon(), pytest.raises(DefinitionError) as caught:
        read_definition(text, source="flow.yaml")
    message = str(caught.value)
    assert message.startswith("flow.yaml: ")
    assert len(message) < 100_000
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "the file is empty: it must hold a workflow definition"),
        ("\ufeff \r\n\t", "the file is empty: it must hold a workflow definition"),
        ("[]", "the top level must be an object with name, nodes and edges"),
        ("- a\n- b\n", "the top level must be an object with name, nodes and edges"),
        ("hello", "the top level must be an object with name, nodes and edges"),
        ("---\n", "the top level must be an object with name, nodes and edges"),
        ('{"name": "x",\n "nodes": [}', "line 2 column 12: not valid JSON: Expecting value; correct the text there"),
        ('{"name": "x"', "line 1 column 13: not valid JSON: Expecting ',' delimiter; correct the text there"),
        (
            '{"name": "x"} {}',
            "line 1 column 15: not valid JSON: Extra data; correct the text there",
        ),
        ('{"a": "x\ny"}', "line 1 column 9: not valid JSON: Invalid control character at; correct the text there"),
        (
            "name: x\nnodes:\n  - {id: a\n",
            "line 4 column 1: not valid YAML: did not find expected ',' or '}'; correct the text there",
        ),
        (
            "name: 'x\n",
            "line 2 column 1: not valid YAML: found unexpected end of stream; correct the text there",
        ),
        (
            "name: !!python/object/apply:os.system ['true']",
            "line 1 column 7: not valid YAML: tags (!name) are not allowed: write plain values; correct the text there",
        ),
        (
            "name: !!binary aGVsbG8=",
            "line 1 column 7: not valid YAML: tags (!name) are not allowed: write plain values; correct the text there",
        ),
        (
            "a: &x [1]\nb: *x",
            "line 2 column 4: not valid YAML: aliases (*name) are not allowed: write the value out; "
            "correct the text there",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "line 3 column 1: not valid YAML: a second document: keep one; correct the text there",
        ),
        (
            "? [a, b]\n: c",
            "line 1 column 3: not valid YAML: a key must be a word or a text; correct the text there",
        ),
        (
            "name: x\nlabel: a\x00b",
            "line 2 column 9: the character '\\x00' is not allowed in YAML: remove it, or escape it between quotes",
        ),
        (
            "name: \ud800",
            "line 1 column 7: the character '\\ud800' is not allowed in YAML: remove it, or escape it between quotes",
        ),
    ],
)
def test_unreadable_texts(text, problem):
    assert told(text) == [problem]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"name": "x", "name": "y", "nodes": []}', "name: stands twice: keep one of them"),
        ("name: x\nname: y\n", "name: stands twice: keep one of them"),
        ('{"nodes": [{"id": "a", "type": "start", "id": "b"}]}', "nodes[0].id: stands twice: keep one of them"),
        ("nodes:\n - {next: {true: a, true: b}}", "nodes[0].next.true: stands twice: keep one of them"),
        ('{"nodes": [{"timeout": NaN}]}', "nodes[0].timeout: not a finite number of a sane size: correct it"),
        ('{"nodes": [{"timeout": -Infinity}]}', "nodes[0].timeout: not a finite number of a sane size: correct it"),
        ('{"nodes": [{"timeout": 1e999}]}', "nodes[0].timeout: not a finite number of a sane size: correct it"),
        ("nodes: [{timeout: .nan}]", "nodes[0].timeout: not a finite number of a sane size: correct it"),
        ("nodes: [{timeout: -.inf}]", "nodes[0].timeout: not a finite number of a sane size: correct it"),
        ('{"nodes": [{"id": ' + "9" * 100_000 + "}]}", "nodes[0].id: not a finite number of a sane size: correct it"),
        (f"nodes: [{{timeout: {'9' * 100_000}}}]", "nodes[0].timeout: not a finite number of a sane size: correct it"),
        ('{"name": "a\\u0000b"}', "name: holds a NUL character: remove it"),
        (
            '{"name": "a\\ud800b"}',
            "name: holds half of a surrogate pair (\\ud800 to \\udfff): write the whole character",
        ),
        ('{"a\\u0000b": 1}', "['a\\x00b']: this key holds a NUL character: remove it"),
        ('{"nodes": [{"code": "x = \'\\udc80\'"}]}', "nodes[0].code: holds half of a surrogate pair "
         "(\\ud800 to \\udfff): write the whole character"),
    ],
)  # fmt: skip
def test_values_that_no_definition_holds(text, problem):
    assert told(text)[0] == problem


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"name": ' + "[" * 100_000, "nested deeper than 50 levels: simplify it"),
        ('{"a":' * 100_000, "nested deeper than 50 levels: simplify it"),
        ('{"name": ' + "[" * 60 + "]" * 60 + "}", "nested deeper than 50 levels: simplify it"),
        ("a: " + "[" * 100_000, "nested deeper than 50 levels: simplify it"),
        ("a: " + "{b: " * 100_000, "nested deeper than 50 levels: simplify it"),
        ("- " * 100_000, "nested deeper than 50 levels: simplify it"),
        ("? " * 100_000, "a key must be a word or a text"),
        (
            '{"name": "' + "x" * 10_000_000 + '"}',
            "bytes: a file has at most 4,194,304; move data out of the definition",
        ),
        ("name: " + "x" * 10_000_000, "bytes: a file has at most 4,194,304; move data out of the definition"),
        ("name: x\nnodes: [" + "1, " * 1_000_000 + "1]", "more than 250,000 values"),
        ('{"nodes": [' + "1, " * 1_000_000 + "1]}", "more than 250,000 values"),
        ('{"a": [' + "[]," * 1_000_000 + "[]]}", "more than 250,000 values"),
        ('{"nodes": [{"id": "a", "type": "action", "code": "' + "x" * 3_000_000 + '"}]}', "1,048,576 characters"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_floods_are_refused_soon(text, problem):
    assert problem in told(text)[0]


def test_an_alias_bomb_does_not_go_off():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    assert "aliases (*name) are not allowed" in told("\n".join(lines))[0]


@pytest.mark.parametrize(
    ("count", "problem"),
    [
        (2_001, "nodes: 2,001 nodes: at most 2,000; split the workflow"),
        (40_000, "nodes: 40,000 nodes: at most 2,000; split the workflow"),
        (100_000, "more than 250,000 values"),
    ],
)
def test_too_many_nodes_are_refused(count, problem):
    assert problem in told(json.dumps({"name": "x", "nodes": [{"id": f"n{n}", "type": "x"} for n in range(count)]}))[0]
    lines = "\n".join(f"- {{id: n{n}, type: x}}" for n in range(count))
    assert problem in told(f"name: x\nnodes:\n{lines}")[0]


def test_as_many_edges_as_fit_are_judged_soon():
    ways = ", ".join(f"w{number}: end" for number in range(60_000))
    text = f"name: x\nnodes:\n- {{id: s, type: start, next: {{{ways}}}}}\n- {{id: end, type: end}}"
    assert "edges: 60,000 edges: at most 10,000; split the workflow" in told(text)


def test_two_thousand_nodes_in_a_row_are_read_soon():
    ids = [f"n{number}" for number in range(1_998)]
    nodes = [{"id": "s", "type": "start", "next": "n0"}]
    nodes += [
        {"id": one, "type": "action", "code": "pass", "next": two}
        for one, two in zip(ids, [*ids[1:], "e"], strict=True)
    ]
    with soon():
        definition = definition_from({"name": "Long", "nodes": [*nodes, {"id": "e", "type": "end"}]})
    assert len(definition.edges) == 1_999


def test_a_definition_that_would_not_fit_into_the_database_again_is_refused():
    """As edges each way repeats the long id: more than the file itself."""
    name = "s" * 100
    nodes = [{"id": "a", "type": "start", "next": name}, {"id": "e", "type": "end"}]
    nodes += [{"id": name, "type": "decision", "expression": "context.x", "next": {f"w{n}": "e" for n in range(9_000)}}]
    with pytest.raises(DefinitionError, match="bytes as compact JSON: a definition has at most 1,048,576"):
        definition_from({"name": "Wide", "nodes": nodes})


@pytest.mark.parametrize(
    "code",
    [
        "-" * 90_000 + "1",
        "1" + "+1" * 45_000,
        "a" + "()" * 45_000,
        "[" * 90_000,
        "(" * 150 + ")" * 150,
        "lambda:" * 14_000 + "1",
        "not " * 24_000 + "1",
        "9" * 90_000,
        "x = '''",
        "\tx\n  y",
        "return 1",
        "é = '\\N{no such}'",
        "from __future__ import braces",
        "f'" + "{1}" * 30_000 + "'",
        "x" * 100_001,
    ],
    ids=lambda code: code[:10],
)
def test_python_cannot_be_brought_down_by_code(code):
    nodes = [{"id": "s", "type": "start", "next": "a"}, {"id": "a", "type": "action", "code": code, "next": "e"}]
    with soon():
        try:
            definition_from({"name": "x", "nodes": [*nodes, {"id": "e", "type": "end"}]})
        except DefinitionError as error:
            (problem,) = error.problems
            assert problem.path == "nodes[1].code"
            assert len(problem.reason) < 400


@pytest.mark.parametrize(
    "expression",
    [
        "!" * 1_999 + "a",
        "a" + ".b" * 990,
        "1" + "+1" * 990,
        "(" * 60 + ")" * 60,
        "[" * 40,
        "a?1:" * 480,
        "'\\ud800'",
        "\n",
    ],
    ids=lambda text: text[:10],
)
def test_cel_cannot_be_brought_down_by_an_expression(expression):
    node = {"id": "d", "type": "decision", "expression": expression, "next": {"true": "e", "false": "e"}}
    with soon():
        try:
            definition_from(
                {"name": "x", "nodes": [{"id": "s", "type": "start", "next": "d"}, node, {"id": "e", "type": "end"}]}
            )
        except DefinitionError as error:
            (problem,) = error.problems
            assert problem.path == "nodes[1].expression"


def test_what_a_file_says_cannot_flood_or_steer_the_terminal():
    evil = "\x1b[2J" + "x" * 50_000
    nodes = [
        {"id": evil, "type": evil, evil: 1, "next": {evil: evil}},
        {"id": "a", "type": "send_mail", "template": evil},
    ]
    with pytest.raises(DefinitionError) as caught:
        definition_from({"name": evil, evil: evil, "nodes": nodes, "trigger": {"schedule": "x", "timezone": evil[:60]}})
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 5_000


def test_a_message_shows_the_first_hundred_problems():
    with pytest.raises(DefinitionError) as caught:
        definition_from({"name": "x", "nodes": [{"id": f"n{number}", "type": "odd"} for number in range(500)]})
    assert len(caught.value.problems) == 500
    assert str(caught.value).endswith("  … and 400 more: correct these first")


_FUZZ = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def refuses_or_reads(read, value) -> None:
    definition, found = None, []
    with soon(5.0):
        try:
            definition = read(value)
        except DefinitionError as error:
            found = error.problems
    assert definition or found
    assert all(problem.reason for problem in found)
    assert len(found) == len(set(found))
    if definition:
        assert definition_from(definition.canonical()) == definition


@_FUZZ
@given(JSON_LIKE)
def test_any_data(data):
    refuses_or_reads(definition_from, data)


@_FUZZ
@given(mutated_definitions())
def test_nearly_valid_definitions(data):
    refuses_or_reads(definition_from, data)
    refuses_or_reads(read_definition, json.dumps(data))


@_FUZZ
@given(st.text() | st.text(alphabet="{}[]:,-&*!|>'\"#%@?\n ab1", max_size=60))
def test_any_text(text):
    refuses_or_reads(read_definition, text)


@_FUZZ
@given(valid_graphs(max_nodes=6), st.data())
def test_a_valid_text_with_some_characters_changed(workflow, data):
    text = json.dumps(workflow.data, ensure_ascii=False)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.text(max_size=2)) + text[at + data.draw(st.integers(0, 2)) :]
    refuses_or_reads(read_definition, text)
