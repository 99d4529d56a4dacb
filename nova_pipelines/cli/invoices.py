"""`nova invoices …`: the invoice table of facturas."""

from typing import Annotated, Any

import typer

from nova_pipelines.cli.output import JsonFlag, emit, note, plain, table
from nova_pipelines.cli.session import open_all

app = typer.Typer(help="Invoices that were stored.", no_args_is_help=True)

#: the columns of --json; the document itself is not for a terminal
_FIELDS = (
    *("id", "client_slug", "status", "supplier_name", "supplier_tax_id", "invoice_number", "issue_date", "due_date"),
    *("net_amount", "tax_amount", "total_amount", "currency", "confidence", "email_from", "email_subject"),
    *("email_date", "pdf_filename", "pdf_size_bytes", "document_sha256", "ocr_method"),
    *("processed_by_workflow_id", "processed_by_execution_id", "created_at"),
)


@app.callback()
def invoices() -> None:
    """Invoices that were stored."""


@app.command("list")
def list_(
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="Only those of this client.")] = None,
    status: Annotated[str | None, typer.Option(help="accepted, pending_approval, approved or rejected.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many, newest first.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List invoices, newest first. In JSON, amounts are texts: exact decimals."""
    from sqlalchemy import func, select

    from nova_pipelines.database.facturas import Invoice
    from nova_pipelines.domain.money import format_amount

    query = select(*(getattr(Invoice, name) for name in _FIELDS)).order_by(Invoice.id.desc())
    totals = select(Invoice.currency, func.count(), func.sum(Invoice.total_amount)).group_by(Invoice.currency)
    conditions: list[Any] = []
    if client is not None:
        conditions.append(Invoice.client_slug == client)
    if status is not None:
        conditions.append(Invoice.status == status)
    with open_all() as databases, databases.facturas.read() as session:
        rows = [dict(row._mapping) for row in session.execute(query.where(*conditions).limit(limit))]
        sums = session.execute(totals.where(*conditions).order_by(Invoice.currency)).all()
    if as_json:
        emit(rows)
        return
    table(
        ("no.", "client", "supplier", "number", "date", "total", "status", "exec."),
        [
            (
                row["id"],
                row["client_slug"],
                plain(row["supplier_name"])[:60],
                row["invoice_number"],
                row["issue_date"],
                format_amount(row["total_amount"], row["currency"]),
                row["status"],
                row["processed_by_execution_id"],
            )
            for row in rows
        ],
        numbers=("no.", "total", "exec."),
    )
    for currency, count, total in sums:
        note(f"{count} invoices in {currency}: {format_amount(total, currency)}")
