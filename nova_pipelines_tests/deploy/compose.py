"""Reads docker-compose.yml as compose does: anchors, merges and `${VARIABLE:-default}`; a variable without a value
and without a default is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILES = {"containers": ("docker-compose.yml",), "processes": ("docker-compose.yml", "deploy/compose.process.yml")}
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}|\$\$|(?P<bare>\$)")


class _OnceEach(yaml.SafeLoader):
    """Takes no key twice; PyYAML itself would silently take the last."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        keys = [key.value for key, _ in node.value]
        if twice := {key for key in keys if keys.count(key) > 1}:
            raise ValueError(f"twice in one mapping: {', '.join(sorted(twice))}{node.start_mark}")
        super().flatten_mapping(node)


def variables(text: str) -> set[str]:
    return {match["name"] for match in _VARIABLE.finditer(text) if match["name"]}


def load(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The file with its variables filled in. Raises KeyError for one that must be set and is not, and ValueError for
    a key that stands twice, which compose would refuse."""
    return _fill(yaml.load(path.read_text(encoding="utf-8"), _OnceEach), environment)  # noqa: S506 - it is a SafeLoader


def load_merged(names: tuple[str, ...], environment: Mapping[str, str]) -> dict[str, Any]:
    """Several files, the later ones over the earlier, for the kinds of keys that ours use."""
    merged: dict[str, Any] = {}
    for name in names:
        merged = _merge(merged, load(ROOT / name, environment))
    return merged


def env_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line and not line.startswith("#")]
    return {name: value for name, _, value in pairs}


def _fill(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _fill(inner, environment) for key, inner in value.items()}
    if isinstance(value, list):
        return [_fill(inner, environment) for inner in value]
    return _VARIABLE.sub(lambda match: _value(match, environment), value) if isinstance(value, str) else value


def _value(match: re.Match[str], environment: Mapping[str, str]) -> str:
    if match["bare"]:
        raise ValueError(f"a bare $ in {match.string!r}: compose would not take it")
    if not match["name"]:
        return "$"
    given = environment.get(match["name"], "")
    if given or match["kind"] == "-":
        return given or match["rest"]
    raise KeyError(f"{match['name']}: {match['rest'] or 'has no default'}")


def _merge(base: Any, over: Any) -> Any:
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **{key: _merge(base.get(key), value) for key, value in over.items()}}
    if isinstance(base, list) and isinstance(over, list):
        return [*base, *(item for item in over if item not in base)]
    return over
