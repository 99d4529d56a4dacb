"""What sandboxes cost stands in the chain of work; an execution can be put off, and says which node began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.add_column("executions", sa.Column("waits_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("executions", sa.Column("put_off_by", sa.String(length=36), nullable=True))
    op.add_column("executions", sa.Column("begun_node", sa.String(length=200), nullable=True))
    op.add_column("chain_of_work", sa.Column("sandbox_seconds", sa.Float(), nullable=True))
    op.add_column("chain_of_work", sa.Column("cost_nano_usd", sa.BigInteger(), nullable=True))


def downgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    for column in ("cost_nano_usd", "sandbox_seconds"):
        op.drop_column("chain_of_work", column)
    for column in ("begun_node", "put_off_by", "waits_until"):
        op.drop_column("executions", column)
