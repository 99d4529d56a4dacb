"""The kind `invoice_write`: stores the invoice of an execution in facturas, exactly once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.domain.errors import NeedsPerson, PermanentError
from nova_pipelines.domain.invoice import InvoiceReading
from nova_pipelines.domain.workflow import Node
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.services import Services

_TABLE = Invoice.metadata.tables[Invoice.__tablename__]
_INSERT = insert(_TABLE)
_BY_DATABASE = {"id", "created_at", "updated_at"}


class InvoiceWriteNode(Node):
    """Writes `context.invoice` to the table `invoices`, as `accepted` or as `pending_approval`.

    Sets `invoice_id` and `action_taken`: `invoice_saved`, or `invoice_duplicate` with the id of the row
    that already holds this document or this supplier's invoice number.
    """

    type: Literal["invoice_write"]
    status: Literal["accepted", "pending_approval"] = "accepted"


def run(node: InvoiceWriteNode, item: Item, services: Services) -> Result:
    reading = InvoiceReading.from_context(item.context.get("invoice"))
    if not reading.sure:
        raise NeedsPerson(
            "the invoice was not read with confidence and is not stored: " + "; ".join(reading.doubts),
            remedy="read the document and decide",
        )
    row = invoice_row(node, item, reading, services)
    invoice_id, first = _insert_once(services, row)
    action = "invoice_saved" if first else "invoice_duplicate"
    context = item.context | {"invoice_id": invoice_id, "action_taken": action}
    facts = {"invoice": invoice_id, "amount": f"{row.total_amount} {row.currency}", "action": action}
    return Result(context=context, metadata=facts)


def invoice_row(node: InvoiceWriteNode, item: Item, reading: InvoiceReading, services: Services) -> Invoice:
    """The row for an item. Raises PermanentError for amounts or texts that the table cannot hold."""
    email = _object(item.context.get("email"))
    document = _object(item.context.get("document"))
    if reading.total_amount is None or reading.currency is None:
        raise PermanentError("the invoice has no total amount or no currency")
    sha256 = document.get("sha256")
    content = services.store.get(sha256) if isinstance(sha256, str) else None
    return Invoice(
        client_slug=item.client.slug if item.client else "",
        email_from=_text(email.get("from"), 320),
        email_subject=_text(email.get("subject"), 10_000),
        email_date=_time(email.get("date")),
        pdf_filename=_text(document.get("filename"), 1_000),
        pdf_content=content,
        pdf_size_bytes=len(content) if content is not None else None,
        document_sha256=sha256 if content is not None else None,
        ocr_text=_text(item.context.get("pdf_text"), 1_000_000),
        ocr_method=_text(item.context.get("ocr_method"), 50),
        supplier_name=_text(reading.supplier_name, 1_000),
        supplier_tax_id=_text(reading.supplier_tax_id, 50),
        invoice_number=_text(reading.invoice_number, 100),
        issue_date=reading.issue_date,
        due_date=reading.due_date,
        net_amount=reading.net_amount,
        tax_amount=reading.tax_amount,
        total_amount=reading.total_amount,
        currency=reading.currency,
        confidence=reading.confidence,
        status=node.status,
        processed_by_workflow_id=item.workflow_id,
        processed_by_execution_id=item.execution_id,
        processed_by_node_id=node.id,
    )


def _insert_once(services: Services, row: Invoice) -> tuple[int, bool]:
    """The id of the invoice and whether this execution stored it. A repeat of the same work finds its row.

    Insert first: the unique keys decide, also between two runs at the same moment.
    """
    values = {column.name: getattr(row, column.name) for column in _TABLE.columns if column.name not in _BY_DATABASE}
    try:
        with services.databases.facturas.session() as session:
            stored = session.connection().execute(_INSERT, values)
            return int((stored.inserted_primary_key or (0,))[0]), True
    except IntegrityError:
        with services.databases.facturas.read() as session:
            found = _stored(session, row)
        if found is None:
            raise
        return found


def _stored(session: Session, row: Invoice) -> tuple[int, bool] | None:
    own = (Invoice.processed_by_execution_id == row.processed_by_execution_id) & (
        Invoice.processed_by_node_id == row.processed_by_node_id
    )
    keys = [own]
    same_client = Invoice.client_slug == row.client_slug
    if row.document_sha256:
        keys.append(same_client & (Invoice.document_sha256 == row.document_sha256))
    if row.supplier_tax_id and row.invoice_number:
        keys.append(
            same_client
            & (Invoice.supplier_tax_id == row.supplier_tax_id)
            & (Invoice.invoice_number == row.invoice_number)
        )
    found = session.scalars(select(Invoice).where(or_(*keys)).order_by(own.desc(), Invoice.id).limit(1)).first()
    if found is None:
        return None
    mine = (
        found.processed_by_execution_id == row.processed_by_execution_id
        and found.processed_by_node_id == row.processed_by_node_id
    )
    return found.id, mine


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any, longest: int) -> str | None:
    """A text that both databases can hold: no NUL, not too long."""
    return value.replace("\x00", "")[:longest] if isinstance(value, str) else None


def _time(value: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment and moment.tzinfo else None


KIND = NodeKind(type="invoice_write", model=InvoiceWriteNode, run=run, asset="invoices")
