"""Mail out: threads, names, when it is tried again, what a person decided; and who renews a mailbox's login."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
COLUMNS = (
    ("sender_name", sa.Text()),
    ("recipient_name", sa.Text()),
    ("recipient_key", sa.String(length=320)),
    ("thread", sa.Text()),
    ("tried_since", MOMENT),
    ("begun_at", MOMENT),
    ("next_try_at", MOMENT),
)


def upgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    for name, kind in COLUMNS:
        op.add_column("outbox", sa.Column(name, kind, nullable=True))
    op.create_index(op.f("ix_outbox_status"), "outbox", ["status"])
    op.create_index(op.f("ix_outbox_recipient_key_begun_at"), "outbox", ["recipient_key", "begun_at"])
    op.create_table(
        "outbox_decisions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mail_id", sa.Integer(), nullable=False),
        sa.Column("decision", sa.String(length=10), nullable=False),
        sa.Column("status_before", sa.String(length=10), nullable=False),
        sa.Column("decided_by", sa.String(length=200), nullable=False),
        sa.Column("note", sa.Text(), nullable=True),
        sa.Column("decided_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(["mail_id"], ["outbox.id"], name=op.f("fk_outbox_decisions_mail_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_decisions")),
    )
    op.create_index(op.f("ix_outbox_decisions_mail_id"), "outbox_decisions", ["mail_id"])
    op.create_table(
        "token_leases",
        sa.Column("credential_id", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=36), nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["credential_id"], ["credentials.id"], name=op.f("fk_token_leases_credential_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("credential_id", name=op.f("pk_token_leases")),
    )


def downgrade(engine_name: str) -> None:
    if engine_name != "nova":
        return
    op.drop_table("token_leases")
    op.drop_table("outbox_decisions")
    # what older versions do not know waits for a person there
    op.execute("UPDATE outbox SET status = 'unknown' WHERE status IN ('held', 'dropped')")
    op.drop_index(op.f("ix_outbox_recipient_key_begun_at"), table_name="outbox")
    op.drop_index(op.f("ix_outbox_status"), table_name="outbox")
    for name, _ in reversed(COLUMNS):
        op.drop_column("outbox", name)
