"""The chain of work: what every node did, and the big values of its contexts.

Only tables stand here; queries live with what uses them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Float, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now


class ChainRow(NovaBase):
    """The journal: one row for each node that an execution passed. See `domain/chain.py` for the hash."""

    __tablename__ = "chain_of_work"
    __table_args__ = (
        UniqueConstraint("execution_id", "seq"),
        Index(
            "uq_chain_of_work_success",
            "execution_id",
            "node_id",
            unique=True,
            sqlite_where=text("status = 'success'"),
            postgresql_where=text("status = 'success'"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    execution_id: Mapped[int] = mapped_column(ForeignKey("executions.id"))
    seq: Mapped[int]  # 1, 2, 3 … within the execution
    node_id: Mapped[str] = mapped_column(String(200))
    node_type: Mapped[str] = mapped_column(String(50))
    code_executed: Mapped[str | None] = mapped_column(Text)
    #: contexts with values over 64 KB replaced by references into `blobs`
    input_context: Mapped[dict[str, Any]]
    output_result: Mapped[dict[str, Any] | None]
    execution_time: Mapped[float] = mapped_column(Float)  # seconds
    #: seconds of a sandbox's life that this node used or kept waiting, and what they cost by the rates in force
    #: (an estimate, in 10⁻⁹ US dollars: whole numbers add up exactly); None: it used no sandbox
    sandbox_seconds: Mapped[float | None] = mapped_column(Float)
    cost_nano_usd: Mapped[int | None] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(String(12))  # success | failed | needs_review | unknown | stopped
    error_message: Mapped[str | None] = mapped_column(Text)
    decision_result: Mapped[str | None] = mapped_column(String(200))
    path_taken: Mapped[str | None] = mapped_column(String(200))
    run_id: Mapped[str | None] = mapped_column(String(36))
    timestamp: Mapped[datetime]
    prev_hash: Mapped[str] = mapped_column(String(64))
    hash: Mapped[str] = mapped_column(String(64))


class Blob(NovaBase):
    """A big value of a context, stored once under its hash."""

    __tablename__ = "blobs"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)  # UTF-8 JSON
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
