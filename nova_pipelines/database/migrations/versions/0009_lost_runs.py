"""How many runs an execution has lost; and what lets a look at new mail cost the same after years."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_UNFLAGGED = sa.text("flagged_at IS NULL")


def upgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.add_column("executions", sa.Column("lost_runs", sa.Integer(), server_default="0", nullable=False))
    op.add_column("workflows", sa.Column("mails_from", sa.Integer(), server_default="0", nullable=False))
    op.create_index("ix_executions_message_id", "executions", ["message_id"])
    op.create_index("ix_messages_status_id", "messages", ["status", "id"])
    op.create_index(
        "ix_messages_unflagged", "messages", ["status"], sqlite_where=_UNFLAGGED, postgresql_where=_UNFLAGGED
    )


def downgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.drop_index("ix_messages_unflagged", table_name="messages")
    op.drop_index("ix_messages_status_id", table_name="messages")
    op.drop_index("ix_executions_message_id", table_name="executions")
    op.drop_column("workflows", "mails_from")
    op.drop_column("executions", "lost_runs")
