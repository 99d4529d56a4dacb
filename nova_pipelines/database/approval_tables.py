"""The table of what people decide about executions. Only the table stands here; queries live in `approvals`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Float, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now


class Approval(NovaBase):
    """A question to people at one node of an execution. It is answered once: by a person, or by its deadline."""

    __tablename__ = "approvals"
    __table_args__ = (
        UniqueConstraint("execution_id", "node_id"),
        Index("ix_approvals_status_deadline_at", "status", "deadline_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    execution_id: Mapped[int] = mapped_column(ForeignKey("executions.id"))
    node_id: Mapped[str] = mapped_column(String(200))
    #: the node's label, or its id
    title: Mapped[str] = mapped_column(String(200))
    #: the least role that may decide in the pages and by the API
    role: Mapped[str] = mapped_column(String(10))
    #: pending → approved | rejected | expired
    status: Mapped[str] = mapped_column(String(10), default="pending")
    #: what the person who decides is shown of invoice, mail and document
    facts: Mapped[dict[str, Any]]
    requested_at: Mapped[datetime] = mapped_column(default=utc_now)
    deadline_at: Mapped[datetime]
    deadline_seconds: Mapped[float] = mapped_column(Float)
    #: what happens then: expired | approve | reject | fail | escalate
    on_deadline: Mapped[str] = mapped_column(String(10))
    #: when the question was passed on to others, with a deadline of the same length
    escalated_at: Mapped[datetime | None]
    #: how often it was asked: a person may retry an execution whose deadline has passed
    round: Mapped[int] = mapped_column(default=1)
    #: links of this round carry it; those of an earlier one do not fit
    link_nonce: Mapped[str] = mapped_column(String(32))
    #: why mails about it did not go out; the question can be answered all the same
    mail_problem: Mapped[str | None] = mapped_column(Text)
    decided_at: Mapped[datetime | None]
    decided_by: Mapped[str | None] = mapped_column(String(320))
    #: page | link | api | cli | deadline
    decided_via: Mapped[str | None] = mapped_column(String(10))
    note: Mapped[str | None] = mapped_column(Text)
