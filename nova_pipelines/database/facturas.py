"""The invoice table of facturas, a database apart from nova-db."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Date, Float, Index, LargeBinary, MetaData, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from nova_pipelines.database.base import NAMING
from nova_pipelines.database.types import CanonicalJSON, ExactNumeric, UtcDateTime, utc_now


class FacturasBase(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {  # noqa: RUF012
        dict[str, Any]: CanonicalJSON,
        datetime: UtcDateTime,
        Decimal: ExactNumeric(18, 4),
        date: Date,
    }


class Invoice(FacturasBase):
    """One invoice. Stored once: by execution and node, by the document's hash, by the business key."""

    __tablename__ = "invoices"
    __table_args__ = (
        Index("uq_invoices_execution", "processed_by_execution_id", "processed_by_node_id", unique=True),
        Index("uq_invoices_document", "client_slug", "document_sha256", unique=True),
        Index(
            "uq_invoices_business_key",
            "client_slug",
            "supplier_tax_id",
            "invoice_number",
            unique=True,
            sqlite_where=text("supplier_tax_id IS NOT NULL AND invoice_number IS NOT NULL"),
            postgresql_where=text("supplier_tax_id IS NOT NULL AND invoice_number IS NOT NULL"),
        ),
        Index("ix_invoices_email_from", "email_from"),
        Index("ix_invoices_total_amount", "total_amount"),
        Index("ix_invoices_created_at", "created_at"),
        Index("ix_invoices_client_slug_id", "client_slug", "id"),
        Index("ix_invoices_status_id", "status", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    client_slug: Mapped[str] = mapped_column(String(100), default="")
    email_from: Mapped[str | None] = mapped_column(String(320))
    email_subject: Mapped[str | None] = mapped_column(Text)
    email_date: Mapped[datetime | None]
    pdf_filename: Mapped[str | None] = mapped_column(Text)
    pdf_content: Mapped[bytes | None] = mapped_column(LargeBinary)
    pdf_size_bytes: Mapped[int | None]
    document_sha256: Mapped[str | None] = mapped_column(String(64))
    ocr_text: Mapped[str | None] = mapped_column(Text)
    ocr_method: Mapped[str | None] = mapped_column(String(50))
    supplier_name: Mapped[str | None] = mapped_column(Text)
    supplier_tax_id: Mapped[str | None] = mapped_column(String(50))
    invoice_number: Mapped[str | None] = mapped_column(String(100))
    issue_date: Mapped[date | None]
    due_date: Mapped[date | None]
    net_amount: Mapped[Decimal | None]
    tax_amount: Mapped[Decimal | None]
    total_amount: Mapped[Decimal]
    currency: Mapped[str] = mapped_column(String(3), default="EUR")
    confidence: Mapped[float | None] = mapped_column(Float)
    #: accepted | pending_approval → approved | rejected
    status: Mapped[str] = mapped_column(String(20), default="accepted")
    processed_by_workflow_id: Mapped[int | None]
    processed_by_execution_id: Mapped[int | None]
    processed_by_node_id: Mapped[str | None] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)
