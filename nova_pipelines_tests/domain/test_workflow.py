"""The model of definitions and the names made from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dagster._core.definitions.utils import DISALLOWED_NAMES, check_valid_name
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nova_pipelines.domain.names import RESERVED, job_name, safe_name, unique_names
from nova_pipelines.domain.workflow import Edge, MailboxTrigger, StartNode, Trigger, condition_name
from nova_pipelines.nodes.registry import MODELS, definition_from, read_definition
from nova_pipelines_tests.strategies import Workflow, valid_graphs


def test_reserved_names_are_those_of_dagster():
    assert frozenset(DISALLOWED_NAMES) == RESERVED


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("has_pdf", "has_pdf"),
        ("Invoice Processing", "Invoice_Processing"),
        ("año", "a_o"),
        ("日本", "node"),
        ("__", "node"),
        ("", "node"),
        ("context", "context_"),
        ("lambda", "lambda_"),
        ("-type-", "type_"),
        ("a\nb", "a_b"),
    ],
)
def test_safe_names(text, name):
    assert safe_name(text) == name


def test_the_job_is_named_after_the_workflow():
    assert job_name("Invoice Processing") == "invoice_processing"
    assert job_name("Type") == "type_"


@given(st.text())
def test_every_text_has_a_name_that_dagster_accepts(text):
    check_valid_name(safe_name(text))
    assert safe_name(safe_name(text)) == safe_name(text)


@given(st.lists(st.text(alphabet="aA_-é1 ", max_size=5), unique=True))
def test_unique_names_are_unique_valid_and_stable(texts):
    names = unique_names(texts, taken={"a"})
    assert list(names) == texts
    assert len(set(names.values()) | {"a"}) == len(texts) + 1
    assert unique_names(texts, taken={"a"}) == names
    for text, name in names.items():
        check_valid_name(name)
        assert text == name or safe_name(text) != text or text == "a"


def test_a_safe_id_keeps_its_name_whatever_stands_before_it():
    assert unique_names(["a b", "a_b", "a-b", "a_b_2"]) == {
        "a b": "a_b_3",
        "a_b": "a_b",
        "a-b": "a_b_4",
        "a_b_2": "a_b_2",
    }


@pytest.mark.parametrize(
    ("value", "name"), [(True, "true"), (False, "false"), (" High ", "high"), ("TRUE", "true"), (1, 1), (None, None)]
)
def test_conditions_are_matched_as_lower_case_words(value, name):
    assert condition_name(value) == name


def test_edges_have_only_the_names_of_the_dialect():
    edge = Edge.model_validate({"from": "a", "to": "b", "condition": True})
    assert (edge.source, edge.target, edge.condition) == ("a", "b", "true")
    with pytest.raises(ValidationError):
        Edge.model_validate({"source": "a", "target": "b"})


@pytest.mark.parametrize(
    "timeout", [0, -1, float("nan"), float("inf"), -float("inf"), "60", "", True, None, 86_401, [1]]
)
def test_timeouts_are_positive_finite_numbers(timeout):
    with pytest.raises(ValidationError):
        StartNode.model_validate({"id": "a", "type": "start", "timeout": timeout})


@pytest.mark.parametrize(
    "node_id", ["", " ", " a", "a ", "a\n", "a\nb", "a\x00", "a\u2028b", "\u200b", "a" * 101, 5, None]
)
def test_ids_are_short_lines_without_blanks_around(node_id):
    with pytest.raises(ValidationError):
        StartNode.model_validate({"id": node_id, "type": "start"})


@pytest.mark.parametrize("node_id", ["a", "ñandú", "日本", "😀", "has pdf?", "a" * 100])
def test_ids_may_be_words_of_any_language(node_id):
    assert StartNode.model_validate({"id": node_id, "type": "start"}).id == node_id


@pytest.mark.parametrize(
    "then", ["mark_as_read", "nothing", "move:Done", "move:INBOX/Done of 2024", "keyword:$NovaDone"]
)
def test_what_is_done_with_a_mail(then):
    assert MailboxTrigger.model_validate({"then": then}).then == then


@pytest.mark.parametrize(
    "then",
    [
        "delete",
        "move:",
        "move: ",
        "",
        "move",
        "move:a\r\nb",
        5,
        "keyword:",
        "keyword:a b",
        "keyword:\\Seen",
        "keyword:ñ",
    ],
)
def test_nothing_else_is_done_with_a_mail(then):
    with pytest.raises(ValidationError):
        MailboxTrigger.model_validate({"then": then})


@pytest.mark.parametrize("name", ["Mars/Base", "../../etc/passwd", "America", "", "\x00", "/etc/localtime"])
def test_unknown_time_zones_are_refused(name):
    with pytest.raises(ValidationError, match="time zone"):
        Trigger.model_validate({"schedule": "0 8 * * *", "timezone": name})


@pytest.mark.parametrize("trigger", [{}, {"mailbox": {}, "schedule": "0 8 * * *"}, {"mailbox": None}])
def test_a_trigger_is_a_mailbox_or_a_schedule(trigger):
    with pytest.raises(ValidationError, match="give either `mailbox`, or `schedule`"):
        Trigger.model_validate(trigger)


@pytest.mark.parametrize(
    ("fields", "good"),
    [
        ({"template": "no_pdf"}, True),
        ({"subject": "s", "body": "b"}, True),
        ({"template": None, "subject": "s", "body": "b"}, True),
        ({}, False),
        ({"subject": "s"}, False),
        ({"template": "no_pdf", "subject": "s"}, False),
        ({"template": "no_pdf", "subject": "s", "body": "b"}, False),
        ({"template": "unknown"}, False),
    ],
)
def test_a_mail_has_a_template_or_its_own_text(fields, good):
    data = {"id": "m", "type": "send_mail", **fields}
    if good:
        MODELS["send_mail"].model_validate(data)
    else:
        with pytest.raises(ValidationError):
            MODELS["send_mail"].model_validate(data)


@given(valid_graphs())
def test_the_canonical_form_means_itself(workflow: Workflow):
    definition = definition_from(workflow.data)
    canonical = definition.canonical()
    assert definition_from(canonical).canonical() == canonical
    assert read_definition(json.dumps(canonical)).canonical() == canonical
    assert definition_from(canonical) == definition


def test_the_canonical_form_keeps_every_setting():
    data = json.loads((Path(__file__).parent.parent / "fixtures" / "every_setting.json").read_text())
    assert definition_from(data).canonical() == data
