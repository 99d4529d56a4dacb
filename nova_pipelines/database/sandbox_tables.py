"""Tables by which all processes share what they know of the cloud sandbox: its breaker, its limits, its sessions.

Only tables stand here; queries live in `breaker` and `sandboxes`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Float, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now


class BreakerRow(NovaBase):
    """One circuit breaker: closed → open (too many failures in a row) → half_open (one trial) → closed or open."""

    __tablename__ = "circuit_breakers"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    state: Mapped[str] = mapped_column(String(10), default="closed")
    #: in a row, until a success
    failures: Mapped[int] = mapped_column(default=0)
    opened_at: Mapped[datetime | None]
    #: who holds the one trial of half_open, and until when at most: that process may have died
    trial: Mapped[str | None] = mapped_column(String(36))
    trial_until: Mapped[datetime | None]


class SandboxGate(NovaBase):
    """One row for each backend that has limits: the token bucket of its creates, and who this installation is."""

    __tablename__ = "sandbox_gates"

    backend: Mapped[str] = mapped_column(String(20), primary_key=True)
    #: stands in the metadata of every sandbox: an account may serve several installations
    installation: Mapped[str] = mapped_column(String(36))
    tokens: Mapped[float] = mapped_column(Float)
    refilled_at: Mapped[datetime]


class SandboxRow(NovaBase):
    """One sandbox, from before it is asked for until it is certain to be gone: a place under the ceiling, and what
    the reaper goes by."""

    __tablename__ = "sandbox_sessions"
    __table_args__ = (Index("ix_sandbox_sessions_ended_at_alive_until", "ended_at", "alive_until"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    backend: Mapped[str] = mapped_column(String(20))
    #: stands in the sandbox's metadata, so that it is found without its id
    mark: Mapped[str] = mapped_column(String(36), unique=True)
    sandbox_id: Mapped[str | None] = mapped_column(String(100))
    run_id: Mapped[str | None] = mapped_column(String(36))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    #: its life ends by itself then, unless it is extended
    alive_until: Mapped[datetime]
    #: nobody works in it any more
    released_at: Mapped[datetime | None]
    #: it is certain to be gone
    ended_at: Mapped[datetime | None]
