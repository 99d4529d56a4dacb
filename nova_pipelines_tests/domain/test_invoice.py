"""The reading of an invoice, and its plain form in a context."""

from __future__ import annotations

import json
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.domain.invoice import InvoiceReading
from nova_pipelines.domain.money import LIMIT, Money

READ = InvoiceReading(
    total_amount=Decimal("1500.00"),
    currency="EUR",
    net_amount=Decimal("1239.67"),
    tax_amount=Decimal("260.33"),
    invoice_number="F-1",
    issue_date=date(2025, 4, 3),
    supplier_name="Talleres Ñandú, S.L.",
    supplier_tax_id="B12345678",
    confidence=0.97,
    doubts=("The date of issue 04/03/2025 may be day or month first.",),
)


def test_context_is_plain_json_and_comes_back():
    context = READ.to_context()
    assert json.loads(json.dumps(context, allow_nan=False)) == context
    assert context["total_amount"] == 1500.0
    assert context["issue_date"] == "2025-04-03"
    assert context["sure"] is True
    assert InvoiceReading.from_context(context) == READ


amounts = st.none() | st.decimals(-(LIMIT - 1), LIMIT - 1, places=2)


@given(total=amounts, net=amounts, tax=amounts, contested=st.booleans())
def test_amounts_are_exact_through_json(total, net, tax, contested):
    reading = InvoiceReading(total_amount=total, currency="EUR", net_amount=net, tax_amount=tax, contested=contested)
    back = InvoiceReading.from_context(json.loads(json.dumps(reading.to_context())))
    assert (back.total_amount, back.net_amount, back.tax_amount) == (total, net, tax)
    assert back.sure is reading.sure


def test_sure_needs_total_and_currency_and_no_objection():
    assert READ.sure
    assert not READ.model_copy(update={"total_amount": None}).sure
    assert not READ.model_copy(update={"currency": None}).sure
    assert not READ.model_copy(update={"contested": True}).sure


def test_total_is_money():
    assert READ.total == Money(Decimal(1500), "EUR")
    assert InvoiceReading().total is None


def test_a_reading_does_not_change():
    with pytest.raises(ValidationError):
        READ.currency = "USD"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"total_amount": float("nan")}, "total_amount"),
        ({"total_amount": float("inf")}, "total_amount"),
        ({"total_amount": 1e300}, "total_amount"),
        ({"total_amount": 10**400}, "total_amount"),
        ({"total_amount": 0.1 + 0.2}, "total_amount"),
        ({"total_amount": "1500"}, "total_amount"),
        ({"total_amount": True}, "total_amount"),
        ({"total_amount": [1500]}, "total_amount"),
        ({"currency": "euro"}, "currency"),
        ({"currency": 978}, "currency"),
        ({"issue_date": "03/04/2025"}, "issue_date"),
        ({"issue_date": "2025-13-01"}, "issue_date"),
        ({"issue_date": 20250403}, "issue_date"),
        ({"invoice_number": "x" * 101}, "invoice_number"),
        ({"invoice_number": ""}, "invoice_number"),
        ({"supplier_name": "a\x00b"}, "supplier_name"),
        ({"supplier_name": {"$ne": 1}}, "supplier_name"),
        ({"confidence": 1.5}, "confidence"),
        ({"confidence": float("nan")}, "confidence"),
        ({"doubts": "not a list"}, "doubts"),
        ({"doubts": ["x"] * 51}, "doubts"),
    ],
)
def test_a_spoiled_context_is_refused_with_its_place(change, place):
    with pytest.raises(PermanentError, match=rf"context\.invoice\.{place}"):
        InvoiceReading.from_context(READ.to_context() | change)


@pytest.mark.parametrize("data", [None, [], "invoice", 1])
def test_a_context_without_an_invoice_is_refused(data):
    with pytest.raises(PermanentError, match=r"context\.invoice: must be an object"):
        InvoiceReading.from_context(data)


def test_unknown_keys_are_ignored_and_sure_is_not_supposed():
    context = READ.to_context() | {"approved_by": "ana", "contested": False}
    assert InvoiceReading.from_context(context) == READ
    for value in (None, "yes", 1, False):
        assert not InvoiceReading.from_context(context | {"sure": value}).sure
    del context["sure"]
    assert not InvoiceReading.from_context(context).sure


def test_a_whole_number_is_an_amount():
    assert InvoiceReading.from_context({"total_amount": 1500, "currency": "EUR", "sure": True}).sure
