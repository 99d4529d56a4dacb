"""A raw mail as plain values: who, when, what it says, and its attachments, however they were wrapped.

The mail is hostile input: time, memory and number of parts are bounded, every string is valid UTF-8 without
control characters. Knows nothing of IMAP.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message
from io import BytesIO
from typing import IO

from nova_pipelines.adapters.answerable import automatic_reason, unanswerable
from nova_pipelines.adapters.mail_content import Content, Scratch
from nova_pipelines.adapters.mail_headers import (
    address_values,
    clean_text,
    date_value,
    decode_bytes,
    message_id_value,
    text_value,
)
from nova_pipelines.adapters.mime_parts import Leaf, find_parts
from nova_pipelines.adapters.mime_sections import sections

MAX_BODY_BYTES = 100 * 1024

_HTML_TOKEN = re.compile(r"<(/?[a-zA-Z!][a-zA-Z0-9]*)[^<>]*>?|[^<]+|<")
_BREAKING = {"br", "p", "div", "tr", "li", "table", "h1", "h2", "h3", "h4", "blockquote"}


@dataclass(frozen=True, slots=True)
class Attachment:
    """`media_type` is what the mail claims, `is_pdf` what the content says (its magic number)."""

    filename: str
    media_type: str
    is_pdf: bool
    source: Content = field(repr=False)

    def pieces(self) -> Iterator[bytes]:
        """The bytes, decoded, a piece at a time; as long as the mail's file and scratch are open."""
        return self.source.pieces()

    @property
    def content(self) -> bytes:
        """All bytes at once: for attachments that are known to be small."""
        return b"".join(self.pieces())


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """`sender`, `recipients` (To and Cc) and `reply_to` are bare addresses; a sender that is missing or not
    clearly one address is empty. `text` is the plain body, or that of the HTML, at most 100 KB of UTF-8.

    `problems`: what in it could not be opened, in words for a person; `encrypted`: by what, if something is
    (`openpgp`, `smime`, `zip`). `headers` are those of the mail itself.
    """

    message_id: str | None
    sender: str
    sender_name: str
    recipients: tuple[str, ...]
    reply_to: str | None
    subject: str
    sent_at: datetime | None
    in_reply_to: str | None
    text: str
    attachments: tuple[Attachment, ...]
    is_auto_reply: bool
    encrypted: str | None
    problems: tuple[str, ...]
    headers: Message = field(repr=False)

    @property
    def pdfs(self) -> tuple[Attachment, ...]:
        return tuple(attachment for attachment in self.attachments if attachment.is_pdf)


def parse_mail(mail: bytes | IO[bytes], scratch: Scratch | None = None) -> ParsedMail:
    """Takes a mail apart. Bad headers and charsets are cleaned, never raised.

    Of a file only pieces are read, and what it holds is unpacked into `scratch`; both must stay open as long as
    attachments are read. Without a scratch it is unpacked in memory. Raises PermanentError when the mail is
    built to be expensive: more than 200 parts, more than 10 mails inside one another, headers out of all
    proportion.
    """
    file = BytesIO(mail) if isinstance(mail, bytes) else mail
    size = file.seek(0, 2)
    message = next(sections(file, size)).headers
    found = find_parts(file, size, scratch or Scratch(in_memory=True))
    senders = address_values(message, "From")
    reply_to = address_values(message, "Reply-To", limit=1)
    answer_to = (reply_to or senders)[0].address if reply_to or senders else ""
    recipients = (*address_values(message, "To"), *address_values(message, "Cc"))
    return ParsedMail(
        message_id=message_id_value(message),
        sender=senders[0].address if senders else "",
        sender_name=senders[0].name if senders else "",
        recipients=tuple(dict.fromkeys(recipient.address for recipient in recipients)),
        reply_to=reply_to[0].address if reply_to else None,
        subject=text_value(message, "Subject"),
        sent_at=date_value(message),
        in_reply_to=message_id_value(message, "In-Reply-To"),
        text=_body([leaf for leaf in found.leaves if leaf.is_body and not leaf.is_pdf and leaf.depth == 0]),
        attachments=tuple(_attachment(leaf) for leaf in found.leaves if leaf.is_pdf or not leaf.is_body),
        is_auto_reply=automatic_reason(message) is not None or bool(answer_to and unanswerable(answer_to)),
        encrypted=found.encrypted,
        problems=tuple(found.problems),
        headers=message,
    )


def _attachment(leaf: Leaf) -> Attachment:
    default = "document.pdf" if leaf.is_pdf else "attachment.bin"
    return Attachment(leaf.filename or default, leaf.media_type, leaf.is_pdf, leaf.content)


# -- the body ----------------------------------------------------------------------------------------------


def _body(parts: list[Leaf]) -> str:
    plain = [part for part in parts if part.media_type == "text/plain"]
    chosen = plain or parts
    texts = (_text(part) for part in chosen)
    whole = "\n".join(text for text in texts if text)
    return whole.encode()[:MAX_BODY_BYTES].decode("utf-8", "ignore")


def _text(part: Leaf) -> str:
    room = MAX_BODY_BYTES * (10 if part.media_type == "text/html" else 4)
    text = clean_text(decode_bytes(part.content.head(room), part.charset))
    return html_to_text(text) if part.media_type == "text/html" else text.strip()


def html_to_text(markup: str) -> str:
    """The visible text of HTML, roughly, in one linear pass; for a person to read, not to be shown as HTML."""
    out: list[str] = []
    hidden = ""
    for token in _HTML_TOKEN.finditer(markup):
        tag = (token.group(1) or "").lower()
        if hidden:
            hidden = "" if tag == "/" + hidden else hidden
        elif tag in ("script", "style", "head", "title"):
            hidden = tag
        elif tag:
            out.append("\n" if tag.strip("/") in _BREAKING else "")
        else:
            out.append(token.group())
    text = clean_text(html.unescape("".join(out)))
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())
