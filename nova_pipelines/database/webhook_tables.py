"""Tables of webhooks: whom to tell that executions have ended, and what has to be told.

Only tables stand here. Deliveries are made by triggers of `executions` (migration 0012), in the transaction that ends
an execution, whoever ends it: none is forgotten, and none is there for an end that was rolled back.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now


class Webhook(NovaBase):
    """An address that is called when executions end."""

    __tablename__ = "webhooks"

    id: Mapped[int] = mapped_column(primary_key=True)
    #: None: executions of all clients, and of none
    client_id: Mapped[int | None] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"))
    #: scheme, host and port, for people: the whole address may hold a token
    target: Mapped[str] = mapped_column(String(300))
    #: Fernet token of a JSON object: `url`, and `key` of the signature
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    #: which ends are told: the statuses between commas, with one before and after (`,completed,failed,`)
    events: Mapped[str] = mapped_column(String(60))
    is_active: Mapped[bool] = mapped_column(default=True)
    created_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    deliveries: Mapped[list[WebhookDelivery]] = relationship(
        back_populates="webhook", cascade="all, delete-orphan", passive_deletes=True
    )


class WebhookDelivery(NovaBase):
    """One thing to tell one webhook. `number` counts the ends of the same execution (retries end again)."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        UniqueConstraint("webhook_id", "execution_id", "number"),
        Index("ix_webhook_deliveries_status_next_attempt_at", "status", "next_attempt_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    webhook_id: Mapped[int] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    #: of the test of a webhook: None
    execution_id: Mapped[int | None] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"))
    number: Mapped[int]
    #: what is told: the status that the execution came to, and its error
    event: Mapped[str] = mapped_column(String(12))
    error: Mapped[str | None] = mapped_column(Text)
    #: pending → sent | failed (given up)
    status: Mapped[str] = mapped_column(String(10), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    #: not before; while somebody sends it: when it counts as not sent after all
    next_attempt_at: Mapped[datetime]
    #: who sends it now
    claim: Mapped[str | None] = mapped_column(String(36))
    last_error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    webhook: Mapped[Webhook] = relationship(back_populates="deliveries")
