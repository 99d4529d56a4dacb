"""The currency of the total: what stands beside it, what the document declares, or what its other figures show.

Never supposed: a document without a currency is for a person.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from nova_pipelines.domain.currency import CODES, currencies_of
from nova_pipelines.domain.reading.document import Document
from nova_pipelines.domain.reading.figures import Figure
from nova_pipelines.domain.reading.labels import PAYABLE
from nova_pipelines.domain.reading.sums import Choice
from nova_pipelines.domain.reading.text import Line

_MARK_IN_LABEL = re.compile(r"[€£]|\b(?:eur|usd|gbp|chf|mxn|euros?)\b")
#: lines whose amounts show a currency before it can be called the document's
_ENOUGH = 3


def choose_currency(
    choice: Choice, figures: Sequence[Figure], lines: Sequence[Line], document: Document
) -> tuple[str | None, list[str]]:
    """The code, which may be a mere suggestion, and what speaks against it."""
    if choice.figure is None:
        return None, []
    beside = choice.figure.currencies or _in_label(choice.figure.label)
    if beside:
        return _from_mark(beside, choice, figures, document)
    declared = document.declared
    shown = _shown(figures)
    if len(declared) == 1:
        conflict = shown and not all(declared[0] in marks for marks in shown)
        return declared[0], ["The document declares one currency and shows another."] if conflict else []
    certain = {marks for marks in shown if len(marks) == 1}
    if len(certain) == 1 and len(shown) == 1:
        return next(iter(certain))[0], []
    return _from_anywhere(lines)


def _from_mark(
    marks: tuple[str, ...], choice: Choice, figures: Sequence[Figure], document: Document
) -> tuple[str | None, list[str]]:
    """The currency from the mark beside the total; `$` needs the document's word for which dollar it is."""
    code, *others = marks
    declared = [c for c in document.declared if c in marks]
    if others:
        certain = {f.currencies[0] for f in figures if len(f.currencies) == 1} & set(marks)
        named = declared if len(declared) == 1 else sorted(certain) if len(certain) == 1 else []
        if named:
            return named[0], []
        return code, [f"The currency sign may stand for {', '.join(marks[:3])} and others; the document names none."]
    against: list[str] = []
    rivals = {f.currencies[0] for f in figures if f.kind in PAYABLE and choice.value not in f.values and f.currencies}
    if rivals - {code}:
        against.append(f"There are totals in several currencies: {', '.join(sorted({code, *rivals}))}.")
    if document.declared and not declared:
        against.append(f"The document declares {document.declared[0]}, but the total is in {code}.")
    return code, against


def _shown(figures: Sequence[Figure]) -> set[tuple[str, ...]]:
    """The marks beside the labelled figures."""
    return {f.currencies for f in figures if f.currencies}


def _in_label(label: str) -> tuple[str, ...]:
    """`Total (EUR)`, `Total €`."""
    codes = {_code(m) for m in _MARK_IN_LABEL.findall(label)}
    return tuple(codes) if len(codes) == 1 else ()


def _code(mark: str) -> str:
    return mark.upper() if mark.upper() in CODES else currencies_of(mark)[0]


def _from_anywhere(lines: Sequence[Line]) -> tuple[str | None, list[str]]:
    """The marks of all amounts: enough of one currency in the text will do, a single mention is a suggestion."""
    marks = [amount.currencies for line in lines for amount in line.money if amount.currencies]
    codes = {m[0] for m in marks if len(m) == 1}
    if len(codes) > 1:
        return None, [f"The total names no currency, and the document has several: {', '.join(sorted(codes))}."]
    if not codes:
        return None, ["No currency was found."]
    code = codes.pop()
    if len(marks) >= _ENOUGH and all(m == (code,) for m in marks):
        return code, []
    return code, [f"No figure of the invoice names its currency; {code} stands only elsewhere in the text."]
