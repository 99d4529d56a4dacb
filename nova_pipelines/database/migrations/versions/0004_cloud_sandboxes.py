"""What all processes share of the cloud sandbox: its circuit breaker, its limits, its sessions."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.create_table(
        "circuit_breakers",
        sa.Column("name", sa.String(length=50), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("trial", sa.String(length=36), nullable=True),
        sa.Column("trial_until", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_circuit_breakers")),
    )
    op.create_table(
        "sandbox_gates",
        sa.Column("backend", sa.String(length=20), nullable=False),
        sa.Column("installation", sa.String(length=36), nullable=False),
        sa.Column("tokens", sa.Float(), nullable=False),
        sa.Column("refilled_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("backend", name=op.f("pk_sandbox_gates")),
    )
    op.create_table(
        "sandbox_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("backend", sa.String(length=20), nullable=False),
        sa.Column("mark", sa.String(length=36), nullable=False),
        sa.Column("sandbox_id", sa.String(length=100), nullable=True),
        sa.Column("run_id", sa.String(length=36), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("alive_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sandbox_sessions")),
        sa.UniqueConstraint("mark", name=op.f("uq_sandbox_sessions_mark")),
    )
    op.create_index(op.f("ix_sandbox_sessions_ended_at_alive_until"), "sandbox_sessions", ["ended_at", "alive_until"])
    _first_rows()


def _first_rows() -> None:
    """The rows that all processes lock: there from the beginning, so that no two of them make one."""
    breakers = sa.table("circuit_breakers", sa.column("name"), sa.column("state"), sa.column("failures"))
    op.bulk_insert(breakers, [{"name": "e2b", "state": "closed", "failures": 0}])
    gates = sa.table(
        "sandbox_gates",
        sa.column("backend"),
        sa.column("installation"),
        sa.column("tokens", sa.Float()),
        sa.column("refilled_at", sa.DateTime(timezone=True)),
    )
    row = {"backend": "e2b", "installation": str(uuid.uuid4()), "tokens": 1.0, "refilled_at": datetime.now(UTC)}
    op.bulk_insert(gates, [row])


def downgrade(engine_name: str) -> None:
    if engine_name == "nova":
        for table in ("sandbox_sessions", "sandbox_gates", "circuit_breakers"):
            op.drop_table(table)
