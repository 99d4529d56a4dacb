"""Column types: amounts stay exact and times aware, on both databases."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import StatementError

from nova_pipelines.database.facturas import Invoice

MADRID = timezone(timedelta(hours=2))
AMOUNTS = [
    "0",
    "0.01",
    "-0.01",
    "0.1",
    "1500",
    "1500.00",
    "15000.00",
    "1234.56",
    "2.5",
    "0.0001",
    "99999999999.9999",
    "-12345678901.2345",
    "10000000000000",
    "1E+3",
]


def stored(databases, **values):
    with databases.facturas.session() as session:
        invoice = Invoice(**{"total_amount": Decimal(1), **values})
        session.add(invoice)
    with databases.facturas.read() as session:
        return session.scalars(select(Invoice).where(Invoice.id == invoice.id)).one()


@pytest.mark.parametrize("text", AMOUNTS)
def test_amounts_come_back_to_the_last_digit(databases, text):
    amount = stored(databases, total_amount=Decimal(text)).total_amount
    assert amount == Decimal(text)
    assert isinstance(amount, Decimal)
    assert amount.as_tuple().exponent == -4  # the same text on both databases


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(units=st.integers(-(10**15 - 1), 10**15 - 1), scale=st.integers(0, 4))
def test_any_amount_of_15_digits_is_exact(databases, units, scale):
    amount = Decimal(units).scaleb(-scale)
    if abs(amount) >= 10**14:
        amount = amount.scaleb(-1).quantize(Decimal("0.1"))
    with databases.facturas.session() as session:
        session.add(invoice := Invoice(total_amount=amount))
        session.flush()
        assert session.execute(select(Invoice.total_amount).where(Invoice.id == invoice.id)).scalar_one() == amount


def test_more_digits_than_sqlite_keeps_are_refused_there(databases, database_kind):
    amount = Decimal("123456789012.3456")  # 16 digits
    if database_kind == "postgresql":
        assert stored(databases, total_amount=amount).total_amount == amount
        return
    with pytest.raises(StatementError, match=r"SQLite keeps 15 digits.*use PostgreSQL"):
        stored(databases, total_amount=amount)


@pytest.mark.parametrize(
    ("amount", "reason"),
    [
        (Decimal("0.00001"), "at most 4 decimals"),
        (Decimal("1E+14"), "at most 14 digits before the point"),
        (Decimal("1E+999"), "at most 14 digits before the point"),
        (Decimal("NaN"), "finite Decimal"),
        (Decimal("Infinity"), "finite Decimal"),
        (15.5, "finite Decimal"),
        ("15.5", "finite Decimal"),
    ],
)
def test_what_is_no_amount_is_refused(databases, amount, reason):
    with pytest.raises(StatementError, match=reason):
        stored(databases, total_amount=amount)


def test_amounts_are_summed_and_compared_as_numbers(databases):
    with databases.facturas.session() as session:
        session.add_all(Invoice(total_amount=Decimal(text), email_from="a@b.es") for text in ("0.1", "0.2", "999.9"))
    with databases.facturas.read() as session:
        total = func.sum(Invoice.total_amount)
        assert session.scalar(select(total)) == Decimal("1000.2")
        grouped = select(Invoice.email_from, total).group_by(Invoice.email_from)
        assert session.execute(grouped.having(total > Decimal(1000))).all() == [("a@b.es", Decimal("1000.2"))]
        assert session.execute(grouped.having(total > Decimal("1000.2"))).all() == []
        assert session.scalars(select(Invoice.id).where(Invoice.total_amount > Decimal("0.1"))).all() == [2, 3]


def test_times_come_back_in_utc(databases):
    moment = datetime(2026, 8, 1, 0, 30, 15, 123456, tzinfo=MADRID)
    invoice = stored(databases, email_date=moment)
    assert invoice.email_date == moment
    assert invoice.email_date.tzinfo is UTC
    assert invoice.email_date.isoformat() == "2026-07-31T22:30:15.123456+00:00"


def test_naive_times_are_refused(databases):
    with pytest.raises(StatementError, match="without a zone"):
        stored(databases, email_date=datetime(2026, 8, 1, 12, 0))  # noqa: DTZ001


def test_times_are_ordered_as_moments(databases):
    early = datetime(2026, 8, 1, 12, 0, tzinfo=MADRID)
    late = datetime(2026, 8, 1, 11, 0, tzinfo=UTC)
    stored(databases, email_date=late)
    stored(databases, email_date=early)
    with databases.facturas.read() as session:
        query = select(Invoice.email_date).where(Invoice.email_date < late)
        assert session.scalars(query).all() == [early]
