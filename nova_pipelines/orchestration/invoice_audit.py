"""What can be wrong with the rows of the invoice table by themselves: duplicates, amounts, sums.

Reads facturas only and changes nothing. Amounts are compared as Decimal; SQL only narrows the rows down.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, String, cast, func, or_, select
from sqlalchemy.orm import Session

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.session import Database
from nova_pipelines.domain.money import format_amount
from nova_pipelines.orchestration.findings import Finding

CENT = Decimal("0.01")
#: taxes of several rates are rounded one by one
ROUNDING = Decimal("0.05")
#: withheld income tax in percent of the net amount: professionals 15, in their first years 7, farmers 2 and 1
#: (RD 439/2007, art. 95), rents 19 (art. 100), non-residents 19 and 24 (RDL 5/2004, art. 25.1)
WITHHELD_PERCENT = tuple(map(Decimal, ("1", "2", "7", "15", "19", "24")))
#: recargo de equivalencia in percent of the net amount, on top of VAT (Ley 37/1992, art. 161)
SURCHARGE_PERCENT = tuple(map(Decimal, ("0.5", "1.4", "1.75", "5.2")))

_WHO = ("id", "client", "supplier", "tax id", "number", "date")


def invoice_count(facturas: Database) -> int:
    with facturas.read() as session:
        return session.scalar(select(func.count()).select_from(Invoice)) or 0


def _who(invoice: Any) -> tuple[object, ...]:
    return (
        invoice.id,
        invoice.client_slug,
        invoice.supplier_name or "",
        invoice.supplier_tax_id or "",
        invoice.invoice_number or "",
        invoice.issue_date or "",
    )


_WHO_COLUMNS = (
    Invoice.id,
    Invoice.client_slug,
    Invoice.supplier_name,
    Invoice.supplier_tax_id,
    Invoice.invoice_number,
    Invoice.issue_date,
    Invoice.net_amount,
    Invoice.tax_amount,
    Invoice.total_amount,
    Invoice.currency,
)


# ---------------------------------------------------------------- duplicates


def duplicates(facturas: Database) -> list[Finding]:
    """Rows that must be unique and are not (a lost index, a restored backup), and rows that look like twins."""
    same = {
        "The same document": (Invoice.client_slug, Invoice.document_sha256),
        "The same supplier and number": (Invoice.client_slug, Invoice.supplier_tax_id, Invoice.invoice_number),
        "The same execution and node": (Invoice.processed_by_execution_id, Invoice.processed_by_node_id),
    }
    remedy = "Keep one row of each line and delete the others; the unique indexes should have refused them:"
    remedy += " look with `alembic current` whether the table is the one of this version."
    with facturas.read() as session:
        found = [
            Finding(title, "error", remedy, ("ids", *(column.key for column in columns)), _groups(session, columns))
            for title, columns in same.items()
        ]
        return [*found, _twins(session)]


def _groups(session: Session, columns: Sequence[Any]) -> list[tuple[object, ...]]:
    query = (
        select(func.aggregate_strings(cast(Invoice.id, String), ","), *columns)
        .where(*(column.is_not(None) for column in columns))
        .group_by(*columns)
        .having(func.count() > 1)
    )
    return sorted((_ids(ids), *values) for ids, *values in session.execute(query))


def _twins(session: Session) -> Finding:
    """One invoice that came as two documents (scan and original, sent again), read a little differently."""
    number, tax_id = _plain(Invoice.invoice_number), _plain(Invoice.supplier_tax_id)
    query = (
        select(
            func.aggregate_strings(cast(Invoice.id, String), ","),
            Invoice.client_slug,
            func.max(Invoice.supplier_name),
            func.max(Invoice.invoice_number),
            Invoice.total_amount,
            Invoice.currency,
        )
        .where(number != "")
        .group_by(Invoice.client_slug, number, Invoice.total_amount, Invoice.currency)
        # two suppliers may well use the same number; NULL is not counted
        .having(func.count() > 1, func.count(tax_id.distinct()) <= 1)
    )
    rows = [
        (_ids(ids), client, supplier or "", invoice_number, format_amount(total, currency))
        for ids, client, supplier, invoice_number, total, currency in session.execute(query)
    ]
    remedy = "Compare the documents: number and total are the same. If it is one invoice, delete one row."
    headers = ("ids", "client", "supplier", "number", "total")
    return Finding("Look like the same invoice", "warning", remedy, headers, sorted(rows))


def _plain(column: Any) -> ColumnElement[str]:
    """A number without what is written differently from time to time: `b-12 345` is `B12345`."""
    for character in " -./":
        column = func.replace(column, character, "")
    return func.upper(column)


def _ids(text: str) -> str:
    return ", ".join(sorted(text.split(","), key=int))


# ---------------------------------------------------------------- amounts


def amounts(facturas: Database) -> list[Finding]:
    """Zero is no invoice; below zero is a credit note, whose net amount is not above zero then."""
    total, net = Invoice.total_amount, Invoice.net_amount
    query = select(*_WHO_COLUMNS).where(or_(total <= Decimal(0), net < Decimal(0))).order_by(Invoice.id)
    with facturas.read() as session:
        rows = session.execute(query).all()
    zero = [row for row in rows if not row.total_amount]
    opposite = [row for row in rows if _opposite(row)]
    credit = [row for row in rows if row.total_amount < 0 and not _opposite(row)]
    return [
        Finding(
            "Total of zero",
            "error",
            "The total was not read from the document: read it and correct the row, or delete it.",
            *_amount_rows(zero),
        ),
        Finding(
            "Net and total of opposite sign",
            "error",
            "An invoice has both above zero, a credit note both below: correct the row from its document.",
            *_amount_rows(opposite),
        ),
        Finding(
            "Credit notes, or misread",
            "warning",
            "A total below zero is right for a credit note only: look at the document.",
            *_amount_rows(credit),
        ),
    ]


def _opposite(row: Any) -> bool:
    return (row.net_amount or 0) * row.total_amount < 0


def _amount_rows(rows: Sequence[Any]) -> tuple[tuple[str, ...], list[tuple[object, ...]]]:
    body = [(*_who(row), _money(row.net_amount, row.currency), _money(row.total_amount, row.currency)) for row in rows]
    return (*_WHO, "net", "total"), body


def _money(amount: Decimal | None, currency: str) -> str:
    return "" if amount is None else format_amount(amount, currency)


# ---------------------------------------------------------------- sums


def sums(facturas: Database) -> list[Finding]:
    """Net + tax = total to the cent, where all three were read.

    A total below net + tax by a rate of withheld income tax (IRPF), or above it by one of the surcharge of
    equivalence, is right and only noted. Other differences (expenses without VAT, discounts after tax) cannot be
    told from a misread amount: a person looks.
    """
    difference = Invoice.net_amount + Invoice.tax_amount - Invoice.total_amount
    # half a cent: SQLite computes with doubles, the decision is made below
    query = select(*_WHO_COLUMNS).where(func.abs(difference) > CENT / 2).order_by(Invoice.id)
    kinds: dict[str, list[tuple[object, ...]]] = {"withheld": [], "surcharge": [], "rounding": [], "wrong": []}
    with facturas.read() as session:
        for row in session.execute(query):
            off = row.net_amount + row.tax_amount - row.total_amount
            if abs(off) > CENT:
                kind, reason = explain(off, row.net_amount)
                money = [_money(value, row.currency) for value in (row.net_amount, row.tax_amount, row.total_amount)]
                kinds[kind].append((*_who(row), *money, _money(off, row.currency), reason))
    headers = (*_WHO, "net", "tax", "total", "difference", "explained by")
    return [
        Finding(
            "Net and tax do not come to the total",
            "error",
            "Compare with the document: one of the three was misread, or there are expenses or discounts beside them.",
            headers,
            kinds["wrong"],
        ),
        Finding(
            "Off by more than a cent",
            "warning",
            "Taxes rounded one by one may explain it: compare with the document.",
            headers,
            kinds["rounding"],
        ),
        Finding(
            "Explained by withheld income tax", "note", "The total is what is to be paid.", headers, kinds["withheld"]
        ),
        Finding(
            "Explained by the surcharge of equivalence", "note", "It is paid with the VAT.", headers, kinds["surcharge"]
        ),
    ]


def explain(off: Decimal, net: Decimal) -> tuple[str, str]:
    """What net + tax − total = `off` may come from: (kind, words). Signs follow the net amount's."""
    for percent in WITHHELD_PERCENT:
        if _is(off, net * percent / 100):
            return "withheld", f"IRPF {percent} %"
    for percent in SURCHARGE_PERCENT:
        if _is(off, -net * percent / 100):
            return "surcharge", f"recargo {percent} %"
    return ("rounding" if abs(off) <= ROUNDING else "wrong"), ""


def _is(off: Decimal, expected: Decimal) -> bool:
    """To two cents, each amount being rounded by itself. A share of a few cents would explain anything."""
    return abs(expected) >= 2 * ROUNDING and abs(off - expected) <= 2 * CENT
