"""Invoices as people look for them: filtered, page by page, or all of them in portions for an export.

Newest first, and paged by number: page 1,000 costs as much as page 1. PDFs and texts are read for one invoice only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, defer

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import NotFound

STATUSES = ("accepted", "pending_approval", "approved", "rejected")
#: what a search looks through
_TEXTS = (
    Invoice.supplier_name,
    Invoice.supplier_tax_id,
    Invoice.invoice_number,
    Invoice.email_from,
    Invoice.email_subject,
    Invoice.pdf_filename,
)
_LIGHT = (defer(Invoice.pdf_content, raiseload=True), defer(Invoice.ocr_text, raiseload=True))
#: rows of one portion of an export
PORTION = 500


@dataclass(frozen=True, slots=True)
class InvoiceFilter:
    """None or empty: does not narrow. `clients`: the only ones that whoever looks may see; None: all."""

    clients: frozenset[str] | None = None
    words: str = ""
    client: str = ""
    status: str = ""
    supplier: str = ""
    since: date | None = None
    until: date | None = None
    least: Decimal | None = None
    most: Decimal | None = None


def list_invoices(session: Session, wanted: InvoiceFilter, *, before: int | None, limit: int) -> list[Invoice]:
    """At most `limit` invoices, those with numbers below `before` (None: the newest)."""
    query = select(Invoice).options(*_LIGHT).where(*_conditions(wanted)).order_by(Invoice.id.desc()).limit(limit)
    return list(session.scalars(query if before is None else query.where(Invoice.id < before)))


def count_invoices(session: Session, wanted: InvoiceFilter) -> list[tuple[str, int, Decimal]]:
    """(currency, number, sum of totals), by currency."""
    query = select(Invoice.currency, func.count(), func.sum(Invoice.total_amount)).where(*_conditions(wanted))
    rows = session.execute(query.group_by(Invoice.currency).order_by(func.count().desc(), Invoice.currency))
    return [(currency, number, total) for currency, number, total in rows]


def count_by_status(session: Session, clients: Collection[str] | None) -> dict[str, int]:
    query = select(Invoice.status, func.count()).group_by(Invoice.status)
    if clients is not None:
        query = query.where(Invoice.client_slug.in_(sorted(clients)))
    return {row[0]: row[1] for row in session.execute(query)}


def each_invoice(facturas: Database, wanted: InvoiceFilter) -> Iterator[Invoice]:
    """All of them, oldest first; in portions, so that a slow reader holds no transaction open."""
    last = 0
    while True:
        with facturas.read() as session:
            query = select(Invoice).options(*_LIGHT).where(*_conditions(wanted), Invoice.id > last)
            rows = list(session.scalars(query.order_by(Invoice.id).limit(PORTION)))
            session.expunge_all()
        yield from rows
        if len(rows) < PORTION:
            return
        last = rows[-1].id


def find_invoice(session: Session, number: int, clients: Collection[str] | None) -> Invoice:
    """One invoice, without its PDF. Raises NotFound, also for one of a client that is not among `clients`."""
    query = select(Invoice).options(_LIGHT[0]).where(Invoice.id == number)
    row = session.scalars(query).first() if 0 < number < 2**31 else None
    if row is None or (clients is not None and row.client_slug not in clients):
        raise NotFound(f"there is no invoice {number}", remedy="`nova invoices list` shows them")
    return row


def content_of(session: Session, number: int) -> bytes | None:
    """The PDF as facturas keeps it."""
    return session.scalar(select(Invoice.pdf_content).where(Invoice.id == number))


def of_execution(session: Session, execution_id: int) -> list[Invoice]:
    query = select(Invoice).options(*_LIGHT).where(Invoice.processed_by_execution_id == execution_id)
    return list(session.scalars(query.order_by(Invoice.id)))


def _conditions(wanted: InvoiceFilter) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = []
    if wanted.clients is not None:
        found.append(Invoice.client_slug.in_(sorted(wanted.clients)))
    if wanted.client:
        found.append(Invoice.client_slug == wanted.client)
    if wanted.status:
        found.append(Invoice.status == wanted.status)
    if wanted.supplier:
        found.append(Invoice.supplier_name.icontains(wanted.supplier, autoescape=True))
    for word in wanted.words.split()[:8]:
        found.append(or_(*(column.icontains(word, autoescape=True) for column in _TEXTS)))
    if wanted.least is not None:
        found.append(Invoice.total_amount >= wanted.least)
    if wanted.most is not None:
        found.append(Invoice.total_amount <= wanted.most)
    return found + _dates(wanted)


def _dates(wanted: InvoiceFilter) -> list[ColumnElement[bool]]:
    """By the date of issue; where none was read, by the day on which it was stored."""
    found: list[ColumnElement[bool]] = []
    undated = Invoice.issue_date.is_(None)
    if wanted.since is not None:
        found.append((Invoice.issue_date >= wanted.since) | (undated & (Invoice.created_at >= _midnight(wanted.since))))
    if wanted.until is not None:
        end: Any = _midnight(wanted.until, days=1)
        found.append((Invoice.issue_date <= wanted.until) | (undated & (Invoice.created_at < end)))
    return found


def _midnight(day: date, *, days: int = 0) -> datetime:
    begin = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return begin + timedelta(days=days) if day < date.max else begin
