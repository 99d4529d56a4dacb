"""What was read from an invoice, how certain it is, and its plain form in the context of an execution.

Knows neither how it was read nor where it will be stored.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from nova_pipelines.domain.currency import CODES
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.domain.money import LIMIT, Money

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_MAX_DECIMALS = 4


def _exact_amount(value: Any) -> Any:
    """A JSON number as Decimal, digit by digit: 1500.1 is 1500.1, not 1500.09999…"""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("must be a number")
    amount = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not amount.is_finite() or abs(amount) >= LIMIT:
        raise ValueError("must be a finite number below 10^12")
    exponent = amount.normalize().as_tuple().exponent
    if isinstance(exponent, int) and exponent < -_MAX_DECIMALS:
        raise ValueError(f"has more than {_MAX_DECIMALS} decimals")
    if Decimal(repr(float(amount))) != amount:
        raise ValueError("has too many digits to be carried as a JSON number without loss")
    return amount


def _iso_date(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        raise ValueError("must be a date written YYYY-MM-DD")
    return date.fromisoformat(value) if isinstance(value, str) else value


def _clean_text(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("holds control characters")
    return value


def _known_currency(value: str) -> str:
    if value not in CODES:
        raise ValueError("must be a code of ISO 4217, such as EUR")
    return value


#: the fields' types, which also read what stands in a context
AmountField = Annotated[Decimal, BeforeValidator(_exact_amount)]
DateField = Annotated[date, BeforeValidator(_iso_date)]


ShortText = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_clean_text)]
LongText = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_clean_text)]


class InvoiceReading(BaseModel):
    """The facts of one invoice. Amounts carry the document's sign: a credit note is negative.

    Where a fact was not found it is None. `total_amount` is what the invoice comes to with tax, after a withheld
    income tax (IRPF) and before prepayments. With doubts it may still hold the likeliest figure, as a suggestion to
    the person who decides: act on it only where `sure` is true.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    total_amount: AmountField | None = None
    currency: Annotated[str, AfterValidator(_known_currency)] | None = None
    net_amount: AmountField | None = None
    tax_amount: AmountField | None = None
    invoice_number: ShortText | None = None
    issue_date: DateField | None = None
    due_date: DateField | None = None
    supplier_name: LongText | None = None
    supplier_tax_id: ShortText | None = None
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    #: what a person should know, one sentence each; also doubts that do not touch the total (an ambiguous date)
    doubts: tuple[LongText, ...] = Field(default=(), max_length=50)
    #: something speaks against the total or its currency
    contested: bool = False

    @property
    def sure(self) -> bool:
        """Total and currency were found and nothing speaks against them."""
        return self.total_amount is not None and self.currency is not None and not self.contested

    @property
    def total(self) -> Money | None:
        """The total as money. Raises PermanentError if it has more decimals than its currency."""
        if self.total_amount is None or self.currency is None:
            return None
        return Money(self.total_amount, self.currency)

    def to_context(self) -> dict[str, Any]:
        """Plain JSON. `Decimal(repr(x))` of an amount is exactly the amount that was read."""
        values = self.model_dump(exclude={"contested", "doubts"})
        plain = {key: _plain(value) for key, value in values.items()}
        return {**plain, "doubts": list(self.doubts), "sure": self.sure}

    @classmethod
    def from_context(cls, data: Any, *, place: str = "context.invoice") -> Self:
        """The reading in a context, which code of a user may have changed.

        Raises PermanentError that names every wrong field (`context.invoice.total_amount: …`). Unknown keys are
        ignored; without `sure: true` the reading counts as contested.
        """
        if not isinstance(data, dict):
            raise PermanentError(
                f"{place}: must be an object, not {type(data).__name__}",
                remedy="leave there what extract_invoice wrote",
            )
        given = cast("dict[Any, Any]", data)
        known = {key: value for key, value in given.items() if key in cls.model_fields}
        if isinstance(known.get("doubts"), list):
            known["doubts"] = tuple(known["doubts"])
        known["contested"] = given.get("sure") is not True
        try:
            return cls.model_validate(known)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join([place, *map(str, e['loc'])])}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors(include_url=False, include_input=False)[:10]
            )
            raise PermanentError(problems, remedy="leave there what extract_invoice wrote") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return float(value)
    return value.isoformat() if isinstance(value, date) else value
