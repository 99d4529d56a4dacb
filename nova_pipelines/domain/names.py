"""Names that Dagster accepts, made from the free texts of a definition: names, ids, conditions."""

from __future__ import annotations

import keyword
import re
from collections.abc import Collection, Iterable

#: names that Dagster keeps for itself, for ops, outputs and jobs
#: (DISALLOWED_NAMES of dagster/_core/definitions/utils.py; a test compares)
RESERVED = frozenset(keyword.kwlist) | {
    "context",
    "conf",
    "config",
    "meta",
    "arg_dict",
    "dict",
    "input_arg_dict",
    "output_arg_dict",
    "int",
    "str",
    "float",
    "bool",
    "input",
    "output",
    "type",
}


def safe_name(text: str) -> str:
    """`text` as a name that Dagster accepts (letters, digits, underscores); it itself where possible."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "node"
    return f"{name}_" if name in RESERVED else name


def job_name(name: str) -> str:
    """The name of a workflow's Dagster job: "Invoice Processing" → "invoice_processing"."""
    return safe_name(name.lower())


def unique_names(texts: Iterable[str], *, taken: Collection[str] = ()) -> dict[str, str]:
    """A safe name for each of the (different) texts, none twice and none of `taken`.

    Texts that are safe names keep them; the others are numbered in order, so that the same texts always
    give the same names.
    """
    texts = list(texts)
    names = {text: text for text in texts if safe_name(text) == text and text not in taken}
    used = {*taken, *names}
    counts: dict[str, int] = {}
    for text in texts:
        if text in names:
            continue
        base = name = safe_name(text)
        while name in used:
            counts[base] = counts.get(base, 1) + 1
            name = f"{base}_{counts[base]}"
        used.add(name)
        names[text] = name
    return {text: names[text] for text in texts}
