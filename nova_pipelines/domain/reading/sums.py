"""Which of the figures is the total: by label, by arithmetic, and never by guessing.

Knows figures, not lines. Whatever speaks against the choice is said in a sentence and makes it contested.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cached_property
from itertools import product

from nova_pipelines.domain.reading.figures import Figure
from nova_pipelines.domain.reading.labels import PAYABLE, Kind

#: sums may be off by the rounding of each rate's tax
TOLERANCE = Decimal("0.02")
ZERO = Decimal(0)
#: values of one kind that take part in sums: a bound for hostile documents
_MOST = 8
_MOST_TOTALS = 12


@dataclass(frozen=True)
class Ledger:
    """The figures of a document by kind, and the sums that they allow."""

    figures: Sequence[Figure]

    def values(self, *kinds: Kind, firm: bool = False) -> list[Decimal]:
        """Distinct values: the firm ones first, else in the order of the document."""
        chosen = sorted((f for f in self.figures if f.kind in kinds and not (firm and f.loose)), key=_looseness)
        return list(dict.fromkeys(value for f in chosen for value in f.values))

    @cached_property
    def nets(self) -> list[Decimal]:
        return _with_sum(self.values(Kind.NET))

    @cached_property
    def taxes(self) -> list[Decimal]:
        return _with_sum(self.values(Kind.TAX)) + self.values(Kind.TAX_INSIDE)[:_MOST]

    @cached_property
    def withheld(self) -> list[Decimal]:
        return [abs(v) for v in _with_sum([v for v in self.values(Kind.WITHHELD) if v][:4])]

    @cached_property
    def prepaid(self) -> list[Decimal]:
        return [abs(v) for v in _with_sum([v for v in self.values(Kind.PREPAID) if v])]

    @cached_property
    def _added(self) -> set[Decimal]:
        """Every sum of surcharges, expenses and discounts, each counted in, out, or not at all."""
        added = [v for v in self.values(Kind.ADDED) if v][:3]
        return {sum(choice, ZERO) for choice in product(*((ZERO, v, -v) for v in added))}

    @cached_property
    def _parts(self) -> list[Decimal]:
        return self.values(Kind.NET, Kind.TAX, Kind.TAX_INSIDE, Kind.PREPAID, Kind.WITHHELD, Kind.ADDED)

    def adds_up(self, total: Decimal) -> bool:
        """Net + tax (± surcharges and discounts) − withheld tax = total, with figures of the document."""
        others = [v for v in self.values(*PAYABLE) if v != total][:_MOST]
        bases = {n + t for n in self.nets + others for t in self.taxes}
        if total < 0:
            bases |= {-abs(n) - abs(t) for n in self.nets for t in self.taxes}
        steps = {a + w for a in self._added for w in self._withholding(total)}
        return any(abs(base + step - total) <= TOLERANCE for base in bases for step in steps)

    def _withholding(self, total: Decimal) -> list[Decimal]:
        if not self.withheld:
            return [ZERO]
        return self.withheld if total < 0 else [-w for w in self.withheld]

    def before_withholding(self, total: Decimal) -> bool:
        """The total is what the sum comes to without the withheld tax that stands on the document."""
        return bool(self.withheld) and any(abs(n + t - total) <= TOLERANCE for n in self.nets for t in self.taxes)

    def explains(self, other: Decimal, total: Decimal) -> bool:
        """`other`, which also stands behind a total's label, has its place beside `total`."""
        sign = -1 if total < 0 else 1
        known = [total + sign * w for w in self.withheld]
        known += [total - sign * p for p in self.prepaid]
        known += [total - t for t in self.taxes if t]
        part = other in self._parts and abs(other) < abs(total)
        return part or any(abs(other - value) <= TOLERANCE for value in known)


def _looseness(figure: Figure) -> bool:
    return figure.loose


def _with_sum(values: list[Decimal]) -> list[Decimal]:
    few = values[:_MOST]
    return [*few, sum(few, ZERO)] if len(few) > 1 else few


@dataclass
class Choice:
    """The total that was chosen, the figure it was read from, and what speaks against it."""

    value: Decimal | None = None
    figure: Figure | None = None
    proven: bool = False
    against: list[str] = field(default_factory=list)


def choose_total(figures: Sequence[Figure]) -> Choice:
    """The total among the figures. `value` may be a mere suggestion: then `against` is not empty.

    Numbers that can be read in more than one way (`1.500`, `3 123,45`) are read in one way throughout the document:
    if net, tax and total add up in exactly one of them, it is that one.
    """
    if not any(len(f.values) > 1 and not f.loose for f in figures):
        return _choose(figures)
    ways = [_choose([f if f.loose else replace(f, values=(f.values[end],)) for f in figures]) for end in (0, -1)]
    proven = [way for way in ways if way.proven]
    same = ways[0].value == ways[1].value
    if len(proven) == 1 and not same:
        return proven[0]
    if len(proven) == 2 and _only_groups_differ(ways):
        return ways[0]
    if not same:
        ways[0].against.insert(0, f"The total can be read as {ways[0].value} or as {ways[1].value}.")
    return ways[0]


def _only_groups_differ(ways: list[Choice]) -> bool:
    """Thousands written with a space add up with and without their first groups (`22 604,00`: 22604 or 604).

    That these first groups add up too shows that they belong to the amounts; short ones might by chance.
    """
    whole, part = (way.value or ZERO for way in ways)
    return whole * part > 0 and abs(whole - part) >= 10_000 and (whole - part) % 1000 == 0


def _choose(figures: Sequence[Figure]) -> Choice:
    ledger = Ledger(figures)
    payable = [f for f in figures if f.kind in PAYABLE]
    firm = [f for f in payable if not f.loose]
    if firm:
        choice = _among_firm(firm, ledger)
    elif payable:
        choice = _among_loose(payable, ledger)
    else:
        choice = _among_amounts([f for f in figures if f.kind is Kind.AMOUNT], ledger)
    if choice.value is not None:
        _undo_prepayment(choice, ledger)
        _check(choice, payable, ledger)
    return choice


def _among_firm(firm: list[Figure], ledger: Ledger) -> Choice:
    certain = list(dict.fromkeys(f.values[0] for f in firm))[:_MOST_TOTALS]
    good = [t for t in certain if all(ledger.explains(x, t) for x in certain if x != t)]
    proven = [t for t in good if ledger.adds_up(t)]
    chosen = proven if len(proven) == 1 else good
    if len(chosen) == 1:
        return _chosen(chosen[0], firm, ledger)
    best = next((t for t in reversed(certain) if ledger.adds_up(t)), max(certain, key=abs))
    choice = _chosen(best, firm, ledger)
    choice.proven = False
    choice.against.append(f"There are several totals that do not explain each other: {_listed(certain)}.")
    return choice


def _among_loose(payable: list[Figure], ledger: Ledger) -> Choice:
    readings = list(dict.fromkeys(value for f in payable for value in f.values))
    proven = [value for value in readings if ledger.adds_up(value)]
    if len(proven) == 1:
        return _chosen(proven[0], payable, ledger)
    choice = _chosen(payable[-1].values[0], payable, ledger)
    choice.against.append("It is not certain which amount belongs to the label of the total.")
    return choice


def _among_amounts(amounts: list[Figure], ledger: Ledger) -> Choice:
    """No total is labelled as such: `Importe: 1.500,00 €` will do if it is the only one of its kind."""
    values = list(dict.fromkeys(value for f in amounts for value in f.values))
    if not values:
        return Choice(against=["No total was found."])
    choice = _chosen(values[-1], amounts, ledger)
    if len(values) > 1 and not choice.proven:
        choice.against.append(f"No amount is named as the total; there are {_listed(values)}.")
    return choice


def _chosen(value: Decimal, figures: Iterable[Figure], ledger: Ledger) -> Choice:
    having = [f for f in figures if value in f.values]
    figure = next((f for f in having if f.currencies), having[0])
    return Choice(value, figure, ledger.adds_up(value))


def _undo_prepayment(choice: Choice, ledger: Ledger) -> None:
    """Only what is left to pay was found as a total: with the prepayments it is the total, if that adds up."""
    if choice.value is None or choice.proven or choice.figure is None or choice.figure.kind is not Kind.DUE:
        return
    before = {choice.value + p for p in ledger.prepaid if ledger.adds_up(choice.value + p)}
    if len(before) == 1:
        choice.value, choice.proven = before.pop(), True


def _check(choice: Choice, payable: list[Figure], ledger: Ledger) -> None:
    """What the rest of the document says to the choice."""
    total = choice.value
    if total is None or choice.proven:
        return
    if ledger.before_withholding(total):
        choice.against.append(f"The total {total} does not take the withheld tax into account.")
    elif ledger.values(Kind.NET, firm=True) and ledger.values(Kind.TAX, firm=True):
        choice.against.append(f"Net amount and tax do not add up to the total {total}.")
    elif any(abs(net) > abs(total) for net in ledger.values(Kind.NET, firm=True)):
        choice.against.append(f"The total {total} is less than the net amount.")
    elif ledger.withheld:
        choice.against.append(f"A withheld tax is named, and it cannot be checked whether {total} is after it.")
    loose = [v for f in payable if f.loose for v in f.values if v != total][:_MOST_TOTALS]
    rivals = [v for v in loose if not ledger.explains(v, total)]
    if rivals and not choice.against:
        choice.against.append(f"Other amounts may be the total as well: {_listed(rivals)}.")


def _listed(values: Iterable[Decimal]) -> str:
    shown = [str(v) for v in dict.fromkeys(values)]
    return ", ".join(shown[:5]) + (" …" if len(shown) > 5 else "")
