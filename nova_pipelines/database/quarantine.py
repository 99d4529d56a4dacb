"""Mails that were set aside, and the two ways out: read again, or settled by a person's hand."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.database.mail_events import record_event
from nova_pipelines.database.mailbox_views import quarantined
from nova_pipelines.database.nova import Client, Message
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict, NotFound

#: the largest number that the column holds on PostgreSQL
_MAX_ID = 2**31 - 1


def list_quarantined(
    session: Session, *, client_id: int | None = None, handled: bool = False
) -> Sequence[tuple[Message, str]]:
    """The mails that were set aside, with their client's slug, oldest first; `handled`: those settled by hand too."""
    wanted = (Message.status == "quarantined") if handled else quarantined()
    query = select(Message, Client.slug).join(Client, Client.id == Message.client_id).where(wanted)
    if client_id is not None:
        query = query.where(Message.client_id == client_id)
    return [(message, slug) for message, slug in session.execute(query.order_by(Message.id))]


def find_quarantined(session: Session, number: int, *, lock: bool = False) -> tuple[Message, str]:
    """One of them with its client's slug; `lock`: to change it. Raises NotFound for a number that there is not,
    Conflict for another mail."""
    query = select(Message, Client.slug).join(Client, Client.id == Message.client_id).where(Message.id == number)
    if lock:
        query = query.with_for_update(of=Message)
    row = session.execute(query).first() if 0 < number <= _MAX_ID else None
    remedy = "`nova mailbox quarantine list` shows those that were set aside"
    if row is None:
        raise NotFound(f"there is no mail {number}", remedy=remedy)
    message, slug = row
    if message.status != "quarantined":
        raise Conflict(f"mail {number} was not set aside: it is {message.status}", remedy=remedy)
    return message, slug


def release(session: Session, number: int, *, by: str) -> Message:
    """Has a mail read again: its attempts begin anew. Raises as `find_quarantined` does."""
    message, _ = find_quarantined(session, number, lock=True)
    message.status, message.attempts, message.error = "seen", 0, None
    message.handled_at = message.handled_by = message.handled_note = None
    _event(session, message, "quarantine_released", by)
    return message


def settle(session: Session, number: int, *, by: str, note: str) -> Message:
    """Notes that a person took care of a mail: it is not read any more and counts as done.

    Raises as `find_quarantined` does, and Conflict when somebody has settled it already.
    """
    message, _ = find_quarantined(session, number, lock=True)
    if message.handled_at is not None:
        raise Conflict(
            f"mail {number} was settled by {message.handled_by} at {message.handled_at:%Y-%m-%d %H:%M} UTC",
            remedy=f"to have it read after all: nova mailbox quarantine release {number}",
        )
    message.handled_at, message.handled_by, message.handled_note = utc_now(), by[:200], note
    _event(session, message, "quarantine_settled", by, note=note)
    return message


def _event(session: Session, message: Message, kind: str, by: str, **more: str) -> None:
    detail = {"message": message.id, "uid": message.uid, "by": by, **more}
    record_event(session, message.credential_id, kind, folder=message.folder, detail=detail)
