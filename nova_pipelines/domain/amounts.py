"""Written amounts: the numbers of a text, read without guessing.

Knows one line at a time and nothing of documents: what a number means there is the business of `reading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Literal

from nova_pipelines.domain.currency import mark_after, mark_before, minor_units

#: 12 digits before and 3 after the mark make 15, which a JSON number (a double) carries without loss
MAX_INTEGER_DIGITS = 12
MAX_TEXT = 120
DecimalMark = Literal[".", ","]
#: a value and the decimal mark that it supposes
Reading = tuple[Decimal, DecimalMark | None]


@dataclass(frozen=True, slots=True)
class Amount:
    """One written number, as far as the text alone decides.

    `readings`: what it may mean, the likelier first; one if certain. `marks[i]` is the decimal mark that reading i
    supposes (None: any). `currencies`: codes that the mark beside it may stand for, the usual one first; empty if it
    has none. `bare`: digits alone, without separator or currency (a quantity, a year). `start`, `end`: its place in
    the text, with mark and sign.
    """

    readings: tuple[Decimal, ...]
    marks: tuple[DecimalMark | None, ...]
    currencies: tuple[str, ...]
    bare: bool
    decimals: int
    start: int
    end: int

    @property
    def ambiguous(self) -> bool:
        return len(self.readings) > 1

    @property
    def value(self) -> Decimal | None:
        """The number, if the text leaves no choice."""
        return self.readings[0] if len(self.readings) == 1 else None

    @property
    def currency(self) -> str | None:
        """The code, if the mark leaves no choice (`$` leaves one)."""
        return self.currencies[0] if len(self.currencies) == 1 else None

    def resolved(self, mark: DecimalMark | None) -> Amount:
        """The same amount where the document is known to write `mark` before its decimals."""
        kept = [i for i, supposed in enumerate(self.marks) if mark is None or supposed in (None, mark)]
        if not kept or len(kept) == len(self.readings):
            return self
        return replace(self, readings=tuple(self.readings[i] for i in kept), marks=tuple(self.marks[i] for i in kept))


def parse_amount(text: str, *, decimal_mark: DecimalMark | None = None) -> Amount | None:
    """The one number in `text`, with sign and currency; None if there is none, or more than one.

    `1.500` alone comes back ambiguous, with both readings, unless `decimal_mark` says how the document writes.
    NaN, Infinity, exponents, digits of other scripts and absurd lengths are refused (None).
    """
    if len(text) > MAX_TEXT:
        return None
    amounts = list(find_amounts(text))
    if len(amounts) != 1:
        return None
    amount = amounts[0]
    if any(c.isdigit() for c in text[: amount.start] + text[amount.end :]):
        return None
    return amount.resolved(decimal_mark)


_NUMERAL = re.compile(r"[0-9](?:[0-9.,'’]*[0-9])?")
_MINUS = "-−–"
_TRAILING_MINUS = re.compile(r"[\-−–](?![\w\-−–])")
_RATE = re.compile(r"[ \xa0]?(?:%|‰|º|ª|°)")
_SHORT_GROUP = re.compile(r"[1-9][0-9]{0,2}")
_NEXT_GROUP = re.compile(r"[0-9]{3}(?:[.,][0-9]{1,4})?")
_INDIAN = re.compile(r"[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]{1,4})?")
_JOINTS = "/\\#_@&'’\ufffd" + _MINUS
_LETTER = re.compile(r"[^\W\d_]")
_MARK: dict[str, DecimalMark] = {".": ".", ",": ","}
_OTHER: dict[str, DecimalMark | None] = {".": ",", ",": ".", "'": None}
_SPACES = " \xa0\u202f\u2009\u2007"


def find_amounts(text: str) -> Iterator[Amount]:
    """Every written amount of one line, from left to right. Dates, rates, codes and identifiers are left out.

    Linear in the length of `text`.
    """
    numerals = [(m.start(), m.end()) for m in _NUMERAL.finditer(text)]
    floor = i = 0
    while i < len(numerals):
        start, end = numerals[i]
        last = _space_groups(text, numerals, i)
        end = numerals[last][1]
        amount = _amount_at(text, start, end, floor)
        if amount is None and last > i:  # `A1 234,56`: the first group belongs to something else
            last, (start, end) = i, numerals[i]
            amount = _amount_at(text, start, end, floor)
        if amount is not None:
            floor = amount.end
            yield amount
        else:
            floor = end
        i = last + 1


def _space_groups(text: str, numerals: list[tuple[int, int]], first: int) -> int:
    """Index of the last numeral that continues numeral `first` after a space (`1 234,56`)."""
    start, end = numerals[first]
    if end - start > 3 or not _SHORT_GROUP.fullmatch(text, start, end):
        return first
    last = first
    while last + 1 < len(numerals):
        start, following = numerals[last + 1]
        if start != end + 1 or text[end] not in _SPACES or not _NEXT_GROUP.fullmatch(text, start, following):
            break
        last, end = last + 1, following
        if end - start > 3:  # it carries the decimals
            return last
    # whole numbers: `2 500` may be a quantity and a price, unless a currency or a hard space holds them together
    hard = all(text[numerals[i][1]] != " " for i in range(first, last))
    return last if last > first and (hard or mark_after(text, _skip_spaces(text, end))) else first


@dataclass(frozen=True, slots=True)
class _Left:
    """What stands directly before a number: `begin` of it all, a sign, an opening bracket, a currency mark."""

    begin: int
    sign: str
    opened: bool
    currencies: tuple[str, ...]


def _left_side(text: str, start: int, floor: int) -> _Left:
    begin, sign, opened = _sign_before(text, start, floor)
    gap = begin
    while gap > floor and begin - gap < 2 and text[gap - 1] in _SPACES:
        gap -= 1
    found = mark_before(text, gap, floor)
    if found is None:
        return _Left(begin, sign, opened, ())
    begin, outer, bracket = _sign_before(text, found[0], floor)
    return _Left(begin, sign or outer, opened or bracket, found[1])


def _sign_before(text: str, end: int, floor: int) -> tuple[int, str, bool]:
    opened = end > floor and text[end - 1] == "("
    end -= opened
    if end > floor and text[end - 1] in _MINUS:
        return end - 1, text[end - 1], opened
    if end - 1 > floor and text[end - 1] in _SPACES and text[end - 2] in _MINUS:
        return end - 2, text[end - 2 : end], opened
    return end, "", opened


def _amount_at(text: str, start: int, end: int, floor: int) -> Amount | None:
    left = _left_side(text, start, floor)
    if not _free_on_the_left(text, left.begin):
        return None
    right = _right_side(text, end, has_mark=bool(left.currencies))
    if right is None:
        return None
    right_currencies, stop, trailing_minus = right
    before = text[floor : left.begin].rstrip()
    numeral = text[start:end]
    pairs = _readings(numeral, anchored=bool(left.currencies) or before[-1:] in ("", ":"))
    if not pairs:
        return None
    currencies = left.currencies or right_currencies
    if left.currencies and right_currencies:
        currencies = tuple(c for c in currencies if c in right_currencies)
    if len(currencies) == 1 and minor_units(currencies[0]) == 0:
        pairs = [p for p in pairs if p[0].as_tuple().exponent == 0] or pairs
    closed = left.opened and text[stop : stop + 1] == ")"
    signed = dict(_signed(pairs, left, trailing_minus, closed=closed, after_word=_LETTER.search(before) is not None))
    return Amount(
        readings=tuple(signed),
        marks=tuple(signed.values()),
        currencies=currencies,
        bare=not currencies and numeral.isdigit(),
        decimals=max(-int(value.as_tuple().exponent) for value in signed),
        start=left.begin if left.currencies or left.sign or closed else start,
        end=stop + closed,
    )


def _free_on_the_left(text: str, start: int) -> bool:
    """No letter, digit or joint directly before the amount (`R-001`, `/2024`, `No.5`); leader dots are no joint."""
    if start == 0:
        return True
    before = text[start - 1]
    if before in ".,":
        return text[start - 2 : start - 1] in (".", " ", "")
    return not (before.isalnum() or before in _JOINTS)


def _right_side(text: str, end: int, *, has_mark: bool) -> tuple[tuple[str, ...], int, bool] | None:
    """Currencies of the mark after the number, end of it all, whether a minus trails; None if it is no amount."""
    if _RATE.match(text, end):
        return None
    currencies: tuple[str, ...] = ()
    minus = _TRAILING_MINUS.match(text, end)
    stop = minus.end() if minus else end
    if found := mark_after(text, _skip_spaces(text, stop)):
        following = text[found[0] : found[0] + 2].lstrip()[:1]
        apart = has_mark or (text[stop] in _SPACES and text[found[0] : found[0] + 1].isdigit())
        if not (apart and following.isdigit()):  # in `€ 100 € 200` the second sign belongs to the 200
            stop, currencies = found
    if not minus and (minus := _TRAILING_MINUS.match(text, stop)):
        stop = minus.end()
    after = text[stop : stop + 1]
    if not currencies and not minus and (after.isalnum() or (after and after in _JOINTS)):
        return None
    if after and after in ".,:" and text[stop + 1 : stop + 2].isalnum():
        return None
    return currencies, stop, minus is not None


def _skip_spaces(text: str, start: int) -> int:
    """`start`, or the place after at most two spaces."""
    for _ in range(2):
        start += text[start : start + 1] in tuple(_SPACES)
    return start


def _signed(pairs: list[Reading], left: _Left, minus: bool, *, closed: bool, after_word: bool) -> list[Reading]:
    """The readings with their sign.

    A dash that stands apart after a word (`Total - 5,00`) may be a sign or a stroke, brackets after a word
    (`Total (5,00)`) a sign or a remark: both readings are kept.
    """
    if not (minus or closed or left.sign):
        return pairs
    negative: list[Reading] = [(-value if value else value, mark) for value, mark in pairs]
    if minus or not after_word or (left.sign and not left.sign[-1].isspace()):
        return negative
    return pairs + negative if left.sign else negative + pairs


def _readings(numeral: str, *, anchored: bool) -> list[Reading]:
    """What a numeral may mean, each with the decimal mark that it supposes."""
    spaces = [c for c in numeral if c in _SPACES]
    if not spaces:
        return _one_numeral(numeral)
    groups = re.split(f"[{_SPACES}]", numeral)
    found = _one_numeral("".join(groups), joined=True)
    if anchored or " " not in spaces:
        return found
    for i in range(1, len(groups)):  # `Total 3 123,45`: three pieces, or three thousand?
        found += _one_numeral("".join(groups[i:]), joined=True) if groups[i][0] != "0" else []
    return found


def _one_numeral(numeral: str, *, joined: bool = False) -> list[Reading]:
    """`joined`: its groups were held together by spaces, so its one separator can only be the decimal mark."""
    if numeral.isdigit():
        return [(Decimal(numeral), None)] if _sane(numeral) else []
    numeral = numeral.replace("’", "'")
    separators = [c for c in numeral if not c.isdigit()]
    last = separators[-1]
    whole, _, decimals = numeral.rpartition(last)
    if last == "'" or separators.count(last) > 1 or len(decimals) > 4:
        digits = _ungrouped(numeral, last)
        return [(Decimal(digits), _OTHER[last])] if digits and _sane(digits) else _indian(numeral)
    digits = whole if len(separators) == 1 else _ungrouped(whole, separators[0])
    readings: list[Reading] = []
    if digits and _sane(digits):
        readings.append((Decimal(f"{digits}.{decimals}"), _MARK[last]))
    if len(separators) == 1 and len(decimals) == 3 and not joined and _SHORT_GROUP.fullmatch(whole):
        readings.insert(0, (Decimal(whole + decimals), _OTHER[last]))
    return readings or _indian(numeral)


def _ungrouped(numeral: str, separator: str) -> str | None:
    """The digits of `1.234.567`; None if the groups are not of three."""
    groups = numeral.split(separator)
    good = 1 <= len(groups[0]) <= 3 and groups[0][0] != "0" and all(len(g) == 3 and g.isdigit() for g in groups[1:])
    return "".join(groups) if good and groups[0].isdigit() else None


def _indian(numeral: str) -> list[Reading]:
    """`1,00,000.00`: lakhs and crores."""
    digits = numeral.replace(",", "")
    return [(Decimal(digits), ".")] if _INDIAN.fullmatch(numeral) and _sane(digits.partition(".")[0]) else []


def _sane(digits: str) -> bool:
    return len(digits) <= MAX_INTEGER_DIGITS and (len(digits) == 1 or digits[0] != "0")
