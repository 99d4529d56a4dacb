"""Money as a value: a Decimal with its currency. Never float.

How amounts are written in texts is the business of `amounts`; its public names are offered here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import total_ordering

from nova_pipelines.domain.amounts import MAX_INTEGER_DIGITS, Amount, DecimalMark, find_amounts, parse_amount
from nova_pipelines.domain.currency import SYMBOL_OF, check_currency, minor_units
from nova_pipelines.domain.errors import PermanentError

__all__ = [
    "LIMIT",
    "Amount",
    "DecimalMark",
    "Money",
    "check_currency",
    "find_amounts",
    "format_amount",
    "minor_units",
    "parse_amount",
]

LIMIT = Decimal(10) ** MAX_INTEGER_DIGITS


@total_ordering
@dataclass(frozen=True, slots=True)
class Money:
    """An amount in one currency, held with exactly its minor units (EUR 1.5 is EUR 1.50, JPY 1.5 is refused).

    Raises PermanentError for an unknown currency, NaN, infinities, fractions of the minor unit and absurd size,
    and when two currencies are added or compared.
    """

    amount: Decimal
    currency: str

    def __post_init__(self) -> None:
        unit = Decimal(1).scaleb(-minor_units(self.currency))
        if not self.amount.is_finite() or abs(self.amount) >= LIMIT:
            raise PermanentError(f"{self.amount} {self.currency} is no amount", remedy="use a number below 10^12")
        exact = self.amount.quantize(unit)
        if exact != self.amount:
            raise PermanentError(
                f"{self.amount} has more decimals than amounts in {self.currency} have",
                remedy="round it where it is computed",
            )
        object.__setattr__(self, "amount", exact if exact else abs(exact))

    def __add__(self, other: Money) -> Money:
        return Money(self.amount + self._same(other).amount, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.amount - self._same(other).amount, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.amount, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.amount < self._same(other).amount

    def __str__(self) -> str:
        return format(self, "en")

    def __format__(self, style: str) -> str:
        """`es`: `1.234,56 €`; `en` (the default): `EUR 1,234.56`."""
        digits = f"{self.amount:,f}"
        if style == "es":
            return f"{digits.translate(_SWAP)} {SYMBOL_OF.get(self.currency, self.currency)}"
        if style in ("", "en"):
            return f"{self.currency} {digits}"
        raise PermanentError(f"money has no style {style!r}", remedy="use 'es' or 'en'")

    def _same(self, other: Money) -> Money:
        if other.currency != self.currency:
            raise PermanentError(f"{self} and {other} are in two currencies", remedy="convert one of them first")
        return other


_SWAP = str.maketrans(".,", ",.")


def format_amount(amount: object, currency: str, style: str = "es") -> str:
    """An amount from a context or a table as a person reads it: `1.234,56 €`.

    `amount` is a Decimal, or a JSON number or text of one. What is no amount of money comes back as it is.
    """
    try:
        return format(Money(Decimal(str(amount)), currency), style)
    except (PermanentError, InvalidOperation):
        return f"{amount} {currency}".strip()
