"""Pages of long tables: only the columns that are shown, only the rows of the page.

The page is cut out of an index first and joined with names afterwards, so that a page far back costs an index scan and
no joins. Filters stand in the query: what somebody may not see is neither shown nor counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, RowMapping, Select, func, select, true
from sqlalchemy.orm import Session

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Client, Execution, Message, Workflow, WorkflowVersion

_EXECUTION = (
    *(Execution.id, Execution.task_id, Execution.workflow_id, Workflow.name.label("workflow")),
    *(WorkflowVersion.number.label("version"), Client.slug.label("client"), Execution.status, Execution.error),
    *(Execution.failed_node, Execution.run_id, Execution.message_id, Execution.document_ordinal),
    *(Message.sender.label("from"), Message.subject, Execution.created_at, Execution.started_at),
    *(Execution.completed_at, Execution.waits_until, Execution.cancelled_at, Execution.cancelled_by),
)
#: columns of an invoice that are shown; not its document and its text
INVOICE_FIELDS = (
    *("id", "client_slug", "status", "supplier_name", "supplier_tax_id", "invoice_number", "issue_date"),
    *("due_date", "net_amount", "tax_amount", "total_amount", "currency", "confidence", "email_from"),
    *("email_subject", "email_date", "pdf_filename", "pdf_size_bytes", "document_sha256", "ocr_method"),
    *("processed_by_workflow_id", "processed_by_execution_id", "processed_by_node_id", "created_at", "updated_at"),
)
_INVOICE = tuple(getattr(Invoice, name) for name in INVOICE_FIELDS)


def client_ids(session: Session, slugs: Collection[str]) -> list[int]:
    """The numbers of these clients; unknown ones are left out."""
    return list(session.scalars(select(Client.id).where(Client.slug.in_(slugs)).order_by(Client.id)))


def execution_filter(
    *, statuses: Sequence[str] = (), workflow_id: int | None = None, clients: Collection[int] | None = None
) -> ColumnElement[bool]:
    """`clients`: only those of these clients; None: all, those of no client too."""
    wanted: ColumnElement[bool] = true()
    if statuses:
        wanted &= Execution.status.in_(statuses) if len(statuses) > 1 else Execution.status == statuses[0]
    if workflow_id is not None:
        wanted &= Execution.workflow_id == workflow_id
    if clients is not None:
        numbers = list(clients)
        wanted &= Execution.client_id == numbers[0] if len(numbers) == 1 else Execution.client_id.in_(numbers)
    return wanted


def page_of_executions(session: Session, wanted: ColumnElement[bool], *, skip: int, limit: int) -> list[RowMapping]:
    """The newest first, without their contexts."""
    numbers = select(Execution.id).where(wanted).order_by(Execution.id.desc()).offset(skip).limit(limit).subquery()
    query = (
        select(*_EXECUTION)
        .join(numbers, numbers.c.id == Execution.id)
        .join(Workflow, Workflow.id == Execution.workflow_id)
        .join(WorkflowVersion, WorkflowVersion.id == Execution.version_id)
        .outerjoin(Client, Client.id == Execution.client_id)
        .outerjoin(Message, Message.id == Execution.message_id)
        .order_by(Execution.id.desc())
    )
    return [row._mapping for row in session.execute(query)]


def count_executions(session: Session, wanted: ColumnElement[bool], most: int | None) -> int:
    return _count(session, select(Execution.id).where(wanted), most)


def invoice_filter(*, clients: Collection[str] | None = None, status: str | None = None) -> ColumnElement[bool]:
    """`clients`: only those of these clients (slugs); None: all."""
    wanted: ColumnElement[bool] = true()
    if clients is not None:
        slugs = list(clients)
        wanted &= Invoice.client_slug == slugs[0] if len(slugs) == 1 else Invoice.client_slug.in_(slugs)
    if status is not None:
        wanted &= Invoice.status == status
    return wanted


def page_of_invoices(session: Session, wanted: ColumnElement[bool], *, skip: int, limit: int) -> list[RowMapping]:
    """The newest first, without their documents and texts."""
    numbers = select(Invoice.id).where(wanted).order_by(Invoice.id.desc()).offset(skip).limit(limit).subquery()
    query = select(*_INVOICE).join(numbers, numbers.c.id == Invoice.id).order_by(Invoice.id.desc())
    return [row._mapping for row in session.execute(query)]


def count_invoices(session: Session, wanted: ColumnElement[bool], most: int | None) -> int:
    return _count(session, select(Invoice.id).where(wanted), most)


def _count(session: Session, query: Select[int], most: int | None) -> int:
    cut = query if most is None else query.limit(most)
    return session.scalar(select(func.count()).select_from(cut.subquery())) or 0
