"""Exports: numbers are numbers, dates are dates, and no text of a mail becomes a formula."""

from __future__ import annotations

import csv
import io
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from openpyxl import load_workbook

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.web.pages.exports import COLUMNS, csv_chunks, harmless
from nova_pipelines_tests.web.site import Site

FORMULAS = [
    '=HYPERLINK("http://evil.example","x")',
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1+1",
    " =1+1",
    "\r=1+1",
    "|cmd",
    "%0a=1",
    "＝1+1",
    "\ufeff=1+1",
]


def store(site: Site, **fields) -> None:
    row = {"client_slug": "idom", "total_amount": Decimal("10.00"), "currency": "EUR"} | fields
    with site.world.services.databases.facturas.session() as session:
        session.add(Invoice(**row))


@pytest.fixture(scope="module")
def stored(site: Site) -> Site:
    for place, formula in enumerate(FORMULAS):
        store(site, supplier_name=formula, email_subject=formula, pdf_filename=formula, invoice_number=str(place))
    store(
        site,
        supplier_name='Two "quotes", and\nlines; \x00\x0b\u202e',
        invoice_number="whole",
        supplier_tax_id="B1",
        total_amount=Decimal("-1234.56"),
        net_amount=Decimal("-1020.30"),
        issue_date=date(2026, 11, 2),
        email_date=datetime(2026, 11, 2, 9, 30, tzinfo=UTC),
        email_subject="z" * 50_000,
    )
    store(
        site,
        supplier_name="Yen",
        invoice_number="yen",
        supplier_tax_id="J1",
        total_amount=Decimal(1500),
        currency="JPY",
    )
    return site


def rows_of(answer, delimiter: str) -> list[dict[str, str]]:
    text = answer.content.decode("utf-8")
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:], newline=""), delimiter=delimiter))


def test_csv(stored: Site):
    answer = stored.as_("viewer", language="en").get("/pages/invoices.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="nova-invoices-')
    rows = rows_of(answer, ",")
    assert len(rows) == len(FORMULAS) + 2
    for row in rows[: len(FORMULAS)]:
        for name in ("Supplier", "Subject", "Document"):
            assert row[name].startswith("'"), row
    whole = rows[len(FORMULAS)]
    assert whole["Supplier"] == 'Two "quotes", and\nlines; \x0b\u202e'
    assert (whole["Total"], whole["Net amount"], whole["Currency"]) == ("-1234.56", "-1020.3", "EUR")
    assert (whole["Date of issue"], whole["Date of the mail"]) == ("2026-11-02", "2026-11-02 09:30:00")
    assert len(whole["Subject"]) == 32_767


def test_csv_for_a_spanish_spreadsheet(stored: Site):
    rows = rows_of(stored.as_("viewer", language="es").get("/pages/invoices.csv"), ";")
    assert rows[len(FORMULAS)]["Total"] == "-1234,56"


def test_xlsx(stored: Site):
    answer = stored.as_("viewer", language="en").get("/pages/invoices.xlsx")
    assert answer.headers["content-type"].endswith("spreadsheetml.sheet")
    sheet = load_workbook(io.BytesIO(answer.content)).active
    assert sheet is not None
    assert sheet.freeze_panes == "A2"
    heads = [cell.value for cell in sheet[1]]
    assert len(heads) == len(COLUMNS)
    place = {head: number for number, head in enumerate(heads)}
    rows = list(sheet.iter_rows(min_row=2))
    assert len(rows) == len(FORMULAS) + 2
    for row, formula in zip(rows, FORMULAS, strict=False):
        cell = row[place["Supplier"]]
        assert cell.data_type == "s", formula
    whole, yen = rows[-2:]
    total = whole[place["Total"]]
    assert (total.data_type, total.value, total.number_format) == ("n", -1234.56, '#,##0.00 "EUR"')
    assert (yen[place["Total"]].value, yen[place["Total"]].number_format) == (1500, '#,##0 "JPY"')
    issued = whole[place["Date of issue"]]
    assert issued.is_date
    assert issued.value == datetime(2026, 11, 2)  # noqa: DTZ001 - a sheet knows no zones
    assert not any(cell.data_type == "f" for row in rows for cell in row)


def test_the_filter_holds_for_exports(stored: Site):
    rows = rows_of(stored.as_("viewer", language="en").get("/pages/invoices.csv?q=Yen"), ",")
    assert [row["Currency"] for row in rows] == ["JPY"]
    assert stored.as_("viewer").get("/pages/invoices.csv?least=much").status_code == 422


def test_an_export_is_made_while_it_is_read():
    """Nothing is gathered: the first piece comes long before the last invoice is looked at."""
    seen = 0

    def many():
        nonlocal seen
        for number in range(50_000):
            seen += 1
            yield Invoice(
                id=number, client_slug="idom", total_amount=Decimal(1), currency="EUR", supplier_name="x" * 50
            )

    chunks = csv_chunks(many(), "en")
    next(chunks)
    assert seen < 2_000
    assert sum(len(chunk) for chunk in chunks) > 2_000_000


@pytest.mark.parametrize("text", ["Suministros Ibéricos S.L.", "3M", "", "a=b", "ñ"])
def test_plain_names_stay_as_they_are(text: str):
    assert harmless(text) == text
