"""The table of requests that were answered under an Idempotency-Key. Queries live in `idempotency`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now

#: indexes of executions: a listing is "the newest of …", so each filter is followed by the number
LISTINGS = (
    ("status", "id"),
    ("workflow_id", "id"),
    ("workflow_id", "status", "id"),
    ("client_id", "id"),
    ("client_id", "status", "id"),
)


class IdempotencyKey(NovaBase):
    """One request that began an execution. Written in the transaction that makes the execution: both, or neither."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        UniqueConstraint("principal", "key"),
        Index("ix_idempotency_keys_created_at", "created_at"),
        Index("ix_idempotency_keys_execution_id", "execution_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    #: who asked: the same key of somebody else is another one
    principal: Mapped[str] = mapped_column(String(200))
    key: Mapped[str] = mapped_column(String(255))
    #: of what was asked for, as canonical JSON
    request_sha256: Mapped[str] = mapped_column(String(64))
    execution_id: Mapped[int] = mapped_column(ForeignKey("executions.id", ondelete="CASCADE"))
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
