"""A mail from its server into the document store, with all its files, a piece at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nova_pipelines.adapters.imap import Mailbox, MailHeader
from nova_pipelines.adapters.mail_auth import Provider, Verdict, verify_sender
from nova_pipelines.adapters.mail_content import Scratch
from nova_pipelines.adapters.mail_identity import fingerprint
from nova_pipelines.adapters.mime import Attachment, ParsedMail, parse_mail
from nova_pipelines.nodes.services import Services


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An attachment in the store. `size` in bytes."""

    filename: str
    media_type: str
    is_pdf: bool
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredMail:
    """A mail in the store. `fields` is what a context gets of it."""

    sha256: str
    fingerprint: str
    fields: dict[str, Any]
    parsed: ParsedMail
    files: tuple[StoredFile, ...]


def download(
    services: Services, mailbox: Mailbox, header: MailHeader, provider: Provider | None = None
) -> StoredMail | None:
    """Reads a mail of the open folder. None: it vanished.

    Raises PermanentError for a mail that is too big (nothing is read then) or built to be expensive, and
    TransientError for network and disk.
    """
    with services.store.incoming() as raw, Scratch() as scratch:
        if not mailbox.fetch(header.uid, raw.write, size=header.size, max_bytes=services.max_mail_bytes):
            return None
        mail = parse_mail(raw.file, scratch)
        identity = fingerprint(raw.file, raw.size)
        digest = services.store.keep(raw)
        files = tuple(_stored(services, attachment) for attachment in mail.attachments)
        verdict = verify_sender(mail.headers, provider) if provider else None
        return StoredMail(digest, identity, mail_fields(mail, header.labels, verdict), mail, files)


def _stored(services: Services, attachment: Attachment) -> StoredFile:
    sha256, size = services.store.put_pieces(attachment.pieces())
    return StoredFile(attachment.filename, attachment.media_type[:100], attachment.is_pdf, sha256, size)


def mail_fields(mail: ParsedMail, labels: tuple[str, ...] = (), verdict: Verdict | None = None) -> dict[str, Any]:
    """What a context gets of a mail: plain JSON, no bytes. Parsed once, on its way into the ledger.

    `verified`: whether the sender's domain was shown to be the true one; None: the mailbox has no provider whose
    results would count.
    """
    return {
        "from": mail.sender,
        "name": mail.sender_name,
        "reply_to": mail.reply_to,
        "subject": mail.subject,
        "date": mail.sent_at.isoformat() if mail.sent_at else None,
        "message_id": mail.message_id,
        "text": mail.text,
        "automatic": mail.is_auto_reply,
        "encrypted": mail.encrypted,
        "problems": list(mail.problems),
        "labels": list(labels),
        "verified": verdict.verified if verdict else None,
        "verification": verdict.reason if verdict else None,
    }


def provider_of(settings: dict[str, Any]) -> Provider | None:
    """Whose Authentication-Results count for a mailbox: its setting `authserv_id`."""
    authserv_id = str(settings.get("authserv_id") or "").strip()
    return Provider(authserv_id, int(settings.get("authserv_hops") or 0)) if authserv_id else None
