"""Where in a document the facts of an invoice stand: page, line, and the words that were read.

Found again in the text that was kept, by the same rules that read it. A fact that is not found there has no place: a
person may have corrected it, or a sum has made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from nova_pipelines.domain.reading.dates import dates_on
from nova_pipelines.domain.reading.figures import Figure, decimal_mark, find_figures
from nova_pipelines.domain.reading.labels import PAYABLE, Kind
from nova_pipelines.domain.reading.text import Line, read_lines

#: between the pages in a kept text (extract_invoice writes it so)
PAGE_BREAK = "\n\f"
#: the kinds of figures that a field may have been read from, the likeliest first
_KINDS: dict[str, tuple[Kind, ...]] = {
    "total_amount": (*sorted(PAYABLE, key=lambda kind: kind.name, reverse=True), Kind.AMOUNT),
    "net_amount": (Kind.NET,),
    "tax_amount": (Kind.TAX, Kind.TAX_INSIDE),
}


@dataclass(frozen=True, slots=True)
class Place:
    """`page` counts from 0. `words`: what stands there for the value, a part of `line`."""

    page: int
    line: str
    words: str


def find_places(text: str, facts: dict[str, object]) -> dict[str, Place]:
    """Field → its place, of those fields of `facts` that are found in a kept text. Linear in its length."""
    lines, _ = read_lines(text.split(PAGE_BREAK))
    figures = find_figures(lines, decimal_mark(lines))
    found: dict[str, Place] = {}
    for field, value in facts.items():
        place = _place(field, value, lines, figures)
        if place is not None:
            found[field] = place
    return found


def _place(field: str, value: object, lines: Sequence[Line], figures: Sequence[Figure]) -> Place | None:
    if isinstance(value, Decimal):
        return _amount(field, value, lines, figures)
    if isinstance(value, date):
        return _first(lines, lambda line: (words for words, dates in dates_on(line) if value in dates))
    if isinstance(value, str) and value.strip():
        return _first(lines, _holds(value.strip()))
    return None


def _amount(field: str, value: Decimal, lines: Sequence[Line], figures: Sequence[Figure]) -> Place | None:
    for kind in _KINDS.get(field, ()):
        for figure in figures:
            if figure.kind is kind and value in figure.values:
                return _on(lines[figure.line], value)
    money = (line for line in lines if any(value in amount.readings for amount in line.money))
    line = next(money, None)
    return _on(line, value) if line is not None else None


def _on(line: Line, value: Decimal) -> Place:
    # the last one: a total stands behind its parts
    amounts = [amount for amount in line.amounts if value in amount.readings]
    words = line.text[amounts[-1].start : amounts[-1].end].strip() if amounts else line.text
    return Place(line.page, line.text, words)


def _holds(value: str) -> Callable[[Line], Iterator[str]]:
    def look(line: Line) -> Iterator[str]:
        begin = line.text.find(value)
        if begin >= 0:
            yield line.text[begin : begin + len(value)]
        elif _bare(value) in _bare(line.text):  # a tax id is kept without its blanks and dots
            yield line.text

    return look


def _bare(text: str) -> str:
    return "".join(character for character in text if character.isalnum()).casefold() or "\0"


def _first(lines: Sequence[Line], look: Callable[[Line], Iterator[str]]) -> Place | None:
    for line in lines:
        words = next(look(line), None)
        if words is not None:
            return Place(line.page, line.text, words)
    return None
