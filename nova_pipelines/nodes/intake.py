"""Mail intake: from a mailbox to the ledger, the document store and executions.

Used by the node `mail_fetch` (one mail by hand), by the start of a run (all waiting mails) and by the
mailbox sensor. The ledger's unique place of a mail is the claim; `\\Seen` on the server never is.
Order: ledger row → raw mail in the store → documents → executions committed → run → done → flagged.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.adapters.imap import FolderState, Mailbox, MailHeader
from nova_pipelines.adapters.mail_auth import Provider
from nova_pipelines.database.mailboxes import record_failure, record_success
from nova_pipelines.database.nova import Credential, MailFolder, Message, MessageDocument
from nova_pipelines.domain.errors import NovaError, PermanentError, TransientError
from nova_pipelines.nodes.mail_download import StoredMail, download, provider_of
from nova_pipelines.nodes.recognition import (
    known_by_content,
    known_by_header,
    known_by_provider,
    new_folder,
)
from nova_pipelines.nodes.reconciling import (
    Folder,
    Unfinished,
    known_uids,
    leave_old_folder,
    mark_gone,
    note_failure,
    read_headers,
    unfinished,
)
from nova_pipelines.nodes.services import Services


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
        with Mailbox(services.mailbox(credential_id)) if mailbox is None else nullcontext(mailbox) as opened:
            _scan(services, opened, credential_id, folder, limit, deadline, report)
    except NovaError as error:
        _record_health(services, credential_id, folder, error)
        raise
    _record_health(services, credential_id, folder, None, waiting=report.waiting)
    return report


def _scan(
    services: Services,
    mailbox: Mailbox,
    credential_id: int,
    folder: str,
    limit: int,
    deadline: float | None,
    report: ScanReport,
) -> None:
    state = mailbox.opened(folder)
    place = Folder(credential_id, folder, state.uidvalidity)
    first_uid, provider, anew, claimed = _begin(services, place, state)
    candidates = mailbox.candidates(first_uid)
    if not mailbox.settled.issuperset(candidates):
        with services.databases.nova.read() as session:
            mailbox.settled |= known_uids(session, place, candidates, mailbox.settled)
    waiting = sorted((set(candidates) - mailbox.settled - claimed.resting) | claimed.again)
    report.complete, report.waiting = len(waiting) <= limit, len(waiting)
    for uid, header in read_headers(services, mailbox, place, waiting[:limit], claimed.again):
        if deadline is not None and time.monotonic() > deadline:
            report.complete = False
            break
        report.waiting -= 1
        if header is None:  # it vanished: somebody moved or deleted it
            mark_gone(services, place, uid)
        else:
            take_in(services, mailbox, place, header, report, provider=provider, anew=anew)
    if report.complete and anew:
        with services.databases.nova.session() as session:
            leave_old_folder(session, place)
    _raise_mark(services, place, first_uid, candidates)


def take_in(
    services: Services,
    mailbox: Mailbox,
    place: Folder,
    header: MailHeader,
    report: ScanReport,
    *,
    provider: Provider | None,
    anew: bool,
) -> None:
    """Brings one mail of the open folder into ledger and store. `provider`: whose word on senders counts; `anew`:
    the folder was made anew. Raises TransientError; what a mail is to blame for stands in its row."""
    message_id = _ledger_row(services, place, header, report, anew)
    if message_id is not None:
        _store(services, mailbox, message_id, header, provider, report)


def _begin(services: Services, place: Folder, state: FolderState) -> tuple[int, Provider | None, bool, Unfinished]:
    """From which UID on mails count whether read or not, whose word on senders counts, whether the folder was made
    anew, and what is claimed there. All that a search asks of the ledger where nothing is new: it comes often."""
    values = place._asdict()
    with services.databases.nova.read() as session:
        settings, first_uid, validities = session.execute(_FOLDER, values).one()
        claimed = unfinished(session, place)
    if first_uid is None:
        with services.databases.nova.session() as session:
            row = session.scalars(select(MailFolder).filter_by(**values)).first()
            first_uid = (row or new_folder(session, place.credential_id, place.folder, state)).first_uid
            validities = session.scalars(_VALIDITIES, values).one()
    return first_uid, provider_of(settings), validities > 1, claimed


# built once: to build a statement costs several times what to run it does
_VALIDITIES = select(func.count(MailFolder.id)).where(
    MailFolder.credential_id == bindparam("credential_id"), MailFolder.folder == bindparam("folder")
)
_FOLDER = (
    select(Credential.settings, MailFolder.first_uid, _VALIDITIES.correlate(None).scalar_subquery())
    .outerjoin(
        MailFolder,
        (MailFolder.credential_id == Credential.id)
        & (MailFolder.folder == bindparam("folder"))
        & (MailFolder.uidvalidity == bindparam("uidvalidity")),
    )
    .where(Credential.id == bindparam("credential_id"))
)


def _raise_mark(services: Services, place: Folder, first_uid: int, candidates: Sequence[int]) -> None:
    """Lets the next scans begin behind the mails that are done with: up to the first that is not.

    One that is missing in the ledger, or was claimed and not stored, holds the mark, so that none is skipped.
    """
    recent = [uid for uid in candidates if uid >= first_uid]
    if not recent:
        return
    with services.databases.nova.read() as session:
        done = known_uids(session, place, recent)
        claimed = (
            select(func.min(Message.uid)).filter_by(**place._asdict(), status="seen").where(Message.uid >= first_uid)
        )
        unsettled = [uid for uid in (session.scalar(claimed),) if uid is not None]
    mark = min([*unsettled, *(uid for uid in recent if uid not in done), recent[-1] + 1])
    if mark > first_uid:
        with services.databases.nova.session() as session:
            session.scalars(select(MailFolder).filter_by(**place._asdict())).one().first_uid = mark


def _ledger_row(services: Services, place: Folder, header: MailHeader, report: ScanReport, anew: bool) -> int | None:
    """Claims a mail. Returns the number of its row; None if it is a known mail at another place."""
    values = place._asdict() | {"uid": header.uid}
    with services.databases.nova.session() as session:
        message = session.scalar(_AT_PLACE, values)
        if message is None:
            client_id = session.scalars(_CLIENT, {"id": place.credential_id}).one()
            message = Message(**values, client_id=client_id, attempts=1)
            _describe(message, header)
            try:
                with session.begin_nested():
                    session.add(message)
                report.new += 1
            except IntegrityError:  # another scan of this mailbox was faster
                message = session.scalars(_AT_PLACE, values).one()
                message.attempts += 1
        else:
            message.attempts += 1
        if message.size is None:  # claimed before anything of it was known
            _describe(message, header)
            session.flush()
        twin = _known_before_reading(session, message, anew) if message.status == "seen" else None
        if twin is not None:
            message.status, message.duplicate_of = "duplicate", twin
            report.duplicates += 1
            return None
        return message.id


def _describe(message: Message, header: MailHeader) -> None:
    for name in _OF_HEADER:
        setattr(message, name, getattr(header, name))


_OF_HEADER = ("message_id", "provider_id", "sender", "subject", "sent_at", "size", "received_at")
_CLIENT = select(Credential.client_id).where(Credential.id == bindparam("id"))
_AT_PLACE = select(Message).where(
    *(getattr(Message, name) == bindparam(name) for name in ("credential_id", "folder", "uidvalidity", "uid"))
)


def _known_before_reading(session: Session, message: Message, anew: bool) -> int | None:
    twin = known_by_provider(session, message)
    return known_by_header(session, message) if twin is None and anew else twin


def _store(
    services: Services,
    mailbox: Mailbox,
    message_id: int,
    header: MailHeader,
    provider: Provider | None,
    report: ScanReport,
) -> None:
    """Downloads a mail and its documents into the store. One bad mail never stops those after it."""
    try:
        stored = download(services, mailbox, header, provider)
    except PermanentError as error:
        _quarantine(services, message_id, str(error))
        report.quarantined += 1
        report.errors.append(str(error))
        return
    except TransientError as error:
        report.errors.append(str(error))
        report.quarantined += _too_often(services, message_id, error)
        raise  # the line may be broken, and the next mail is not to blame for that
    if stored is None:
        return  # it vanished
    with services.databases.nova.session() as session:
        message = session.get_one(Message, message_id, with_for_update=True)
        if message.status != "seen":
            return  # another scan of this mailbox was faster
        _fill(message, stored)
        twin = known_by_content(session, message)
        if twin is not None:
            message.status, message.duplicate_of = "duplicate", twin
            report.duplicates += 1
            return
        message.status, message.error = "stored", None
        session.add_all(
            MessageDocument(
                message_id=message.id,
                ordinal=ordinal,
                filename=file.filename,
                media_type=file.media_type,
                sha256=file.sha256,
                size=file.size,
                is_pdf=file.is_pdf,
            )
            for ordinal, file in enumerate(stored.files)
        )
        report.stored += 1


def _fill(message: Message, stored: StoredMail) -> None:
    mail = stored.parsed
    message.sha256, message.fingerprint = stored.sha256, stored.fingerprint
    message.message_id = mail.message_id or message.message_id
    message.sender = mail.sender
    message.subject = mail.subject
    message.sent_at = mail.sent_at
    message.mail = stored.fields


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
