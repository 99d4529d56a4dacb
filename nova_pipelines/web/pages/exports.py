"""Invoices as a CSV file, and what is exported at all: no text that a spreadsheet would execute."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.web.pages.catalogue import Language, Words

#: attribute of an invoice, width of its column; the heads come from the catalogue
COLUMNS: tuple[tuple[str, str, int], ...] = (
    ("id", "invoice", 9),
    ("client_slug", "client", 14),
    ("status", "status", 18),
    ("supplier_name", "supplier_name", 34),
    ("supplier_tax_id", "supplier_tax_id", 16),
    ("invoice_number", "invoice_number", 20),
    ("issue_date", "issue_date", 14),
    ("due_date", "due_date", 14),
    ("net_amount", "net_amount", 14),
    ("tax_amount", "tax_amount", 14),
    ("total_amount", "total_amount", 14),
    ("currency", "currency", 9),
    ("email_from", "from", 30),
    ("email_subject", "subject", 40),
    ("email_date", "received", 20),
    ("pdf_filename", "document", 30),
    ("processed_by_execution_id", "execution", 11),
    ("created_at", "stored", 20),
)
#: characters of a cell (ECMA-376)
MAX_TEXT = 32_767
#: what begins a formula or a command in some spreadsheet (OWASP, "CSV Injection"), blanks before it or not
_DANGEROUS = re.compile(r"^[\s\u200b\ufeff]*[=+\-@|%\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]")
_CHUNK = 64 * 1024


def csv_chunks(invoices: Iterable[Invoice], language: Language) -> Iterator[bytes]:
    """RFC 4180 in UTF-8 with a mark at the beginning, as Excel wants it. In Spanish with semicolons and decimal commas:
    that is what a Spanish Excel reads."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=";" if language == "es" else ",", lineterminator="\r\n")
    words = Words(language)
    buffer.write("\ufeff")
    writer.writerow([words(head) for _, head, _ in COLUMNS])
    for invoice in invoices:
        writer.writerow([_csv_value(getattr(invoice, name), language) for name, _, _ in COLUMNS])
        if buffer.tell() > _CHUNK:
            yield buffer.getvalue().encode("utf-8", "replace")
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue().encode("utf-8", "replace")


def _csv_value(value: Any, language: Language) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        text = f"{value.normalize():f}"
        return text.replace(".", ",") if language == "es" else text
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, date):
        return value.isoformat()
    return harmless(str(value)) if isinstance(value, str) else str(value)


def harmless(text: str) -> str:
    """A text that a spreadsheet shows and does not work out: an apostrophe stands before what could be a formula."""
    clean = text.replace("\x00", "")[:MAX_TEXT]
    return f"'{clean}"[:MAX_TEXT] if _DANGEROUS.match(clean) else clean
