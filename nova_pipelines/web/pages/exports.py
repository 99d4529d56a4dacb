"""Invoices as CSV and XLSX files: amounts as numbers, dates as dates, and no text that a spreadsheet would execute."""

from __future__ import annotations

import csv
import io
import re
import tempfile
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import IO, Any

from openpyxl import Workbook
from openpyxl.cell import Cell, WriteOnlyCell
from openpyxl.styles import Font
from openpyxl.utils import get_column_letter

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.domain.currency import minor_units
from nova_pipelines.domain.errors import PermanentError
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
AMOUNTS = ("net_amount", "tax_amount", "total_amount")
#: rows of a sheet (ECMA-376), and characters of a cell
MAX_ROWS, MAX_TEXT = 1_048_576, 32_767
#: what begins a formula or a command in some spreadsheet (OWASP, "CSV Injection"), blanks before it or not
_DANGEROUS = re.compile(r"^[\s\u200b\ufeff]*[=+\-@|%\uff1d\uff0b\uff0d\uff20]|^[\t\r\n]")
#: what an XML file cannot hold
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
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


def xlsx_file(invoices: Iterable[Invoice], language: Language) -> IO[bytes]:
    """A sheet with a head that stays, written row by row; the file is closed by whoever gets it, and then gone.

    Raises PermanentError for more rows than a sheet has.
    """
    words = Words(language)
    book = Workbook(write_only=True)
    sheet = book.create_sheet(words("invoices"))
    sheet.freeze_panes = "A2"
    for place, (_, _, width) in enumerate(COLUMNS, start=1):
        sheet.column_dimensions[get_column_letter(place)].width = width
    sheet.append([_head(sheet, words(head)) for _, head, _ in COLUMNS])
    for number, invoice in enumerate(invoices, start=2):
        if number > MAX_ROWS:
            raise PermanentError(
                "there are more invoices than rows in a sheet", remedy="narrow the filter, or take CSV"
            )
        sheet.append([_cell(sheet, name, invoice) for name, _, _ in COLUMNS])
    target = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    try:
        book.save(target)
        target.seek(0)
    except BaseException:
        target.close()
        raise
    return target


def _head(sheet: Any, text: str) -> Cell:
    cell = WriteOnlyCell(sheet, text)
    cell.font = Font(bold=True)
    return cell


def _cell(sheet: Any, name: str, invoice: Invoice) -> Cell | None:
    value = getattr(invoice, name)
    if value is None:
        return None
    if isinstance(value, str):
        cell = WriteOnlyCell(sheet, _NOT_XML.sub("", value)[:MAX_TEXT])
        cell.data_type = "s"  # whatever it begins with: openpyxl would take "=…" for a formula
        return cell
    if isinstance(value, datetime):
        value = value.astimezone(UTC).replace(tzinfo=None)  # a sheet knows no zones; the head says what it is
    cell = WriteOnlyCell(sheet, value)
    if isinstance(value, datetime):
        cell.number_format = "yyyy-mm-dd hh:mm:ss"
    elif isinstance(value, date):
        cell.number_format = "yyyy-mm-dd"
    elif name in AMOUNTS:
        cell.number_format = _money_format(invoice.currency)
    return cell


def _money_format(currency: str) -> str:
    """The code stands behind the number and is no part of it: the cell can be summed up."""
    code = re.sub(r"[^A-Z]", "", currency)[:3]
    try:
        decimals = minor_units(code)
    except PermanentError:
        decimals = 2
    return f'#,##0{"." if decimals else ""}{"0" * decimals} "{code}"'


def file_chunks(file: IO[bytes]) -> Iterator[bytes]:
    """The file from its beginning; closed at the end, or when the reader goes away."""
    with file:
        while piece := file.read(_CHUNK):
            yield piece
