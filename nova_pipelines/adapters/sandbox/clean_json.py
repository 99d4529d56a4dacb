"""JSON from a hostile hand: what this gives back, every database and reader can take, and it means one thing only."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from pydantic_core import from_json

MAX_DEPTH = 100
MAX_KEYS = 100_000
MAX_VALUES = 1_000_000
MAX_INT_BITS = 64
#: a string, as JSON writes it; possessive in effect: no two ways to match, so linear
STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)


class UncleanError(Exception):
    """Says what is wrong, and where."""


def parse_clean(data: bytes) -> dict[str, Any]:
    """An object without NaN, infinities, NUL, half characters, doubled keys, huge integers, and within bounds of
    depth, keys and values. `data` is capped already. Raises UncleanError."""
    punctuation = STRING.sub(b"", data)
    pairs, commas = punctuation.count(b":"), punctuation.count(b",")
    if pairs > MAX_KEYS or commas > MAX_VALUES:  # before it is built: a million keys take seconds
        raise UncleanError(f"the result has more than {MAX_KEYS} keys or {MAX_VALUES} values")
    try:
        root = from_json(data, allow_inf_nan=False, cache_strings="none")
    except ValueError as error:
        raise UncleanError(f"the result is not clean JSON: {str(error)[:200]}") from None
    if not isinstance(root, dict):
        raise UncleanError("the result is not in the form that NOVA's guest writes")
    if _walk(root) != pairs:  # outside of strings, a colon stands after each key and nowhere else
        raise UncleanError(_doubled_key(data))
    return root


def _walk(root: dict[str, Any]) -> int:
    """The number of keys. Raises UncleanError for what no database or reader should get."""
    keys = 0
    stack: list[tuple[str, Any, int]] = [("", root, 0)]  # the envelope; the result in it is called `context`
    while stack:
        place, container, depth = stack.pop()
        if depth > MAX_DEPTH:
            raise UncleanError(f"{place[:300]} is nested deeper than {MAX_DEPTH} levels")
        keys += len(container) if isinstance(container, dict) else 0
        for key, value in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(key, str) and "\x00" in key:
                raise UncleanError(f"{place[:300]} has a key with a NUL character")
            if isinstance(value, (dict, list)):
                stack.append((_place(place, key), value, depth + 1))
            elif reason := _value_fault(value):
                raise UncleanError(f"{_place(place, key)[:300]} {reason}")
    return keys


def _place(place: str, key: str | int) -> str:
    if not place:
        return "context" if key == "result" else str(key)[:100]
    # bounded: a thousand levels of long keys must not make a quadratic text
    return f"{place[:300]}[{key}]" if isinstance(key, int) else f"{place[:300]}.{key[:100]}"


def _value_fault(value: object) -> str | None:
    if isinstance(value, str):
        if "\x00" in value:
            return "holds a NUL character"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return "is not a finite number"
    elif isinstance(value, int) and value.bit_length() > MAX_INT_BITS:
        return f"is an integer of more than {MAX_INT_BITS} bits; leave it as text"
    return None


def _doubled_key(data: bytes) -> str:
    """Names the key. A second reader, only for the message: readers differ in which of the two they take."""

    def look(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise UncleanError(f"the key {key[:100]!r} stands twice in one object of the result")
            seen[key] = value
        return seen

    try:
        json.loads(data, object_pairs_hook=look)
    except UncleanError as found:
        return str(found)
    return "a key stands twice in one object of the result"
