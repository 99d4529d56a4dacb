"""Mails that were claimed in the ledger and never stored: who had them died, or they failed and are tried again.

The search alone would not find all of them again: an old mail that somebody read meanwhile is no candidate any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from nova_pipelines.database.mail_events import record_event
from nova_pipelines.database.nova import Message
from nova_pipelines.database.types import utc_now
from nova_pipelines.nodes.services import Services

#: before a mail is tried a second time, doubling with each attempt; others are read meanwhile
FIRST_REST = timedelta(seconds=10)
#: a claim that is younger may be of somebody who is reading the mail right now
IN_HAND = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Unfinished:
    """UIDs of claimed mails: those to try again now, and those that rest after a failure."""

    again: frozenset[int]
    resting: frozenset[int]


def rest(attempts: int) -> timedelta:
    """How long a mail is left alone after so many attempts (1, 2, …)."""
    return FIRST_REST * 2 ** min(max(attempts, 1) - 1, 20)


def unfinished(
    session: Session, credential_id: int, folder: str, uidvalidity: int, *, now: datetime | None = None
) -> Unfinished:
    """The claimed and not stored mails of a folder."""
    moment = now or utc_now()
    rows = session.scalars(_seen(credential_id, folder).where(Message.uidvalidity == uidvalidity)).all()
    # without an attempt: released by a person, who waits for it
    resting = {row.uid for row in rows if row.attempts and row.updated_at + rest(row.attempts) > moment}
    return Unfinished(frozenset(row.uid for row in rows if row.uid not in resting), frozenset(resting))


def mark_gone(services: Services, credential_id: int, folder: str, uidvalidity: int, uid: int) -> None:
    """A claimed mail is not on the server any more: somebody removed it before it was read."""
    with services.databases.nova.session() as session:
        query = _seen(credential_id, folder).where(Message.uidvalidity == uidvalidity, Message.uid == uid)
        row = session.scalar(query.with_for_update())
        if row is not None and row.created_at < utc_now() - IN_HAND:
            _gone(session, row, "it was removed from the folder before it could be read")


def leave_old_folder(session: Session, credential_id: int, folder: str, uidvalidity: int) -> None:
    """After everything of a folder that was made anew was read: what is left of claims under older UIDVALIDITYs.

    A mail that came in again under its new UID is a duplicate; one that did not was removed with the old folder.
    """
    for row in session.scalars(_seen(credential_id, folder).where(Message.uidvalidity != uidvalidity)):
        twin = session.scalars(
            select(Message.id)
            .where(
                Message.credential_id == credential_id,
                Message.message_id == row.message_id,
                Message.sender == row.sender,
                Message.status.in_(["stored", "assigned", "duplicate"]),
            )
            .order_by(Message.id)
            .limit(1)
        ).first()
        if twin is not None:
            row.status, row.duplicate_of, row.error = "duplicate", twin, None
        else:
            _gone(session, row, "its folder was made anew, and it is not in the new one")


def _gone(session: Session, row: Message, reason: str) -> None:
    row.status, row.error = "gone", reason
    record_event(session, row.credential_id, "mail_gone", folder=row.folder, detail={"message": row.id, "why": reason})


def _seen(credential_id: int, folder: str) -> Select[Message]:
    return select(Message).where(
        Message.credential_id == credential_id, Message.folder == folder, Message.status == "seen"
    )
