"""Column types that mean the same on SQLite and PostgreSQL: exact JSON text, aware UTC times, exact decimals."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, Numeric
from sqlalchemy.types import TypeDecorator, TypeEngine

from nova_pipelines.domain.chain import canonical_json

#: a double keeps this many significant digits of a decimal (DBL_DIG), and so does SQLite
SQLITE_DIGITS = 15


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class JsonText:
    """JSON that is already written: stored as it is, so that a big value is not written a second time."""

    text: str


def serialize_json(value: Any) -> str:
    """The text that is stored for a JSON value (the engines' `json_serializer`)."""
    return value.text if isinstance(value, JsonText) else canonical_json(value)


class CanonicalJSON(TypeDecorator[Any]):
    """JSON whose stored text is `canonical_json` of the value (the engine's serializer is set to it)."""

    impl = JSON(none_as_null=True)
    cache_ok = True


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time. Naive times are refused; SQLite, which knows no zones, stores UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a zone cannot be stored: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class ExactNumeric(TypeDecorator[Decimal]):
    """NUMERIC whose values stay exact decimals, with `scale` decimals, on both databases.

    SQLite keeps a NUMERIC as a double: 15 significant digits survive, more are refused with ValueError.
    A sum over many rows is rounded to `scale` there, so it is right as long as it has 15 digits itself.
    """

    impl = Numeric
    cache_ok = True

    def __init__(self, precision: int = 18, scale: int = 4) -> None:
        super().__init__(precision, scale)
        self.precision, self.scale = precision, scale

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(_SqliteNumeric(self.precision, self.scale))
        return dialect.type_descriptor(Numeric(self.precision, self.scale))

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if not isinstance(value, Decimal) or not value.is_finite():
            raise ValueError(f"an amount must be a finite Decimal, not {value!r}")
        if value and value.adjusted() >= self.precision - self.scale:
            raise ValueError(f"an amount has at most {self.precision - self.scale} digits before the point")
        if value != self._rounded(value):
            raise ValueError(f"an amount has at most {self.scale} decimals: {value}")
        if dialect.name != "sqlite":
            return value
        if len(value.normalize().as_tuple().digits) > SQLITE_DIGITS:
            raise ValueError(f"SQLite keeps 15 digits of an amount, {value} has more: use PostgreSQL")
        # a float, not a text: SQLite would order a text after every number in `sum(…) > :amount`
        return float(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        if value is None:
            return None
        return self._rounded(value if isinstance(value, Decimal) else Decimal(str(value)))

    def _rounded(self, value: Decimal) -> Decimal:
        return value.quantize(Decimal(1).scaleb(-self.scale), context=Context(prec=100))


class _SqliteNumeric(Numeric[Any]):
    """NUMERIC in DDL, but values pass as they are: ExactNumeric converts them."""

    def bind_processor(self, dialect: Dialect) -> None:
        return None

    def result_processor(self, dialect: Dialect, coltype: object) -> None:
        return None
