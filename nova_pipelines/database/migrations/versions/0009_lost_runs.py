"""How many runs an execution has lost: it is asked for again, and not for ever."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade(engine_name: str) -> None:
    if engine_name == "nova":
        op.add_column("executions", sa.Column("lost_runs", sa.Integer(), server_default="0", nullable=False))


def downgrade(engine_name: str) -> None:
    if engine_name == "nova":
        op.drop_column("executions", "lost_runs")
