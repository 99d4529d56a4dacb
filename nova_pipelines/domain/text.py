"""From text to plain data: JSON or YAML, with the same values from both. Knows nothing of workflows.

The text is hostile: its size, depth and number of values are bounded, and whatever a reader could
silently lose or bend (repeated keys, infinities, NUL) is kept visible for `plain_problems` to report.
"""

from __future__ import annotations

import json
import re
from typing import Any, Literal, NoReturn

import yaml

from nova_pipelines.domain.errors import DefinitionError, Problem, clipped
from nova_pipelines.domain.plain import MAX_DEPTH, Object, number
from nova_pipelines.domain.yaml_text import load_yaml

#: bytes of a file; well above MAX_BYTES of a definition, since files may be indented
MAX_FILE_BYTES = 4 * 1_048_576
Format = Literal["json", "yaml"]

#: what YAML excludes from its texts, apart from the byte order mark, which is taken off
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def text_format(text: str) -> Format:
    return "json" if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "[") else "yaml"


def load_text(text: str, *, source: str) -> Any:
    """The plain data in a JSON or YAML text. Raises DefinitionError with line and column.

    Data may still hold what `plain_problems` refuses.
    """
    size = len(text) if len(text) > MAX_FILE_BYTES else len(text.encode("utf-8", "surrogatepass"))
    if size > MAX_FILE_BYTES:
        fail(source, f"{size:,} bytes: a file has at most {MAX_FILE_BYTES:,}; move data out of the definition")
    text = text.lstrip("\ufeff")
    if not text.strip():
        fail(source, "the file is empty: it must hold a workflow definition")
    return _json(text, source) if text_format(text) == "json" else _yaml(text, source)


def load_json(text: str, *, source: str) -> Any:
    """The plain data in a JSON text, with repeated keys and infinities kept visible. Raises DefinitionError."""
    return _json(text, source)


def fail(source: str, reason: str, place: str = "") -> NoReturn:
    raise DefinitionError([Problem(place, reason)], source=source)


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=Object.of, parse_int=number, parse_float=number)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        fail(source, f"not valid JSON: {error.msg}; correct the text there", place)
    except RecursionError:
        fail(source, f"nested deeper than {MAX_DEPTH} levels: simplify it")


def _yaml(text: str, source: str) -> Any:
    bad = _NOT_PRINTABLE.search(text)
    if bad is not None:
        line = text.count("\n", 0, bad.start()) + 1
        column = bad.start() - text.rfind("\n", 0, bad.start())
        reason = f"the character {bad.group()!a} is not allowed in YAML: remove it, or escape it between quotes"
        fail(source, reason, f"line {line} column {column}")
    try:
        return load_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1} column {mark.column + 1}" if mark else ""
        what = clipped(str(error.problem or error.context), 200)
        fail(source, f"not valid YAML: {what}; correct the text there", place)
    except yaml.YAMLError as error:
        fail(source, f"not valid YAML: {clipped(str(error), 200)}; correct the text")
