"""Written amounts: the numbers of a text, read without guessing.

Knows one line at a time and nothing of documents: what a number means there is the business of `reading`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Literal, NamedTuple

from nova_pipelines.domain.currency import mark_after, mark_before, minor_units

#: 12 digits before and 3 after the mark make 15, which a JSON number (a double) carries without loss
MAX_INTEGER_DIGITS = 12
MAX_TEXT = 120
DecimalMark = Literal[".", ","]


class Reading(NamedTuple):
    """What a numeral may mean, and the decimal mark that this supposes (None: any)."""

    value: Decimal
    mark: DecimalMark | None


class Amount(NamedTuple):
    """One written number, as far as the text alone decides.

    `options`: what it may mean, the likelier first; one if certain. `currencies`: codes that the mark beside it may
    stand for, the usual one first; empty if it has none. `bare`: digits alone, without separator or currency (a
    quantity, a year). `start`, `end`: its place in the text, with mark and sign.
    """

    options: tuple[Reading, ...]
    currencies: tuple[str, ...]
    bare: bool
    start: int
    end: int

    @property
    def readings(self) -> tuple[Decimal, ...]:
        return tuple(option.value for option in self.options)

    @property
    def ambiguous(self) -> bool:
        return len(self.options) > 1

    @property
    def value(self) -> Decimal | None:
        """The number, if the text leaves no choice."""
        return self.options[0].value if len(self.options) == 1 else None

    @property
    def currency(self) -> str | None:
        """The code, if the mark leaves no choice (`$` leaves one)."""
        return self.currencies[0] if len(self.currencies) == 1 else None

    @property
    def decimals(self) -> int:
        """Decimal places as written, of the likelier reading."""
        return -int(self.options[0].value.as_tuple().exponent)

    def resolved(self, mark: DecimalMark | None) -> Amount:
        """The same amount where the document is known to write `mark` before its decimals."""
        if mark is None or len(self.options) == 1:
            return self
        kept = tuple(option for option in self.options if option.mark in (None, mark))
        return self._replace(options=kept) if kept else self


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
_MINUS = frozenset("-−–")
_SPACES = frozenset(" \xa0\u202f\u2009\u2007")
#: what joins a number to something else: a date, an identifier, a time
_JOINTS = _MINUS | frozenset("/\\#_@&'’\ufffd")
#: what follows a number that is a rate or an ordinal
_NO_AMOUNT = frozenset("%‰ºª°")
_LETTER = re.compile(r"[^\W\d_]")
_SHORT_GROUP = re.compile(r"[1-9][0-9]{0,2}")
_NEXT_GROUP = re.compile(r"[0-9]{3}(?:[.,][0-9]{1,4})?")
_INDIAN = re.compile(r"[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]{1,4})?")
_SPACE_SPLIT = re.compile("[ \xa0\u202f\u2009\u2007]")
_MARK: dict[str, DecimalMark] = {".": ".", ",": ","}
_OTHER: dict[str, DecimalMark | None] = {".": ",", ",": ".", "'": None}


def find_amounts(text: str) -> Iterator[Amount]:
    """Every written amount of one line, from left to right. Dates, rates, codes and identifiers are left out.

    Linear in the length of `text`.
    """
    numerals = [m.span() for m in _NUMERAL.finditer(text)]
    floor = i = 0
    while i < len(numerals):
        start, end = numerals[i]
        last = _last_group(text, numerals, i) if end - start < 4 else i
        amount = _amount_at(text, start, numerals[last][1], floor)
        if amount is None and last > i:  # `A1 234,56`: the first group belongs to something else
            last = i
            amount = _amount_at(text, start, end, floor)
        floor = amount.end if amount else numerals[last][1]
        if amount:
            yield amount
        i = last + 1


def _last_group(text: str, numerals: list[tuple[int, int]], first: int) -> int:
    """Index of the last numeral that continues numeral `first` after a space (`1 234,56`)."""
    start, end = numerals[first]
    if first + 1 == len(numerals) or numerals[first + 1][0] != end + 1 or not _SHORT_GROUP.fullmatch(text, start, end):
        return first
    last = first
    hard = True
    while last + 1 < len(numerals) and last - first < MAX_INTEGER_DIGITS // 3:
        start, following = numerals[last + 1]
        if start != end + 1 or text[end] not in _SPACES or not _NEXT_GROUP.fullmatch(text, start, following):
            break
        hard = hard and text[end] != " "
        last, end = last + 1, following
        if end - start > 3:  # it carries the decimals
            return last
    # whole numbers: `2 500` may be a quantity and a price, unless a currency or a hard space holds them together
    return last if hard or mark_after(text, _skip_spaces(text, end)) else first


def _amount_at(text: str, start: int, end: int, floor: int) -> Amount | None:
    right = _right_side(text, end)
    if right is None:
        return None
    left = _left_side(text, start, floor)
    if not _free_on_the_left(text, left.begin):
        return None
    numeral = text[start:end]
    before = text[floor : left.begin].rstrip()
    options = _numeral(numeral) or _spaced(
        numeral, anchored=bool(left.currencies) or before[-1:] == ":" or not (before or floor)
    )
    if not options:
        return None
    currencies, stop, minus = right
    if left.currencies and currencies:
        following = text[stop : stop + 1]
        if following.isdigit() or (following in _SPACES and text[stop + 1 : stop + 2].isdigit()):
            currencies, stop, minus = left.currencies, end, False  # in `€ 100 € 200` the second sign is the 200's
        else:
            currencies = tuple(c for c in left.currencies if c in currencies)
    currencies = currencies or left.currencies
    if len(options) > 1 and len(currencies) == 1 and minor_units(currencies[0]) == 0:
        options = [o for o in options if o.value.as_tuple().exponent == 0] or options
    closed = left.opened and text[stop : stop + 1] == ")"
    if minus or closed or left.sign:
        options = _signed(options, left, minus, after_word=_LETTER.search(before) is not None)
    begin = left.begin if left.currencies or left.sign or closed else start
    return Amount(tuple(options), currencies, not currencies and numeral.isdigit(), begin, stop + closed)


class _Left(NamedTuple):
    """What stands directly before a number: `begin` of it all, a sign, an opening bracket, a currency mark."""

    begin: int
    sign: str = ""
    opened: bool = False
    currencies: tuple[str, ...] = ()


def _left_side(text: str, start: int, floor: int) -> _Left:
    begin, sign, opened = _sign_before(text, start, floor)
    gap = begin
    while gap > floor and begin - gap < 2 and text[gap - 1] in _SPACES:
        gap -= 1
    found = mark_before(text, gap, floor)
    if found is None:
        return _Left(begin, sign, opened)
    begin, outer, bracket = _sign_before(text, found[0], floor)
    return _Left(begin, sign or outer, opened or bracket, found[1])


def _sign_before(text: str, end: int, floor: int) -> tuple[int, str, bool]:
    """Where sign and bracket before `end` begin; the sign, with the space after it; whether a bracket opens."""
    opened = end > floor and text[end - 1] == "("
    end -= opened
    if end > floor and text[end - 1] in _MINUS:
        return end - 1, text[end - 1], opened
    if end - 1 > floor and text[end - 2] in _MINUS and text[end - 1] in _SPACES:
        return end - 2, text[end - 2 : end], opened
    return end, "", opened


def _free_on_the_left(text: str, start: int) -> bool:
    """No letter, digit or joint directly before the amount (`R-001`, `/2024`, `No.5`); leader dots are no joint."""
    before = text[start - 1] if start else " "
    if before in ".,":
        return text[max(0, start - 2) : start - 1] in (".", " ", "")
    return not (before.isalnum() or before in _JOINTS)


def _right_side(text: str, end: int) -> tuple[tuple[str, ...], int, bool] | None:
    """Currencies of the mark after the number, end of it all, whether a minus trails; None if it is no amount."""
    after = text[end : end + 1]
    if not after:
        return (), end, False
    gap = end + (after in _SPACES)
    if text[gap : gap + 1] in _NO_AMOUNT:
        return None
    minus = _trailing_minus(text, end)
    stop = end + minus
    currencies: tuple[str, ...] = ()
    begin = _skip_spaces(text, stop)
    found = mark_after(text, begin)
    # in `2014 $4.11` the sign belongs to the second number, in `100€200€` it belongs to the first
    if found and not (begin > stop and text[found[0] : found[0] + 1].isdigit()):
        stop, currencies = found
        if not minus and _trailing_minus(text, stop):
            minus, stop = True, stop + 1
    after = text[stop : stop + 1]
    if not currencies and not minus and (after.isalnum() or after in _JOINTS):
        return None
    if after and after in ".,:" and text[stop + 1 : stop + 2].isalnum():
        return None
    return currencies, stop, minus


def _trailing_minus(text: str, place: int) -> bool:
    """A minus that ends the amount: `1.210,00-`, but not the stroke of `2024-15`."""
    if text[place : place + 1] not in _MINUS:
        return False
    after = text[place + 1 : place + 2]
    return not (after.isalnum() or after in _JOINTS)


def _skip_spaces(text: str, start: int) -> int:
    """`start`, or the place after at most two spaces."""
    end = start + 2
    while start < end and text[start : start + 1] in _SPACES:
        start += 1
    return start


def _signed(options: list[Reading], left: _Left, minus: bool, *, after_word: bool) -> list[Reading]:
    """The readings with their sign.

    A dash that stands apart after a word (`Total - 5,00`) may be a sign or a stroke, brackets after a word
    (`Total (5,00)`) a sign or a remark: both readings are kept.
    """
    negative = [Reading(-value if value else value, mark) for value, mark in options]
    if minus or not after_word or (left.sign and left.sign[-1] not in _SPACES):
        return negative
    return options + negative if left.sign else negative + options


def _spaced(numeral: str, *, anchored: bool) -> list[Reading]:
    """`1 234,56`. Not `anchored` behind a mark, a colon or the line's start, the first groups may be other numbers."""
    groups = _SPACE_SPLIT.split(numeral)
    if len(groups) == 1:
        return []
    found = _numeral("".join(groups), joined=True)
    if not anchored and " " in numeral:
        for i in range(1, len(groups)):
            found += _numeral("".join(groups[i:]), joined=True)
    return found


def _numeral(numeral: str, *, joined: bool = False) -> list[Reading]:
    """`joined`: its groups were held together by spaces, so its one separator can only be the decimal mark."""
    if numeral.isdigit():
        return [Reading(Decimal(numeral), None)] if _sane(numeral) else []
    numeral = numeral.replace("’", "'")
    last = next(c for c in reversed(numeral) if not c.isdigit())
    whole, _, decimals = numeral.rpartition(last)
    if last not in _OTHER:
        return []
    if last == "'" or len(decimals) > 4 or last in whole:
        digits = _ungrouped(numeral)
        return [Reading(Decimal(digits), _OTHER[last])] if digits and _sane(digits) else _indian(numeral)
    digits = whole if whole.isdigit() else _ungrouped(whole)
    found = [Reading(Decimal(f"{digits}.{decimals}"), _MARK[last])] if digits and _sane(digits) else []
    if len(decimals) == 3 and not joined and _SHORT_GROUP.fullmatch(whole):
        found.insert(0, Reading(Decimal(whole + decimals), _OTHER[last]))
    return found or _indian(numeral)


def _ungrouped(numeral: str) -> str | None:
    """The digits of `1.234.567`; None if the groups are not of three or their separators differ."""
    separator = next((c for c in numeral if not c.isdigit()), "")
    groups = numeral.split(separator) if separator in _OTHER else [""]
    good = _SHORT_GROUP.fullmatch(groups[0]) and all(len(g) == 3 and g.isdigit() for g in groups[1:])
    return "".join(groups) if good else None


def _indian(numeral: str) -> list[Reading]:
    """`1,00,000.00`: lakhs and crores."""
    digits = numeral.replace(",", "")
    return [Reading(Decimal(digits), ".")] if _INDIAN.fullmatch(numeral) and _sane(digits.partition(".")[0]) else []


def _sane(digits: str) -> bool:
    return len(digits) <= MAX_INTEGER_DIGITS and (len(digits) == 1 or digits[0] != "0")
