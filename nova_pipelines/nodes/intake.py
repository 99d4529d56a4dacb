"""Mail intake: from a mailbox to the ledger, the document store and executions.

Used by the node `mail_fetch` (one mail by hand), by the start of a run (all waiting mails) and by the
mailbox sensor. The ledger's unique place of a mail is the claim; `\\Seen` on the server never is.
Order: ledger row → raw mail in the store → documents → executions committed → run → done → flagged.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.adapters.imap import Mailbox, MailHeader
from nova_pipelines.adapters.mime import ParsedMail, parse_mail
from nova_pipelines.database.mailboxes import record_failure, record_success
from nova_pipelines.database.nova import (
    Credential,
    MailFolder,
    Message,
    MessageDocument,
)
from nova_pipelines.domain.errors import NovaError, PermanentError, TransientError
from nova_pipelines.nodes.reconciling import leave_old_folder, mark_gone, note_failure, read_headers, unfinished
from nova_pipelines.nodes.services import Services, mailbox_config


@dataclass(slots=True)
class ScanReport:
    """What one scan of a mailbox did."""

    new: int = 0
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    #: mails that the search saw and that are not in the ledger yet
    waiting: int = 0
    complete: bool = True
    errors: list[str] = field(default_factory=list)


def scan_mailbox(
    services: Services,
    credential_id: int,
    folder: str,
    *,
    mailbox: Mailbox | None = None,
    limit: int = 200,
    deadline: float | None = None,
) -> ScanReport:
    """Brings new mails of one folder into ledger and store, oldest first.

    At most `limit` mails, and none begun after `deadline` (time.monotonic). `mailbox`: an open connection to
    this credential's mailbox, which stays open; None: one is opened and closed. Raises TransientError or
    CredentialError when the mailbox cannot be read; the mailbox's health is recorded either way.
    """
    report = ScanReport()
    try:
        with _open(services, credential_id) if mailbox is None else nullcontext(mailbox) as opened:
            _scan(services, opened, credential_id, folder, limit, deadline, report)
    except NovaError as error:
        _record_health(services, credential_id, folder, error)
        raise
    _record_health(services, credential_id, folder, None, waiting=report.waiting)
    return report


def _open(services: Services, credential_id: int) -> Mailbox:
    with services.databases.nova.read() as session:
        return Mailbox(mailbox_config(session.get_one(Credential, credential_id), services.box()))


def _scan(
    services: Services,
    mailbox: Mailbox,
    credential_id: int,
    folder: str,
    limit: int,
    deadline: float | None,
    report: ScanReport,
) -> None:
    state = mailbox.select(folder)
    with services.databases.nova.session() as session:
        first_uid = _first_uid(session, credential_id, folder, state.uidvalidity, state.uidnext)
        known = set(
            session.scalars(
                select(Message.uid).where(
                    Message.credential_id == credential_id,
                    Message.folder == folder,
                    Message.uidvalidity == state.uidvalidity,
                    Message.status != "seen",
                )
            )
        )
        claimed = unfinished(session, credential_id, folder, state.uidvalidity)
    found = {*mailbox.candidates(first_uid), *claimed.again}
    waiting = sorted(found - known - claimed.resting)
    report.complete, report.waiting = len(waiting) <= limit, len(waiting)
    place = (credential_id, folder, state.uidvalidity)
    for uid, header in read_headers(services, mailbox, place, waiting[:limit], claimed.again):
        if deadline is not None and time.monotonic() > deadline:
            report.complete = False
            return
        report.waiting -= 1
        if header is None:  # it vanished: somebody moved or deleted it
            mark_gone(services, place, uid)
        else:
            take_in(services, mailbox, credential_id, folder, state.uidvalidity, header, report)
    if report.complete:
        with services.databases.nova.session() as session:
            leave_old_folder(session, credential_id, folder, state.uidvalidity)


def take_in(
    services: Services,
    mailbox: Mailbox,
    credential_id: int,
    folder: str,
    uidvalidity: int,
    header: MailHeader,
    report: ScanReport,
) -> None:
    """Brings one mail of the open folder into ledger and store. Raises TransientError; what a mail is to blame for
    stands in its row."""
    message_id = _ledger_row(services, credential_id, folder, uidvalidity, header, report)
    _store(services, mailbox, message_id, header.uid, report)


def _first_uid(session: Session, credential_id: int, folder: str, uidvalidity: int, uidnext: int) -> int:
    """Where "new" begins: UIDNEXT of the first scan. After UIDVALIDITY changed: everything is looked at
    again and known mails are recognised by Message-ID and hash."""
    rows = session.scalars(
        select(MailFolder).where(MailFolder.credential_id == credential_id, MailFolder.folder == folder)
    ).all()
    for row in rows:
        if row.uidvalidity == uidvalidity:
            return row.first_uid
    first_uid = 1 if rows else uidnext
    session.add(MailFolder(credential_id=credential_id, folder=folder, uidvalidity=uidvalidity, first_uid=first_uid))
    return first_uid


def _ledger_row(
    services: Services,
    credential_id: int,
    folder: str,
    uidvalidity: int,
    header: MailHeader,
    report: ScanReport,
) -> int:
    place = {
        "credential_id": credential_id,
        "folder": folder,
        "uidvalidity": uidvalidity,
        "uid": header.uid,
    }
    with services.databases.nova.session() as session:
        message = session.scalars(select(Message).filter_by(**place)).first()
        if message is None:
            client_id = session.get_one(Credential, credential_id).client_id
            message = Message(
                **place,
                client_id=client_id,
                message_id=header.message_id,
                sender=header.sender,
                subject=header.subject,
                sent_at=header.sent_at,
                size=header.size,
                received_at=header.received_at,
            )
            try:
                with session.begin_nested():
                    session.add(message)
                report.new += 1
            except IntegrityError:  # another scan of this mailbox was faster
                message = session.scalars(select(Message).filter_by(**place)).one()
        message.attempts += 1
        if message.size is None:  # claimed before anything of it was known
            message.message_id, message.sender, message.subject = header.message_id, header.sender, header.subject
            message.sent_at, message.size, message.received_at = header.sent_at, header.size, header.received_at
        return message.id


def _store(services: Services, mailbox: Mailbox, message_id: int, uid: int, report: ScanReport) -> None:
    """Downloads a mail and its documents into the store. One bad mail never stops those after it."""
    try:
        raw = mailbox.fetch_raw(uid, max_bytes=services.max_mail_bytes)
        if raw is None:
            return
        mail = parse_mail(raw)
        digest = services.store.put(raw)
        documents = [(a, services.store.put(a.content)) for a in mail.attachments]
    except PermanentError as error:
        _quarantine(services, message_id, str(error))
        report.quarantined += 1
        report.errors.append(str(error))
        return
    except TransientError as error:
        report.errors.append(str(error))
        report.quarantined += _too_often(services, message_id, error)
        raise  # the line may be broken, and the next mail is not to blame for that
    with services.databases.nova.session() as session:
        message = session.get_one(Message, message_id, with_for_update=True)
        if message.status != "seen":
            return  # another scan of this mailbox was faster
        _fill(message, mail, digest)
        twin = _twin(session, message)
        if twin is not None:
            message.status, message.duplicate_of = "duplicate", twin
            report.duplicates += 1
            return
        message.status, message.error = "stored", None
        for ordinal, (attachment, sha256) in enumerate(documents):
            session.add(
                MessageDocument(
                    message_id=message.id,
                    ordinal=ordinal,
                    filename=attachment.filename,
                    media_type=attachment.media_type[:100],
                    sha256=sha256,
                    size=len(attachment.content),
                    is_pdf=attachment.is_pdf,
                )
            )
        report.stored += 1


def _fill(message: Message, mail: ParsedMail, digest: str) -> None:
    message.sha256 = digest
    message.message_id = mail.message_id or message.message_id
    message.sender = mail.sender
    message.subject = mail.subject
    message.sent_at = mail.sent_at
    message.mail = mail_fields(mail)


def mail_fields(mail: ParsedMail) -> dict[str, object]:
    """What a context gets of a mail: plain JSON, no bytes. Parsed once, on its way into the ledger."""
    return {
        "from": mail.sender,
        "name": mail.sender_name,
        "reply_to": mail.reply_to,
        "subject": mail.subject,
        "date": mail.sent_at.isoformat() if mail.sent_at else None,
        "message_id": mail.message_id,
        "text": mail.text,
        "automatic": mail.is_auto_reply,
    }


def _twin(session: Session, message: Message) -> int | None:
    """The same mail seen before in this mailbox: the same bytes, or the same Message-ID and sender."""
    same = Message.sha256 == message.sha256
    if message.message_id:
        same |= (Message.message_id == message.message_id) & (Message.sender == message.sender)
    return session.scalars(
        select(Message.id)
        .where(
            Message.credential_id == message.credential_id,
            Message.id != message.id,
            Message.status.not_in(["seen", "duplicate", "quarantined"]),
            same,
        )
        .order_by(Message.id)
        .limit(1)
    ).first()


def _quarantine(services: Services, message_id: int, error: str) -> None:
    with services.databases.nova.session() as session:
        message = session.get_one(Message, message_id)
        message.status, message.error = "quarantined", error


def _too_often(services: Services, message_id: int, error: TransientError) -> bool:
    with services.databases.nova.session() as session:
        return note_failure(session.get_one(Message, message_id), error)


def _record_health(
    services: Services, credential_id: int, folder: str, error: NovaError | None, *, waiting: int = 0
) -> None:
    with services.databases.nova.session() as session:
        if error is None:
            record_success(session, credential_id, folder, waiting=waiting)
        else:
            record_failure(session, credential_id, folder, error)
