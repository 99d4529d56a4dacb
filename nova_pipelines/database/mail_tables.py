"""Tables of mail that goes out, of what a person decided about it, and of the logins that are renewed for it.

Only tables stand here; queries live in `outbox` and `tokens`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now


class OutboxMail(NovaBase):
    """A mail that a node decided to send. The row exists before anything is sent."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("execution_id", "node_id"),
        Index("ix_outbox_status", "status"),
        # the rate limit counts what one address was answered lately
        Index("ix_outbox_recipient_key_begun_at", "recipient_key", "begun_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    execution_id: Mapped[int] = mapped_column(ForeignKey("executions.id"))
    node_id: Mapped[str] = mapped_column(String(200))
    #: deterministic, from (execution, node)
    message_id: Mapped[str] = mapped_column(String(255), unique=True)
    sender: Mapped[str] = mapped_column(Text)
    sender_name: Mapped[str | None] = mapped_column(Text)
    recipient: Mapped[str] = mapped_column(Text)
    recipient_name: Mapped[str | None] = mapped_column(Text)
    #: of an answer: the recipient's address as it is counted; None where nobody is answered
    recipient_key: Mapped[str | None] = mapped_column(String(320))
    subject: Mapped[str] = mapped_column(Text)
    body: Mapped[str] = mapped_column(Text)
    in_reply_to: Mapped[str | None] = mapped_column(Text)
    #: Message-IDs of the thread, oldest first, with blanks between
    thread: Mapped[str | None] = mapped_column(Text)
    #: pending → sending → sent | failed | unknown (a crash hides what happened) | held (too many to this address);
    #: dropped: a person said that it is not to be sent
    status: Mapped[str] = mapped_column(String(10), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    #: the first try since it was new or a person asked for it: from here on counts how long it is tried
    tried_since: Mapped[datetime | None]
    #: the last time that it was begun to be sent
    begun_at: Mapped[datetime | None]
    #: pending: not before this time
    next_try_at: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    decisions: Mapped[list[OutboxDecision]] = relationship(back_populates="mail", order_by="OutboxDecision.id")


class OutboxDecision(NovaBase):
    """What a person said about a mail: `sent`, `resend` or `drop`, who, when and why. Never changed."""

    __tablename__ = "outbox_decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    mail_id: Mapped[int] = mapped_column(ForeignKey("outbox.id"), index=True)
    decision: Mapped[str] = mapped_column(String(10))
    #: the mail's status before
    status_before: Mapped[str] = mapped_column(String(10))
    decided_by: Mapped[str] = mapped_column(String(200))
    note: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime] = mapped_column(default=utc_now)

    mail: Mapped[OutboxMail] = relationship(back_populates="decisions")


class TokenLease(NovaBase):
    """Who renews the access token of a credential now, and until when at most: that process may have died."""

    __tablename__ = "token_leases"

    credential_id: Mapped[int] = mapped_column(ForeignKey("credentials.id", ondelete="CASCADE"), primary_key=True)
    holder: Mapped[str] = mapped_column(String(36))
    until: Mapped[datetime]
