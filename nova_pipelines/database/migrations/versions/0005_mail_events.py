"""What happened to a mailbox, and by what a mail is known again wherever it lies."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_KEYS = ("fingerprint", "provider_id")
#: every search of a folder asks for what is claimed there and not stored
_PLACE = ["status", "credential_id", "folder", "uidvalidity", "uid"]


def upgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.create_table(
        "mailbox_events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("credential_id", sa.Integer(), nullable=False),
        sa.Column("folder", sa.String(length=255), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["credential_id"],
            ["credentials.id"],
            name=op.f("fk_mailbox_events_credential_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailbox_events")),
    )
    op.create_index(op.f("ix_mailbox_events_credential_id_at"), "mailbox_events", ["credential_id", "at"])
    op.add_column("messages", sa.Column("fingerprint", sa.String(length=64), nullable=True))
    op.add_column("messages", sa.Column("provider_id", sa.String(length=40), nullable=True))
    for key in _KEYS:
        op.create_index(op.f(f"ix_messages_credential_id_{key}"), "messages", ["credential_id", key])
    op.drop_index("ix_messages_status", table_name="messages")
    op.create_index("ix_messages_status_place", "messages", _PLACE)


def downgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.drop_index("ix_messages_status_place", table_name="messages")
    op.create_index("ix_messages_status", "messages", ["status"])
    for key in _KEYS:
        op.drop_index(op.f(f"ix_messages_credential_id_{key}"), table_name="messages")
        op.drop_column("messages", key)
    op.drop_table("mailbox_events")
