"""Big values are stored once, come back as they were, and nobody can forge a reference to another's."""

from __future__ import annotations

import hashlib
import json
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_pipelines.compiler import blobs
from nova_pipelines.compiler.blobs import KEY, THRESHOLD, pack, references, unpack
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import PermanentError

_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS
_KEYS = st.sampled_from(["a", "b", KEY, "bytes", ""]) | st.text("xyz", max_size=3)
_VALUES = st.recursive(
    _LEAVES | st.just({KEY: "0" * 64, "bytes": 1}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)
CONTEXTS = st.dictionaries(_KEYS, _VALUES, max_size=5)


def packed(context):
    stored: dict[str, bytes] = {}
    return pack(context, stored), stored


def round_trips(context) -> None:
    made, stored = packed(context)
    assert unpack(made, stored.get) == context
    assert references(made) == set(stored)
    # as it comes back from the database
    assert unpack(json.loads(canonical_json(made)), stored.get) == json.loads(canonical_json(context))
    assert all(hashlib.sha256(data).hexdigest() == digest for digest, data in stored.items())


@given(CONTEXTS)
def test_round_trip(context):
    round_trips(context)


@given(CONTEXTS)
def test_round_trip_with_many_big_values(context):
    with patch.object(blobs, "THRESHOLD", 20), patch.object(blobs, "_SURELY_SHORT", 1):
        round_trips(context)


@given(CONTEXTS, st.text("0123456789abcdef", min_size=64, max_size=64))
def test_nobody_can_forge_a_reference(context, digest):
    """Whatever a user's context holds, unpacking asks for nothing that packing did not store."""
    forged = json.loads(canonical_json(context).replace("0" * 64, digest))
    made, stored = packed(forged)
    asked: set[str] = set()

    def fetch(wanted: str) -> bytes | None:
        asked.add(wanted)
        return stored.get(wanted)

    assert unpack(made, fetch) == forged
    assert asked <= set(stored)


@pytest.mark.parametrize(
    "context",
    [
        {KEY: "0" * 64, "bytes": 3},
        {"a": {KEY: "0" * 64, "bytes": 3}},
        {"a": {"b": {KEY: "0" * 64, "bytes": 3}}},
        {"a": {"b": {"c": {KEY: "0" * 64, "bytes": 3}}}},
        {"a": [{KEY: "0" * 64, "bytes": 3}]},
        {"a": {KEY: "0" * 64, "bytes": 3, "more": 1}},
        {"a": {KEY: {KEY: "0" * 64, "bytes": 3}, "bytes": 3}},
        {"a": {"big": "x" * THRESHOLD * 2, "b": {KEY: "0" * 64, "bytes": 3}}},
        {KEY: {KEY: "0" * 64, "bytes": 3}, "bytes": {KEY: "0" * 64, "bytes": 3}},
    ],
)
def test_what_looks_like_a_reference_stays_what_it_is(context):
    round_trips(context)
    made, _ = packed(context)
    assert "0" * 64 not in references(made)


def test_values_up_to_the_threshold_stay_in_the_row():
    text = "x" * (THRESHOLD - 2)  # and two quotes
    assert packed({"a": text}) == ({"a": text}, {})
    made, stored = packed({"a": text + "x"})
    assert made == {"a": {KEY: hashlib.sha256(f'"{text}x"'.encode()).hexdigest(), "bytes": THRESHOLD + 1}}
    assert list(stored.values()) == [f'"{text}x"'.encode()]


@pytest.mark.parametrize("character", ["x", "é", "€", "😀", "\x00", '"', "\n"])
def test_the_threshold_is_in_bytes_of_json(character):
    for length in (THRESHOLD // 6 - 1, THRESHOLD // 4, THRESHOLD // 2, THRESHOLD):
        made, stored = packed({"a": character * length})
        assert bool(stored) == (len(canonical_json(character * length).encode()) > THRESHOLD)
        assert len(canonical_json(made).encode()) <= THRESHOLD + 100


def test_only_the_big_values_of_an_object_are_taken_out():
    made, stored = packed({"email": {"subject": "Factura", "text": "x" * THRESHOLD, "html": "y" * THRESHOLD}})
    assert made["email"]["subject"] == "Factura"
    assert set(made["email"]["text"]) == {KEY, "bytes"}
    assert len(stored) == 2


def test_an_object_of_many_small_values_is_taken_out_as_a_whole():
    context = {"lines": {f"k{number}": "x" * 20 for number in range(5_000)}}
    made, stored = packed(context)
    assert set(made["lines"]) == {KEY, "bytes"}
    assert len(stored) == 1
    round_trips(context)


def test_the_same_value_is_stored_once():
    _, stored = packed({"a": "x" * THRESHOLD, "b": "x" * THRESHOLD, "c": {"d": "x" * THRESHOLD, "e": 1}})
    assert len(stored) == 1


def test_a_missing_or_changed_blob_is_told():
    made, stored = packed({"a": "x" * THRESHOLD})
    (digest,) = stored
    with pytest.raises(PermanentError, match=r"is missing or was changed \(restore nova-db from a backup\)"):
        unpack(made, {}.get)
    with pytest.raises(PermanentError, match=digest[:12]):
        unpack(made, {digest: b'"y"'}.get)


@pytest.mark.parametrize("value", [None, [], "text", 5])
def test_what_is_no_context_comes_back_as_it_is(value):
    assert unpack(value, {}.get) == value
    assert references(value) == set()


def test_a_deep_context_does_not_exhaust_the_stack():
    deep: object = "x"
    for _ in range(400):
        deep = {"a": deep}
    round_trips({"deep": deep, "big": ["x" * THRESHOLD, deep]})
