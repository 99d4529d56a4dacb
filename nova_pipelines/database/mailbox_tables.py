"""Tables of what is known of each mailbox's health, and of the alerts that came of it.

Only tables stand here; queries live in `mailboxes`, `mailbox_views` and `alerts`.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now


class MailboxState(NovaBase):
    """One folder of one mailbox, as the last attempts to search it left it. A success takes the error away."""

    __tablename__ = "mailbox_states"
    __table_args__ = (UniqueConstraint("credential_id", "folder"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    credential_id: Mapped[int] = mapped_column(ForeignKey("credentials.id", ondelete="CASCADE"))
    folder: Mapped[str] = mapped_column(String(255))
    last_success_at: Mapped[datetime | None]
    last_attempt_at: Mapped[datetime]
    #: what went wrong last: credential | certificate | network | folder | server | nova (see `mailboxes`)
    error_kind: Mapped[str | None] = mapped_column(String(12))
    error: Mapped[str | None] = mapped_column(Text)
    failing_since: Mapped[datetime | None]
    #: in a row, until a success
    failures: Mapped[int] = mapped_column(default=0)
    #: not to be tried before; None: at any time
    next_attempt_at: Mapped[datetime | None]
    #: `updated_at` of the credential that failed: with a changed one it is tried at once
    tried_with: Mapped[datetime | None]
    #: mails that the last search saw on the server and that are not in the ledger yet
    waiting: Mapped[int] = mapped_column(default=0)


class Alert(NovaBase):
    """One trouble, from its begin to its end. At most one is open for each key."""

    __tablename__ = "alerts"
    __table_args__ = (
        Index(
            "uq_alerts_open",
            "key",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    #: kind and place, such as `silent:3:INBOX`
    key: Mapped[str] = mapped_column(String(300))
    kind: Mapped[str] = mapped_column(String(20))
    client: Mapped[str] = mapped_column(String(100))
    message: Mapped[str] = mapped_column(Text)
    remedy: Mapped[str] = mapped_column(Text)
    began_at: Mapped[datetime] = mapped_column(default=utc_now)
    #: the trouble was not seen any more from then on; it is over when that has lasted
    clear_since: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    #: when its last begin or reminder was put into `alert_notices`
    noticed_at: Mapped[datetime]


class AlertNotice(NovaBase):
    """One thing to tell on one channel. The row is the claim: whoever takes it sends it."""

    __tablename__ = "alert_notices"
    __table_args__ = (
        UniqueConstraint("alert_id", "event", "number", "channel"),
        Index("ix_alert_notices_status", "status"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    alert_id: Mapped[int] = mapped_column(ForeignKey("alerts.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(10))  # begin | reminder | end
    number: Mapped[int] = mapped_column(default=0)  # of the reminder
    channel: Mapped[str] = mapped_column(String(10))  # mail | webhook
    #: pending → sent; or dropped, when what it tells is out of date
    status: Mapped[str] = mapped_column(String(10), default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    #: not before; while somebody sends it: when it counts as not sent after all
    next_attempt_at: Mapped[datetime]
    #: who sends it now
    claim: Mapped[str | None] = mapped_column(String(36))
    error: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
