"""JSON from a sandbox: what is not clean, with its place, in bounded time; what is clean stays as it is."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova_pipelines.adapters.sandbox.clean_json import UncleanError, parse_clean

text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"))
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=20,
)


def envelope(result: str) -> bytes:
    return b'{"status":"ok","result":' + result.encode() + b"}"


@settings(max_examples=40)
@given(st.dictionaries(text, values), st.booleans())
def test_clean_json_is_taken_as_it_is(result, ascii_only):
    whole = {"status": "ok", "result": result}
    assert parse_clean(json.dumps(whole, ensure_ascii=ascii_only).encode()) == whole


@settings(max_examples=40)
@given(st.dictionaries(text, values, min_size=1, max_size=5), text, st.data())
def test_a_doubled_key_is_found_wherever_it_stands(inner, place, data):
    key = data.draw(st.sampled_from(sorted(inner)))
    doubled = json.dumps(inner)[:-1] + f",{json.dumps(key)}: 1}}"
    with pytest.raises(UncleanError, match="stands twice"):
        parse_clean(envelope(f"{{{json.dumps(place)}: [{doubled}]}}"))


@pytest.mark.parametrize(
    ("result", "said"),
    [
        ('{"a":1,"a":1}', "the key 'a' stands twice"),
        (r'{"a":1,"\u0061":2}', "the key 'a' stands twice"),
        ('{"a":{"b":[{"c":1e999}]}}', r"context\.a\.b\[0\]\.c is not a finite number"),
        ('{"a":NaN}', "not clean JSON"),
        (r'{"a":["x\u0000"]}', r"context\.a\[0\] holds a NUL"),
        (r'{"a":{"\u0000":1}}', r"context\.a has a key with a NUL"),
        (r'{"a":"\ud800"}', "not clean JSON"),
        ('{"a":18446744073709551616}', r"context\.a is an integer of more than 64 bits"),
        ('{"a":%s}' % ("9" * 10_000), "not clean JSON"),
        ('{"a":' + "[" * 120 + "]" * 120 + "}", "nested deeper than 100 levels"),
        ("[" * 100_000, "not clean JSON"),
        ("{" + ",".join(f'"{n}":1' for n in range(100_001)) + "}", "more than 100000 keys"),
        ('{"a":[%s0]}' % ("0," * 1_000_001), "1000000 values"),
    ],
)
def test_what_is_not_clean_is_named(result, said):
    started = time.perf_counter()
    with pytest.raises(UncleanError, match=said):
        parse_clean(envelope(result))
    assert time.perf_counter() - started < 10  # a cap against the quadratic, on a machine that others use too


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b'"x"', b'{"status":"ok"}{"status":"ok"}', b"\xff", b"{}garbage"])
def test_what_is_no_envelope(data):
    with pytest.raises(UncleanError):
        parse_clean(data)


def test_colons_in_texts_are_no_keys():
    result = {"a:": 'x":"y', "b": "\\", "c": '\\":', "d": ["::", {"e": ":"}]}
    assert parse_clean(json.dumps({"result": result}).encode()) == {"result": result}
