"""What happened to a mailbox that a person may ask about later: its folder was made anew, a flag was refused.

Owns the table `mailbox_events` and how a row gets in. It is a log for people: no code decides by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ForeignKey, Index, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import utc_now


class MailboxEvent(NovaBase):
    """One event. `kind` is a short word such as `uidvalidity_changed`; `detail` holds no secret."""

    __tablename__ = "mailbox_events"
    __table_args__ = (Index("ix_mailbox_events_credential_id_at", "credential_id", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    credential_id: Mapped[int] = mapped_column(ForeignKey("credentials.id", ondelete="CASCADE"))
    #: None: it concerns the whole mailbox
    folder: Mapped[str | None] = mapped_column(String(255))
    at: Mapped[datetime] = mapped_column(default=utc_now)
    kind: Mapped[str] = mapped_column(String(40))
    detail: Mapped[dict[str, Any]] = mapped_column(default=dict)


def record_event(
    session: Session,
    credential_id: int,
    kind: str,
    *,
    folder: str | None = None,
    detail: Mapping[str, Any] | None = None,
    not_again_within: timedelta | None = None,
) -> bool:
    """Adds an event to the transaction of `session`. `detail` is plain JSON.

    `not_again_within`: the same event (kind, folder, detail) is not repeated within that time, so that what is
    tried every few seconds does not fill the table. False if it was left out for that.
    """
    known = dict(detail or {})
    if not_again_within is not None:
        query = (
            select(MailboxEvent.detail)
            .where(
                MailboxEvent.credential_id == credential_id,
                MailboxEvent.at > utc_now() - not_again_within,
                MailboxEvent.kind == kind,
                MailboxEvent.folder == folder,
            )
            .order_by(MailboxEvent.id.desc())
            .limit(50)
        )
        if any(earlier == known for earlier in session.scalars(query)):
            return False
    session.add(MailboxEvent(credential_id=credential_id, kind=kind, folder=folder, detail=known))
    return True
