"""Webhooks, deliveries that triggers make when an execution ends, and an index for counting executions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ENDS = "('completed', 'failed', 'needs_review', 'unknown')"
# $NOW is the database's clock in the form in which SQLAlchemy stores a time
INSERT = (
    "INSERT INTO webhook_deliveries "
    "(webhook_id, execution_id, number, event, error, status, attempts, next_attempt_at, created_at) "
    "SELECT w.id, NEW.id, 1 + (SELECT count(*) FROM webhook_deliveries d "
    "WHERE d.webhook_id = w.id AND d.execution_id = NEW.id), "
    "NEW.status, NEW.error, 'pending', 0, $NOW, $NOW FROM webhooks w "
    "WHERE w.is_active AND (w.client_id IS NULL OR w.client_id = NEW.client_id) "
    "AND w.events LIKE '%,' || NEW.status || ',%'"
)
FRESH = f"NEW.status IN {ENDS}"


def upgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    _webhooks()
    _deliveries()
    _trigger_postgresql() if op.get_bind().dialect.name == "postgresql" else _trigger_sqlite()
    op.create_index("ix_executions_created_at_status", "executions", ["created_at", "status"])
    op.create_index("ix_executions_completed_at", "executions", ["completed_at"])
    op.drop_index("ix_executions_created_at", table_name="executions")


def downgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.create_index("ix_executions_created_at", "executions", ["created_at"])
    op.drop_index("ix_executions_completed_at", table_name="executions")
    op.drop_index("ix_executions_created_at_status", table_name="executions")
    where = " ON executions" if op.get_bind().dialect.name == "postgresql" else ""
    for event in ("insert", "update"):
        op.execute(f"DROP TRIGGER executions_tell_{event}{where}")
    if where:
        op.execute("DROP FUNCTION nova_tell_webhooks()")
    op.drop_table("webhook_deliveries")
    op.drop_table("webhooks")


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.Integer(), nullable=True),
        sa.Column("target", sa.String(length=300), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("events", sa.String(length=60), nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["client_id"], ["clients.id"], name=op.f("fk_webhooks_client_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhooks")),
    )


def _deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("webhook_id", sa.Integer(), nullable=False),
        sa.Column("execution_id", sa.Integer(), nullable=True),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(length=12), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=10), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("claim", sa.String(length=36), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["execution_id"],
            ["executions.id"],
            name=op.f("fk_webhook_deliveries_execution_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["webhook_id"], ["webhooks.id"], name=op.f("fk_webhook_deliveries_webhook_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_deliveries")),
        sa.UniqueConstraint(
            "webhook_id",
            "execution_id",
            "number",
            name=op.f("uq_webhook_deliveries_webhook_id_execution_id_number"),
        ),
    )
    op.create_index("ix_webhook_deliveries_status_next_attempt_at", "webhook_deliveries", ["status", "next_attempt_at"])


def _trigger_sqlite() -> None:
    insert = INSERT.replace("$NOW", "strftime('%Y-%m-%d %H:%M:%f', 'now') || '000'")
    changed = f"{FRESH} AND NEW.status <> OLD.status"
    for event, condition in (("INSERT", FRESH), ("UPDATE", changed)):
        on = "UPDATE OF status" if event == "UPDATE" else event
        op.execute(
            f"CREATE TRIGGER executions_tell_{event.lower()} AFTER {on} ON executions "
            f"WHEN {condition} BEGIN {insert}; END"
        )


def _trigger_postgresql() -> None:
    insert = INSERT.replace("$NOW", "clock_timestamp()")
    op.execute(
        "CREATE FUNCTION nova_tell_webhooks() RETURNS trigger LANGUAGE plpgsql AS $$ "
        f"BEGIN {insert}; RETURN NULL; END $$"
    )
    changed = f"{FRESH} AND NEW.status <> OLD.status"
    for event, condition in (("INSERT", FRESH), ("UPDATE", changed)):
        on = "UPDATE OF status" if event == "UPDATE" else event
        op.execute(
            f"CREATE TRIGGER executions_tell_{event.lower()} AFTER {on} ON executions "
            f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION nova_tell_webhooks()"
        )
