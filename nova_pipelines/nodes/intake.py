"""Mail intake: from a mailbox to the ledger, the document store and executions.

Used by the node `mail_fetch` (one mail by hand), by the start of a run (all waiting mails) and by the
mailbox sensor. The ledger's unique place of a mail is the claim; `\\Seen` on the server never is.
Order: ledger row → raw mail in the store → documents → executions committed → run → done → flagged.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.adapters.imap import Mailbox, MailHeader
from nova_pipelines.adapters.mime import ParsedMail, parse_mail
from nova_pipelines.database.nova import (
    Client,
    Credential,
    Execution,
    MailFolder,
    Message,
    MessageDocument,
    Workflow,
)
from nova_pipelines.domain.errors import NovaError, PermanentError, TransientError
from nova_pipelines.nodes.services import Services, mailbox_config

#: a mail that failed this often on its way into the store is set aside and blocks none after it
MAX_ATTEMPTS = 5


@dataclass(slots=True)
class ScanReport:
    """What one scan of a mailbox did."""

    new: int = 0
    stored: int = 0
    duplicates: int = 0
    quarantined: int = 0
    complete: bool = True
    errors: list[str] = field(default_factory=list)


def scan_mailbox(
    services: Services, credential_id: int, folder: str, *, limit: int = 200, deadline: float | None = None
) -> ScanReport:
    """Brings new mails of one folder into ledger and store, oldest first.

    At most `limit` mails, and none begun after `deadline` (time.monotonic). Raises TransientError or
    CredentialError when the mailbox cannot be read; the mailbox's health is recorded either way.
    """
    with services.databases.nova.read() as session:
        credential = session.get_one(Credential, credential_id)
        config = mailbox_config(credential, services.box())
    report = ScanReport()
    try:
        with Mailbox(config) as mailbox:
            _scan(services, mailbox, credential_id, folder, limit, deadline, report)
    except NovaError as error:
        _record_health(services, credential_id, str(error))
        raise
    _record_health(services, credential_id, None)
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
    waiting = [uid for uid in mailbox.candidates(first_uid) if uid not in known]
    report.complete = len(waiting) <= limit
    waiting = waiting[:limit]
    headers = mailbox.headers(waiting)
    for uid in waiting:
        if deadline is not None and time.monotonic() > deadline:
            report.complete = False
            return
        if uid not in headers:
            continue  # it vanished: somebody moved or deleted it
        message_id = _ledger_row(services, credential_id, folder, state.uidvalidity, headers[uid], report)
        _store(services, mailbox, message_id, uid, report)


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
            )
            session.add(message)
            session.flush()
            report.new += 1
        message.attempts += 1
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
        if _too_often(services, message_id, str(error)):
            report.quarantined += 1
            return
        raise
    with services.databases.nova.session() as session:
        message = session.get_one(Message, message_id)
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


def _too_often(services: Services, message_id: int, error: str) -> bool:
    with services.databases.nova.session() as session:
        message = session.get_one(Message, message_id)
        message.error = error
        if message.attempts >= MAX_ATTEMPTS:
            message.status = "quarantined"
        return message.status == "quarantined"


def _record_health(services: Services, credential_id: int, error: str | None) -> None:
    with services.databases.nova.session() as session:
        credential = session.get_one(Credential, credential_id)
        credential.last_error = error
        if error is None:
            credential.last_success_at = datetime.now(UTC)


# ---------------------------------------------------------------- executions


def make_executions(
    services: Services,
    *,
    workflow_id: int,
    version_id: int,
    folder: str,
    client_ids: Sequence[int] | None = None,
    limit: int = 200,
) -> list[int]:
    """One pending execution for each document of the stored mails that this workflow has not had yet.

    Returns the new executions' numbers, oldest mail first. Committed before anything is asked of Dagster.
    """
    with services.databases.nova.session() as session:
        had = select(Execution.message_id).where(
            Execution.workflow_id == workflow_id, Execution.message_id.is_not(None)
        )
        since = session.get_one(Workflow, workflow_id).created_at
        query = (
            select(Message)
            .where(
                Message.folder == folder,
                # waiting for anybody, or come since this workflow exists: a new workflow does not dig up the past
                (Message.status == "stored") | ((Message.status == "assigned") & (Message.created_at >= since)),
                Message.id.not_in(had),
            )
            .order_by(Message.id)
            .limit(limit)
        )
        if client_ids is not None:
            query = query.where(Message.client_id.in_(client_ids))
        executions: list[Execution] = []
        for message in session.scalars(query):
            client = session.get_one(Client, message.client_id)
            for ordinal in units(message, client):
                executions.append(new_execution(workflow_id, version_id, client.id, {}))
                executions[-1].message_id, executions[-1].document_ordinal = message.id, ordinal
            message.status = "assigned"
        session.add_all(executions)
        session.flush()
        return [execution.id for execution in executions]


def units(message: Message, client: Client) -> list[int]:
    """The ordinals of a mail's PDFs; [-1], the mail itself, if it has none or its sender may not write."""
    if not sender_allowed(message.sender, client.sender_whitelist):
        return [-1]
    seen: set[str] = set()
    ordinals: list[int] = []
    for document in message.documents:
        if document.is_pdf and document.sha256 not in seen:
            seen.add(document.sha256)
            ordinals.append(document.ordinal)
    return ordinals or [-1]


def sender_allowed(sender: str | None, whitelist: Sequence[str]) -> bool:
    """Whether an address may write to a client: listed itself, or by its domain (`@example.com`)."""
    if not whitelist:
        return True
    address = (sender or "").strip().lower()
    domain = address.rpartition("@")[2]
    return any(
        entry.strip().lower() in (address, f"@{domain}", domain) if entry.strip() else False for entry in whitelist
    )


def new_execution(workflow_id: int, version_id: int, client_id: int | None, context: dict[str, object]) -> Execution:
    return Execution(
        task_id=str(uuid.uuid4()),
        workflow_id=workflow_id,
        version_id=version_id,
        client_id=client_id,
        initial_context=context,
    )


# ---------------------------------------------------------------- after the work


def settle_messages(
    services: Services, *, workflow_id: int, then: str, message_ids: Sequence[int] | None = None
) -> int:
    """Flags on the server what is done: mails whose executions are all completed. Returns how many.

    A mail with a failed execution, or one that waits for a person, stays as it is. What fails here is
    repeated by the next call. Raises TransientError or CredentialError when a mailbox cannot be reached.
    """
    flagged = 0
    errors: list[NovaError] = []
    for credential_id, folder, uidvalidity, messages in _done(services, workflow_id, message_ids):
        if then != "nothing":
            try:
                _flag_all(services, credential_id, folder, uidvalidity, list(messages.values()), then)
            except NovaError as error:
                errors.append(error)  # one mailbox that is down keeps no other from being flagged
                continue
        with services.databases.nova.session() as session:
            for message_id in messages:
                session.get_one(Message, message_id).flagged_at = datetime.now(UTC)
        flagged += len(messages)
    if errors:
        raise errors[0]
    return flagged


def _flag_all(
    services: Services, credential_id: int, folder: str, uidvalidity: int, uids: list[int], then: str
) -> None:
    with services.databases.nova.read() as session:
        config = mailbox_config(session.get_one(Credential, credential_id), services.box())
    with Mailbox(config) as mailbox:
        if mailbox.select(folder).uidvalidity != uidvalidity:
            return  # the folder was made anew: these UIDs now mean other mails
        for uid in uids:
            mailbox.mark_seen(uid)
            if then.startswith("move:"):
                mailbox.move(uid, then.removeprefix("move:"))


def _done(
    services: Services, workflow_id: int, message_ids: Sequence[int] | None
) -> list[tuple[int, str, int, dict[int, int]]]:
    """Mails to flag, grouped by mailbox and folder: (credential, folder, uidvalidity, {message: uid})."""
    open_or_failed = select(Execution.message_id).where(
        Execution.message_id.is_not(None), Execution.status != "completed"
    )
    any_execution = select(Execution.message_id).where(
        Execution.workflow_id == workflow_id, Execution.message_id.is_not(None)
    )
    duplicate = (Message.status == "duplicate") & Message.duplicate_of.in_(
        select(Message.id).where(Message.flagged_at.is_not(None))
    )
    done = (Message.status == "assigned") & Message.id.in_(any_execution) & Message.id.not_in(open_or_failed)
    query = select(Message).where(Message.flagged_at.is_(None), done | duplicate).order_by(Message.id)
    if message_ids is not None:
        query = query.where(Message.id.in_(message_ids))
    groups: dict[tuple[int, str, int], dict[int, int]] = {}
    with services.databases.nova.read() as session:
        for message in session.scalars(query):
            key = (message.credential_id, message.folder, message.uidvalidity)
            groups.setdefault(key, {})[message.id] = message.uid
    return [(*key, messages) for key, messages in groups.items()]
