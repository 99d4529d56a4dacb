"""Where a fact stands in the text of a document, and that nothing is claimed that is not there."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from nova_pipelines.domain.durations import seconds_of, written
from nova_pipelines.domain.reading import read_invoice
from nova_pipelines.domain.reading.evidence import PAGE_BREAK, find_places

PAGES = [
    "Suministros Ibéricos S.L. FACTURA\nNIF: B-12345674\nFactura nº: F-1\nFecha: 02/11/2026\nMaterial 100,00 €",
    "Base imponible 100,00 €\nIVA 21 % 21,00 €\nTOTAL FACTURA 121,00 €\nVencimiento: 2 de diciembre de 2026",
]


def test_every_fact_of_a_reading_has_its_place():
    reading = read_invoice(PAGES)
    facts = {name: value for name, value in reading if name.endswith(("amount", "date", "number", "name", "tax_id"))}
    places = find_places(PAGE_BREAK.join(PAGES), facts)
    assert {name: (place.page, place.words) for name, place in places.items()} == {
        "total_amount": (1, "121,00 €"),
        "net_amount": (1, "100,00 €"),  # not the one of the line before, which says the same
        "tax_amount": (1, "21,00 €"),
        "invoice_number": (0, "F-1"),
        "issue_date": (0, "02/11/2026"),
        "due_date": (1, "2 de diciembre de 2026"),
        "supplier_name": (0, "Suministros Ibéricos S.L."),
        "supplier_tax_id": (0, "NIF: B-12345674"),
    }


@pytest.mark.parametrize("text", ["", "\n\f\n\f", "x" * 400_000, "\x00\u202e", "1" * 5_000])
def test_of_what_is_not_there_there_is_no_place(text: str):
    facts = {
        "total_amount": Decimal("121.00"),
        "issue_date": date(2026, 11, 2),
        "supplier_name": "Nobody",
        "tax_amount": None,
    }
    assert find_places(text, facts) == {}


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(90, 90), ("15m", 900), (" 36H ", 129_600), ("3d", 259_200), ("1.5h", 5_400), ("2w", 1_209_600)],
)
def test_durations(given: object, seconds: float):
    assert seconds_of(given) == seconds


@pytest.mark.parametrize("given", ["", "d", "3 days", "-1d", "1e9s", True, None, "٣d", "3d3d"])
def test_what_is_no_duration(given: object):
    with pytest.raises(ValueError, match="must be seconds"):
        seconds_of(given)


def test_durations_are_written_shortly():
    assert [written(seconds) for seconds in (259_200, 5_400, 45, 0)] == ["3d", "90m", "45s", "0s"]
