"""YAML as JSON values: built from the parser's events, without tags, aliases, timestamps or recursion.

Plain scalars are read as in the JSON schema of YAML 1.2: `yes`, `on`, `010` and `1:30` mean themselves.
Keys are always texts, as they are written (`true:` is "true").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol, cast

import yaml

from nova_pipelines.domain.plain import MAX_DEPTH, MAX_VALUES, Object, number

# libyaml where PyYAML has it: ten times faster
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")


class _Open:
    """A collection whose end has not come yet: its items, for a mapping keys and values in turn."""

    def __init__(self, *, mapping: bool) -> None:
        self.mapping = mapping
        self.items: list[Any] = []

    @property
    def wants_key(self) -> bool:
        return self.mapping and len(self.items) % 2 == 0

    def close(self) -> Any:
        return Object.of(zip(self.items[::2], self.items[1::2], strict=True)) if self.mapping else self.items


def load_yaml(text: str) -> Any:
    """The value of the only document in `text`. Raises yaml.YAMLError; a MarkedYAMLError where it has a place."""
    stack: list[_Open] = [_Open(mapping=False)]  # the documents
    count = 0
    for event in _events(text):
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            value = stack.pop().close()
            stack[-1].items.append(value)
            continue
        if not isinstance(event, yaml.NodeEvent):
            continue
        count += 1
        _refuse_special(event)
        parent = stack[-1]
        if len(stack) == 1 and parent.items:
            _stop("a second document: keep one", event)
        if len(stack) > MAX_DEPTH:
            _stop(f"nested deeper than {MAX_DEPTH} levels: simplify it", event)
        if count > MAX_VALUES:
            _stop(f"more than {MAX_VALUES:,} values: a definition is much smaller", event)
        if isinstance(event, yaml.ScalarEvent):
            scalar = cast("_Scalar", event)
            parent.items.append(scalar.value if parent.wants_key else _value(scalar))
        elif parent.wants_key:
            _stop("a key must be a word or a text", event)
        else:
            stack.append(_Open(mapping=isinstance(event, yaml.MappingStartEvent)))
    return stack[0].items[0] if stack[0].items else None


class _Scalar(Protocol):
    value: str
    style: str | None


def _events(text: str) -> Iterator[yaml.Event]:
    parse = cast("Callable[..., Iterator[yaml.Event]]", yaml.parse)  # pyright: ignore[reportUnknownMemberType] - PyYAML's stubs have no types here
    return parse(text, Loader=_LOADER)


def _value(scalar: _Scalar) -> Any:
    text = scalar.value
    if scalar.style:  # quoted or a block: always a text
        return text
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _NUMBER.fullmatch(text):
        return number(text)
    return float(text.replace(".", "")) if _NOT_FINITE.fullmatch(text) else text


def _refuse_special(event: Any) -> None:
    if isinstance(event, yaml.AliasEvent):
        _stop("aliases (*name) are not allowed: write the value out", event)
    if event.tag is not None:
        _stop("tags (!name) are not allowed: write plain values", event)


def _stop(reason: str, event: Any) -> NoReturn:
    raise yaml.MarkedYAMLError(problem=reason, problem_mark=event.start_mark)
