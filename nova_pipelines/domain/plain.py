"""Plain data (JSON values) from outside: what a reader found, and what of it no definition may hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self, cast

from nova_pipelines.domain.errors import Problem, clipped

MAX_DEPTH = 50
MAX_VALUES = 250_000
#: more digits are no number that anybody means; Python itself refuses 4,300
_MAX_DIGITS = 18

#: a place in the data: the step from the value around it, and that value's place
_Place = tuple["_Place | None", object]


class Object(dict[str, Any]):
    """A JSON object that remembers the keys which its text repeats: a reader would silently drop values."""

    repeated: tuple[str, ...] = ()

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Any]]) -> Self:
        pairs = list(pairs)
        made = cls(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            made.repeated = tuple(key for key, _ in pairs if key in seen or seen.add(key))
        return made


def number(text: str) -> int | float:
    """The number in a decimal text. One that is far too large becomes an infinity, for `plain_problems`."""
    digits = text.lstrip("+-")
    return int(text) if digits.isdecimal() and len(digits) <= _MAX_DIGITS else float(text)


def as_object(value: object) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def as_list(value: object) -> list[Any] | None:
    return cast("list[Any]", value) if isinstance(value, list) else None


def member(place: str, step: object) -> str:
    """The place of a member: `nodes` and 3 → `nodes[3]`, `nodes[3]` and "id" → `nodes[3].id`."""
    if isinstance(step, int) and not isinstance(step, bool):
        return f"{place}[{step}]"
    word = str(step)
    if not word.replace("_", "a").isalnum() or len(word) > 60:
        return f"{place}[{clipped(ascii(word), 60)}]"
    return f"{place}.{word}" if place else word


def plain_problems(data: object, *, max_characters: int) -> tuple[list[Problem], bool]:
    """What in `data` no definition may hold, and whether it is too much to look at any further."""
    problems: list[Problem] = []
    todo: list[tuple[object, int, _Place | None]] = [(data, 1, None)]
    values = characters = 0
    while todo:
        value, depth, place = todo.pop()
        found, items = as_object(value), as_list(value)
        if found is not None:
            characters += sum(len(str(key)) for key in found)
        inside = len(found or items or ())
        values += inside
        characters += len(value) if isinstance(value, str) else 0
        if inside and depth == MAX_DEPTH:
            return [Problem("", f"nested deeper than {MAX_DEPTH} levels: simplify it")], True
        if values > MAX_VALUES or characters > max_characters:
            reason = f"more than {MAX_VALUES:,} values or {max_characters:,} characters: split the workflow"
            return [Problem("", reason)], True
        if found is not None:
            problems += [Problem(member(_text(place), key), reason) for key, reason in _key_problems(found)]
            todo += [(inner, depth + 1, (place, key)) for key, inner in reversed(found.items())]
        elif items is not None:
            todo += [(inner, depth + 1, (place, index)) for index, inner in reversed(list(enumerate(items)))]
        elif (reason := _value_problem(value)) is not None:
            problems.append(Problem(_text(place), reason))
    return problems, False


def _key_problems(found: dict[Any, Any]) -> Iterable[tuple[object, str]]:
    for key in getattr(found, "repeated", ()):
        yield key, "stands twice: keep one of them"
    for key in found:
        if not isinstance(key, (str, bool)):
            yield repr(key), "this key is no text: put it in quotes"
        elif isinstance(key, str) and (reason := _value_problem(key)) is not None:
            yield key, f"this key {reason}"


def _value_problem(value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return None if _sane(value) else "not a finite number of a sane size: correct it"
    if not isinstance(value, str):
        return f"a {type(value).__name__} is no JSON value: use a text, number, true, false, null, list or object"
    if "\x00" in value:
        return "holds a NUL character: remove it"
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        return "holds half of a surrogate pair (\\ud800 to \\udfff): write the whole character"
    return None


def _sane(value: float) -> bool:
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 10**_MAX_DIGITS


def _text(place: _Place | None) -> str:
    steps: list[object] = []
    while place is not None:
        place, step = place
        steps.append(step)
    text = ""
    for step in reversed(steps):
        text = member(text, step)
    return text
