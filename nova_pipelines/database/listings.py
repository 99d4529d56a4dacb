"""Pages of long tables: only the columns that are shown, only the rows of the page.

Filters stand in the query: what somebody may not see is neither shown nor counted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Select, func, select, true
from sqlalchemy.orm import Session

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Client, Execution, Message, Workflow, WorkflowVersion

#: columns of an execution itself, without its contexts
_EXECUTION_FIELDS = (
    *("id", "task_id", "workflow_id", "version_id", "client_id", "status", "error", "failed_node", "run_id"),
    *("message_id", "document_ordinal", "created_at", "started_at", "completed_at", "waits_until"),
    *("cancelled_at", "cancelled_by"),
)
#: made once: SQLAlchemy takes longer to put such a query together than PostgreSQL to answer it
_EXECUTION = (
    select(*(Execution.__table__.c[name] for name in _EXECUTION_FIELDS), Message.sender, Message.subject)
    .outerjoin(Message, Message.id == Execution.message_id)
    .order_by(Execution.id.desc())
)
_EXECUTION_NAMES = (*_EXECUTION_FIELDS, "from", "subject")
#: columns of an invoice that are shown; not its document and its text
INVOICE_FIELDS = (
    *("id", "client_slug", "status", "supplier_name", "supplier_tax_id", "invoice_number", "issue_date"),
    *("due_date", "net_amount", "tax_amount", "total_amount", "currency", "confidence", "email_from"),
    *("email_subject", "email_date", "pdf_filename", "pdf_size_bytes", "document_sha256", "ocr_method"),
    *("processed_by_workflow_id", "processed_by_execution_id", "processed_by_node_id", "created_at", "updated_at"),
)
_INVOICE = select(*(Invoice.__table__.c[name] for name in INVOICE_FIELDS)).order_by(Invoice.id.desc())


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


def page_of_executions(
    session: Session, wanted: ColumnElement[bool], *, skip: int, limit: int, before: int | None = None
) -> list[dict[str, Any]]:
    """The newest first, without their contexts, with the names of what they belong to. `before`: those with smaller
    numbers."""
    rows = session.connection().execute(_page(_EXECUTION, Execution.id, wanted, skip, limit, before)).all()
    found = [dict(zip(_EXECUTION_NAMES, row, strict=True)) for row in rows]
    names = _names_of(session)
    workflows = names.of(session, Workflow.id, Workflow.name, {row["workflow_id"] for row in found})
    versions = names.of(session, WorkflowVersion.id, WorkflowVersion.number, {row["version_id"] for row in found})
    clients = names.of(session, Client.id, Client.slug, {row["client_id"] for row in found} - {None})
    for row in found:
        client = row.pop("client_id")
        row["workflow"], row["version"] = workflows[row["workflow_id"]], versions[row.pop("version_id")]
        row["client"] = None if client is None else clients[client]
    return found


class _Names:
    """Names by number, of what executions belong to: kept for ever, since they never change and nothing that has an
    execution is ever deleted. To plan a join of five tables takes PostgreSQL longer than to read a page."""

    def __init__(self) -> None:
        self._known: dict[Any, dict[int, Any]] = {}

    def of(self, session: Session, number: Any, name: Any, wanted: set[int]) -> dict[int, Any]:
        known = self._known.setdefault(number, {})
        if missing := sorted(wanted - known.keys()):
            known |= {row[0]: row[1] for row in session.execute(select(number, name).where(number.in_(missing)))}
        return known


#: by database
_names: WeakKeyDictionary[Any, _Names] = WeakKeyDictionary()


def _names_of(session: Session) -> _Names:
    return _names.setdefault(session.get_bind(), _Names())


def _page(
    query: Select[Any], number: Any, wanted: ColumnElement[bool], skip: int, limit: int, before: int | None
) -> Select[Any]:
    """A page. Where rows are left out, the numbers come from an index alone."""
    if before is not None:
        wanted &= number < before
    if not skip:
        return query.where(wanted).limit(limit)
    numbers = select(number).where(wanted).order_by(number.desc()).offset(skip).limit(limit).subquery()
    return query.join(numbers, numbers.c.id == number)


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


def page_of_invoices(
    session: Session, wanted: ColumnElement[bool], *, skip: int, limit: int, before: int | None = None
) -> list[dict[str, Any]]:
    """The newest first, without their documents and texts. `before`: those with smaller numbers."""
    rows = session.connection().execute(_page(_INVOICE, Invoice.id, wanted, skip, limit, before)).all()
    return [dict(zip(INVOICE_FIELDS, row, strict=True)) for row in rows]


def count_invoices(session: Session, wanted: ColumnElement[bool], most: int | None) -> int:
    return _count(session, select(Invoice.id).where(wanted), most)


def _count(session: Session, query: Select[int], most: int | None) -> int:
    cut = query if most is None else query.limit(most)
    return session.scalar(select(func.count()).select_from(cut.subquery())) or 0
