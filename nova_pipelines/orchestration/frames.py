"""The invoice table as pandas frames: sums by month and by supplier, and their plain texts and CSV files.

Knows neither Dagster nor charts. Money stays Decimal from the row to the file, and amounts of different
currencies are never added up. pandas is imported inside functions: workers of workflows load this module too.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import select

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.failures import folder_failure
from nova_pipelines.database.session import Database, private_folder
from nova_pipelines.domain.currency import CODES, minor_units
from nova_pipelines.domain.errors import TransientError

if TYPE_CHECKING:
    import pandas as pd

Row = tuple[Any, ...]
#: in place of a month, a supplier or a tax id that was not read from the document
UNKNOWN = "unknown"
MONTH_COLUMNS = ("month", "currency", "status", "count", "net", "tax", "total")
SUPPLIER_COLUMNS = ("supplier", "tax_id", "currency", "count", "total", "last_date")
_READ = {
    "issue_date": Invoice.issue_date,
    "supplier": Invoice.supplier_name,
    "tax_id": Invoice.supplier_tax_id,
    "currency": Invoice.currency,
    "status": Invoice.status,
    "net": Invoice.net_amount,
    "tax": Invoice.tax_amount,
    "total": Invoice.total_amount,
}
#: a text that begins so is a formula for a spreadsheet (OWASP, "CSV Injection")
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def read_invoices(facturas: Database) -> pd.DataFrame:
    """The facts of all invoices, one row each, in the order in which they were stored."""
    import pandas as pd

    with facturas.read() as session:
        rows = [tuple(row) for row in session.execute(select(*_READ.values()).order_by(Invoice.id))]
    # object: pandas would make floats of decimals that it may guess about, and NaN of what is None
    return pd.DataFrame(rows, columns=list(_READ), dtype=object)


def by_month(invoices: pd.DataFrame) -> pd.DataFrame:
    """MONTH_COLUMNS, one row for each month of issue (`2026-08`), currency and status; unknown months last.

    `net` and `tax` are sums of what was read, None where no invoice of the row has one: they need not come
    to `total`.
    """
    keys = invoices.assign(month=[day.isoformat()[:7] if day else UNKNOWN for day in invoices["issue_date"]])
    rows: list[Row] = [
        (*key, len(group), _sum(group["net"]), _sum(group["tax"]), _sum(group["total"]))
        for key, group in _groups(keys, ["month", "currency", "status"])
    ]
    return _frame(rows, MONTH_COLUMNS)


def by_supplier(invoices: pd.DataFrame) -> pd.DataFrame:
    """SUPPLIER_COLUMNS, one row for each supplier and currency, the greatest totals of a currency first.

    A supplier is known by its tax id, however written, and only without one by its name. The name shown is
    the one stored last. Invoices of every status count; `last_date` is the last date of issue.
    """
    keys = invoices.assign(
        key=[_supplier_key(*pair) for pair in zip(invoices["tax_id"], invoices["supplier"], strict=True)]
    )
    rows: list[Row] = [
        (
            _last(group["supplier"]) or UNKNOWN,
            _last(group["tax_id"]) or UNKNOWN,
            key[1],
            len(group),
            _sum(group["total"]),
            max((day for day in group["issue_date"] if day), default=None),
        )
        for key, group in _groups(keys, ["key", "currency"])
    ]
    return _frame(sorted(rows, key=lambda row: (row[2], -(row[4] or 0), row[0])), SUPPLIER_COLUMNS)


def _groups(frame: pd.DataFrame, keys: list[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    for key, group in frame.groupby(keys):
        yield cast("tuple[str, ...]", key), group


def _frame(rows: list[Row], columns: tuple[str, ...]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(columns), dtype=object)


def _supplier_key(tax_id: str | None, name: str | None) -> str:
    plain = "".join(character for character in tax_id or "" if character.isalnum()).upper()
    return f"id:{plain}" if plain else f"name:{' '.join((name or '').split()).casefold()}"


def _sum(amounts: Iterable[Decimal | None]) -> Decimal | None:
    """Exact: 28 digits of Decimal hold ten thousand million amounts of 18 digits."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known, Decimal(0)) if known else None


def _last(texts: Iterable[str | None]) -> str | None:
    return next((text for text in reversed(list(texts)) if text), None)


# ---------------------------------------------------------------- texts and files


def plain_amount(amount: Decimal, currency: str) -> str:
    """An amount with all its decimals, at least those of its currency: `1234.50`."""
    places = minor_units(currency) if currency in CODES else 2
    exponent = amount.normalize().as_tuple().exponent
    return f"{amount:.{max(places, -exponent if isinstance(exponent, int) else 0)}f}"


def cells(frame: pd.DataFrame, amount: Callable[[Decimal, str], str] = plain_amount) -> list[list[str]]:
    """The rows of a report as texts; `amount` writes an amount in the currency of its row."""
    return [
        [_cell(value, lambda value, code=str(row["currency"]): amount(value, code)) for value in row.values()]
        for row in frame.to_dict("records")
    ]


def _cell(value: object, amount: Callable[[Decimal], str]) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return amount(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Replaces a CSV file (RFC 4180, UTF-8 with a mark, as spreadsheets expect) at once, or leaves it as it was.

    For its owner only, like the databases. Texts from documents cannot act as formulas.
    Raises ConfigurationError or TransientError when the file cannot be written.
    """
    safe = frame.copy()
    for column in ("supplier", "tax_id"):
        if column in safe:
            safe[column] = [f"'{text}" if text.startswith(_FORMULA) else text for text in safe[column]]
    private_folder(path.parent)
    try:
        _replace(path, _csv(safe))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TransientError(
                f"{path} was not written: disk full", remedy="free some space and materialize again"
            ) from error
        raise folder_failure(path, error) from error


def _csv(frame: pd.DataFrame) -> bytes:
    import pandas as pd

    texts = pd.DataFrame(cells(frame), columns=list(frame.columns), dtype=object)
    return texts.to_csv(index=False, lineterminator="\r\n").encode("utf-8-sig", errors="replace")


def _replace(path: Path, content: bytes) -> None:
    """All or nothing, also for a reader in the same moment; a temporary file is made with mode 0600."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise
