"""What sandboxes cost stands in the chain of work; an execution can be put off, and says which node began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ADDED = {
    "executions": (
        sa.Column("waits_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("put_off_by", sa.String(length=36), nullable=True),
        sa.Column("begun_node", sa.String(length=200), nullable=True),
    ),
    "chain_of_work": (
        sa.Column("sandbox_seconds", sa.Float(), nullable=True),
        sa.Column("cost_nano_usd", sa.BigInteger(), nullable=True),
    ),
}


def upgrade(engine_name: str) -> None:
    if engine_name == "nova":
        for table, columns in ADDED.items():
            for column in columns:
                op.add_column(table, column.copy())


def downgrade(engine_name: str) -> None:
    if engine_name == "nova":
        for table, columns in reversed(ADDED.items()):
            for column in reversed(columns):
                op.drop_column(table, column.name)
