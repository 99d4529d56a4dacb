"""Whether a mail is one that the ledger knows already, at another place: another folder, label or UIDVALIDITY.

A mail is the same if the author wrote the same (adapters/mail_identity.py) or the provider says so. A Message-ID
alone decides nothing: a sender's program may repeat it, and each of its invoices counts.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session, aliased

from nova_pipelines.adapters.imap import FolderState, MailHeader
from nova_pipelines.database.mail_events import record_event
from nova_pipelines.database.nova import MailFolder, Message

#: rows in which nothing was read, or that only point to another
_NO_ORIGINAL = ("seen", "duplicate", "quarantined", "gone")


def new_folder(session: Session, credential_id: int, folder: str, state: FolderState) -> MailFolder:
    """The row of a folder that is seen for the first time under this UIDVALIDITY.

    "New" begins at UIDNEXT of the first scan. If the server made the folder anew, everything in it is looked at
    again, known mails are recognised, and a person can read when that was.
    """
    earlier = session.scalars(
        select(MailFolder.uidvalidity)
        .where(MailFolder.credential_id == credential_id, MailFolder.folder == folder)
        .order_by(MailFolder.id.desc())
    ).all()
    if earlier:
        known = select(func.count()).where(Message.credential_id == credential_id, Message.folder == folder)
        detail = {"old": earlier[0], "new": state.uidvalidity, "known_mails": session.scalar(known)}
        record_event(session, credential_id, "uidvalidity_changed", folder=folder, detail=detail)
    row = MailFolder(
        credential_id=credential_id,
        folder=folder,
        uidvalidity=state.uidvalidity,
        first_uid=1 if earlier else state.uidnext,
    )
    session.add(row)
    return row


def known_by_header(session: Session, message: Message, header: MailHeader) -> int | None:
    """The number of the mail that a new row repeats, as far as its header tells: so it is not downloaded again.

    By the provider's identity; or, in a folder that was made anew, by Message-ID, sender, subject, date and size
    together, and each old mail only once.
    """
    if header.provider_id:
        same = _originals(message).where(Message.provider_id == header.provider_id)
        found = session.scalars(same).first()
        if found is not None:
            return found
    if not header.message_id or header.sent_at is None:
        return None
    again = aliased(Message)
    taken = select(again.duplicate_of).where(
        again.credential_id == message.credential_id,
        again.folder == message.folder,
        again.uidvalidity == message.uidvalidity,
        again.duplicate_of.is_not(None),
    )
    return session.scalars(
        _originals(message).where(
            Message.folder == message.folder,
            Message.uidvalidity != message.uidvalidity,
            Message.message_id == header.message_id,
            Message.sender == header.sender,
            Message.subject == header.subject,
            Message.sent_at == header.sent_at,
            Message.size == header.size,
            Message.id.not_in(taken),
        )
    ).first()


def known_by_content(session: Session, message: Message) -> int | None:
    """The number of the mail that a stored one repeats: the same bytes, or the same as far as its author wrote it.

    Rows from before fingerprints were kept are compared by Message-ID and sender, as was done then.
    """
    same: ColumnElement[bool] = (Message.sha256 == message.sha256) | (Message.fingerprint == message.fingerprint)
    if message.message_id:
        same |= (
            Message.fingerprint.is_(None)
            & (Message.message_id == message.message_id)
            & (Message.sender == message.sender)
        )
    return session.scalars(_originals(message).where(same)).first()


def _originals(message: Message) -> Select[int]:
    return (
        select(Message.id)
        .where(
            Message.credential_id == message.credential_id,
            Message.id != message.id,
            Message.status.not_in(_NO_ORIGINAL),
        )
        .order_by(Message.id)
        .limit(1)
    )
