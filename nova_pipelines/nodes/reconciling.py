"""Mails that were claimed in the ledger and never stored: who had them died, or they failed and are tried again.

The search alone would not find all of them again: an old mail that somebody read meanwhile is no candidate any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.adapters.imap import Mailbox, MailHeader
from nova_pipelines.database.mail_events import record_event
from nova_pipelines.database.mailboxes import error_kind
from nova_pipelines.database.nova import Credential, Message
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import TransientError
from nova_pipelines.nodes.services import Services

#: a mail that failed this often on its way into the store is set aside and blocks none after it
MAX_ATTEMPTS = 5
#: before a mail is tried a second time, doubling with each attempt; others are read meanwhile
FIRST_REST = timedelta(seconds=10)
#: a claim that is younger may be of somebody who is reading the mail right now
IN_HAND = timedelta(minutes=10)


class Folder(NamedTuple):
    """A folder of a mailbox as long as its UIDs mean the same mails. The names are those of the tables' columns."""

    credential_id: int
    folder: str
    uidvalidity: int


@dataclass(frozen=True, slots=True)
class Unfinished:
    """UIDs of claimed mails: those to try again now, and those that rest after a failure."""

    again: frozenset[int]
    resting: frozenset[int]


def rest(attempts: int) -> timedelta:
    """How long a mail is left alone after so many attempts (1, 2, …)."""
    return FIRST_REST * 2 ** min(max(attempts, 1) - 1, 20)


def unfinished(session: Session, place: Folder, *, now: datetime | None = None) -> Unfinished:
    """The claimed and not stored mails of a folder."""
    moment = now or utc_now()
    rows = session.execute(_UNFINISHED, place._asdict()).all()
    # without an attempt: released by a person, who waits for it
    resting = {uid for uid, attempts, changed_at in rows if attempts and changed_at + rest(attempts) > moment}
    return Unfinished(frozenset(row.uid for row in rows if row.uid not in resting), frozenset(resting))


# built once: to build a statement costs several times what to run it does
_UNFINISHED = select(Message.uid, Message.attempts, Message.updated_at).where(
    Message.status == "seen", *(getattr(Message, name) == bindparam(name) for name in Folder._fields)
)


def known_uids(session: Session, place: Folder, uids: Sequence[int], known: Collection[int] = ()) -> set[int]:
    """Of these UIDs (ascending) those that the ledger is done with, beyond those of which that is `known`. A mail that
    was claimed and never stored is none of them."""
    asked = [uid for uid in uids if uid not in known]
    if not asked:
        return set()
    query = select(Message.uid).filter_by(**place._asdict())
    query = query.where(Message.uid.between(asked[0], asked[-1]), Message.status != "seen")
    return set(session.scalars(query)).intersection(asked)


def read_headers(
    services: Services, mailbox: Mailbox, place: Folder, uids: Sequence[int], claimed: Collection[int]
) -> Iterator[tuple[int, MailHeader | None]]:
    """The headers of these mails: new ones in bulk, then each of the `claimed` ones for itself. None: it vanished.

    A server may hang up over one mail that it cannot read, and so over every question that concerns it. Then all are
    claimed, so that each is asked for alone next time: that one fails by itself and blocks none. Raises TransientError.
    """
    fresh = [uid for uid in uids if uid not in claimed]
    try:
        headers = mailbox.headers(fresh)
    except TransientError:
        claim(services, place, fresh)
        raise
    yield from ((uid, headers.get(uid)) for uid in fresh)
    for uid in uids:
        if uid in claimed:
            try:
                header = mailbox.headers([uid]).get(uid)
            except TransientError as error:
                with services.databases.nova.session() as session:
                    row = session.scalar(_seen(place).where(_at(place, uid)).with_for_update())
                    if row is not None:
                        row.attempts += 1
                        note_failure(row, error)
                raise
            yield uid, header


def claim(services: Services, place: Folder, uids: Sequence[int]) -> None:
    """Rows for mails of which nothing is known yet but where they lie. Those that have one keep it."""
    with services.databases.nova.session() as session:
        there = select(Message.uid).filter_by(**place._asdict())
        client_id = session.get_one(Credential, place.credential_id).client_id
        for uid in sorted(set(uids) - set(session.scalars(there))):
            row = Message(**place._asdict(), uid=uid, client_id=client_id, attempts=0)
            with suppress(IntegrityError), session.begin_nested():  # another scan of this mailbox was faster
                session.add(row)


def note_failure(row: Message, error: TransientError) -> bool:
    """Writes an attempt that failed into a mail's row. True: it was the last one, and the mail is set aside.

    What this installation itself is to blame for (a full disk) is no attempt.
    """
    row.error = str(error)
    if error_kind(error) == "nova":
        row.attempts -= 1
    elif row.attempts >= MAX_ATTEMPTS:
        row.status = "quarantined"
    return row.status == "quarantined"


def mark_gone(services: Services, place: Folder, uid: int) -> None:
    """A mail is not on the server any more: if it was claimed, somebody removed it before it was read."""
    with services.databases.nova.session() as session:
        row = session.scalar(_seen(place).where(_at(place, uid)).with_for_update())
        if row is not None and row.created_at < utc_now() - IN_HAND:
            _gone(session, row, "it was removed from the folder before it could be read")


def leave_old_folder(session: Session, place: Folder) -> None:
    """After everything of a folder that was made anew was read: what is left of claims under older UIDVALIDITYs.

    A mail that came in again under its new UID is a duplicate; one that did not was removed with the old folder.
    """
    for row in session.scalars(_seen(place).where(Message.uidvalidity != place.uidvalidity)):
        twin = session.scalars(
            select(Message.id)
            .where(
                Message.credential_id == place.credential_id,
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


def _at(place: Folder, uid: int) -> ColumnElement[bool]:
    return (Message.uidvalidity == place.uidvalidity) & (Message.uid == uid)


def _seen(place: Folder) -> Select[Message]:
    """Claimed mails of the folder, under any UIDVALIDITY."""
    return select(Message).filter_by(credential_id=place.credential_id, folder=place.folder, status="seen")
