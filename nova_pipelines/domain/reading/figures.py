"""The labelled amounts of a document: which figure stands beside, or below, which label.

Pairs labels and amounts; does not decide which of them is the total.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import combinations

from nova_pipelines.domain.amounts import Amount, DecimalMark
from nova_pipelines.domain.reading.labels import PAYABLE, Kind, classify, is_table_head, speaks_of_tax_on_top
from nova_pipelines.domain.reading.text import Line, fold

CENT = Decimal("0.01")
_RATE = re.compile(r"([0-9]{1,2}(?:[.,][0-9]{1,2})?)[ \xa0]?%")
_HAS_LETTER = re.compile(r"[^\W\d_]")
_CURRENCY_WORD = re.compile(r"[€£$]|\b(?:EUR|USD|GBP|CHF|euros?)\b")
#: figures of one document that are looked at; more than that is no invoice
MAX_FIGURES = 400


@dataclass(frozen=True, slots=True)
class Figure:
    """One labelled amount. `values`: what it may be (several if the number or the row leaves a choice).

    `loose`: the pairing itself is uncertain (label and amount on different lines of a doubtful layout, several
    amounts behind one label, a number without decimals or currency).
    """

    kind: Kind
    values: tuple[Decimal, ...]
    currencies: tuple[str, ...]
    label: str
    line: int
    page: int
    loose: bool = False


def decimal_mark(lines: Sequence[Line]) -> DecimalMark | None:
    """How the document writes decimals, if all of its amounts with two decimals agree."""
    votes: Counter[DecimalMark] = Counter()
    for line in lines:
        for amount in line.money:
            if not amount.ambiguous and amount.options[0].mark and amount.decimals == 2:
                votes[amount.options[0].mark] += 1
    return next(iter(votes)) if len(votes) == 1 else None


def find_figures(lines: Sequence[Line], mark: DecimalMark | None) -> list[Figure]:
    """Every amount with a label that says something, from top to bottom."""
    found: list[Figure] = []
    taken = -1  # the last line whose amounts belong to labels above it
    for i, line in enumerate(lines):
        if len(found) >= MAX_FIGURES:
            break
        if i <= taken:
            continue
        if line.money:
            found += _figures_on(line, i, mark)
        elif line.amounts and (bare := _bare_figure(line, i)):
            found.append(bare)
        elif not line.amounts:
            below, last = _figures_below(lines, i, mark, free=i - 1 > taken)
            found, taken = found + below, max(taken, last)
    return found


# --- one line -----------------------------------------------------------------------------------------------------


def _figures_on(line: Line, number: int, mark: DecimalMark | None) -> Iterator[Figure]:
    """A line may hold several labels: `Base 100,00 IVA 21 % 21,00 Total 121,00`."""
    groups = _groups(line, mark)
    for index, (label, amounts) in enumerate(groups):
        kind = classify(label)
        tail = fold(line.text[amounts[-1].end :]) if index == len(groups) - 1 else ""
        if kind in PAYABLE and speaks_of_tax_on_top(tail):
            kind = Kind.NET
        if kind is not Kind.OTHER:
            unit = not amounts[-1].currencies and _HAS_LETTER.search(tail) is not None
            yield from _from_group(kind, label, amounts, line, number, loose=unit)


def _groups(line: Line, mark: DecimalMark | None) -> list[tuple[str, list[Amount]]]:
    groups: list[tuple[str, list[Amount]]] = []
    position = 0
    for amount in line.money:
        between = line.text[position : amount.start]
        if not groups or _HAS_LETTER.search(between):
            groups.append((_label(between), []))
        groups[-1][1].append(amount.resolved(mark))
        position = amount.end
    return groups


def _label(text: str) -> str:
    return fold(text).strip(" \t:.-–—=*|·•_>\xa0")


def _from_group(
    kind: Kind, label: str, amounts: list[Amount], line: Line, number: int, *, loose: bool = False
) -> Iterator[Figure]:
    """The figures behind one label. A total's row may give base, tax and total; a tax's row base and tax."""

    def figure(kind: Kind, values: tuple[Decimal, ...], amount: Amount, *, loose: bool = loose) -> Figure:
        return Figure(kind, values, amount.currencies, label, number, line.page, loose)

    last = amounts[-1]
    certain = [a.value for a in amounts if a.value is not None]
    if len(amounts) == 1 or len({(a.options, a.currencies) for a in amounts}) == 1:
        yield figure(kind, last.readings, last)
    elif len(certain) != len(amounts) or len(amounts) > 6:
        yield figure(kind, last.readings, last, loose=True)
    elif kind in PAYABLE:
        parts = _parts_of(certain)
        yield figure(kind, (certain[-1],), last, loose=loose or parts is None)
        for part, of in zip(parts or (), (Kind.NET, Kind.TAX), strict=False):
            yield figure(of, (part,), last)
    elif kind is Kind.TAX and (pair := _base_and_tax(certain, line.text)):
        yield figure(Kind.NET, (pair[0],), last)
        yield figure(Kind.TAX, (pair[1],), last)
    else:
        yield figure(kind, tuple(dict.fromkeys(certain)), last, loose=True)


def _parts_of(values: list[Decimal]) -> tuple[Decimal, Decimal] | None:
    """Base and tax, if the last value of a row is their sum."""
    pairs = (pair for pair in combinations(values[:-1], 2) if abs(sum(pair) - values[-1]) <= CENT)
    return next(((max(p, key=abs), min(p, key=abs)) for p in pairs), None)


def _base_and_tax(values: list[Decimal], text: str) -> tuple[Decimal, Decimal] | None:
    for rate in _RATE.findall(text)[:3]:
        share = Decimal(rate.replace(",", ".")) / 100
        for base, tax in ((b, t) for b in values for t in values if b != t):
            if abs(base * share - tax) <= CENT:
                return base, tax
    return None


def _bare_figure(line: Line, number: int) -> Figure | None:
    """`Total 1500`, `Steuerbetrag in EUR 0`: a number without separators counts where its label names a currency."""
    amount = line.amounts[-1]
    label = _label(line.text[: amount.start])
    kind = classify(label)
    if len(line.amounts) > 1 or kind is Kind.OTHER or _HAS_LETTER.search(line.text[amount.end :]):
        return None
    named = _CURRENCY_WORD.search(line.text) is not None
    if not named and kind not in PAYABLE:
        return None
    return Figure(kind, amount.readings, (), label, number, line.page, loose=not named)


# --- labels above their amounts -----------------------------------------------------------------------------------


def _figures_below(
    lines: Sequence[Line], first: int, mark: DecimalMark | None, *, free: bool
) -> tuple[list[Figure], int]:
    """Labels on lines of their own, and their amounts on the lines after them; the last line that was used.

    As many amounts as labels, in the same order; anything else is loose. So is a single pair that follows an amount
    nobody has claimed (`free`): there the amounts may stand above their labels.
    """
    after = first
    labels: list[tuple[Kind, str]] = []
    while after < len(lines) and not lines[after].amounts and len(labels) < 12:
        label = _label(lines[after].text)
        kind = classify(label)
        if kind is Kind.OTHER and not (not labels and is_table_head(lines[after].folded)):
            break
        labels.append((kind, label))
        after += 1
    if not labels:
        return [], -1
    rows: list[tuple[Line, int, Amount]] = []
    stop = after
    while stop < len(lines) and lines[stop].only_amounts and stop - after < 12:
        rows += [(lines[stop], stop, amount.resolved(mark)) for amount in lines[stop].money]
        stop += 1
    if not rows:
        return [], -1
    if labels[0][0] is Kind.OTHER or (len(labels) == 1 and is_table_head(labels[0][1])):
        return list(_table_row(labels[-1][1], [r for r in rows if r[1] == after])), after
    above = free and first > 0 and lines[first - 1].only_amounts
    loose = len(rows) != len(labels) or (len(labels) == 1 and above)
    figures = [
        Figure(kind, amount.readings, amount.currencies, label, number, line.page, loose)
        for (kind, label), (line, number, amount) in zip(labels, rows, strict=False)
    ]
    return figures, stop - 1


def _table_row(label: str, rows: list[tuple[Line, int, Amount]]) -> Iterator[Figure]:
    """The row under `Base imponible  IVA  Cuota  Total`: its last amount, if it is the sum of two before it."""
    if len(rows) < 2:
        return
    line, number, _ = rows[0]
    yield from _from_group(Kind.TOTAL, label, [amount for _, _, amount in rows], line, number)
