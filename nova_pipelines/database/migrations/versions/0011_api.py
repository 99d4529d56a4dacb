"""The HTTP API: answers that are given once (Idempotency-Key), who cancelled an execution, and indexes for listings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
#: a listing is "the newest of …": each filter followed by the number, so that a page is read and nothing else
LISTINGS = (
    ("status", "id"),
    ("workflow_id", "id"),
    ("workflow_id", "status", "id"),
    ("client_id", "id"),
    ("client_id", "status", "id"),
)


def upgrade(engine_name: str) -> None:
    if engine_name == "facturas":
        op.create_index(op.f("ix_invoices_client_slug_id"), "invoices", ["client_slug", "id"])
        op.create_index(op.f("ix_invoices_status_id"), "invoices", ["status", "id"])
        return
    op.create_table(
        "idempotency_keys",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("principal", sa.String(length=200), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("execution_id", sa.Integer(), nullable=False),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["executions.id"], name=op.f("fk_idempotency_keys_execution_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint("principal", "key", name=op.f("uq_idempotency_keys_principal_key")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])
    op.create_index(op.f("ix_idempotency_keys_execution_id"), "idempotency_keys", ["execution_id"])
    op.add_column("executions", sa.Column("cancelled_at", MOMENT, nullable=True))
    op.add_column("executions", sa.Column("cancelled_by", sa.String(length=200), nullable=True))
    op.drop_index(op.f("ix_executions_status"), table_name="executions")
    for columns in LISTINGS:
        op.create_index(op.f(f"ix_executions_{'_'.join(columns)}"), "executions", list(columns))


def downgrade(engine_name: str) -> None:
    if engine_name == "facturas":
        op.drop_index(op.f("ix_invoices_status_id"), table_name="invoices")
        op.drop_index(op.f("ix_invoices_client_slug_id"), table_name="invoices")
        return
    for columns in reversed(LISTINGS):
        op.drop_index(op.f(f"ix_executions_{'_'.join(columns)}"), table_name="executions")
    op.create_index(op.f("ix_executions_status"), "executions", ["status"])
    op.drop_column("executions", "cancelled_by")
    op.drop_column("executions", "cancelled_at")
    op.drop_table("idempotency_keys")
