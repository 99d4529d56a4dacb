"""What is known of a folder and of a mail before the mail is read, taken from a server's answers.

Knows FETCH responses and headers, and nothing of connections.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime

from imap_tools.imap_utf7 import utf7_decode

from nova_pipelines.adapters.imap_fetch import SIZE, Fetched
from nova_pipelines.adapters.mail_headers import (
    address_values,
    clean_line,
    date_value,
    message_id_value,
    parse_headers,
    text_value,
)

#: of each mail at most so many bytes of headers are read
HEADER_BYTES = 32 * 1024
HEADER_ITEMS = f"UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID FROM SUBJECT DATE)]<0.{HEADER_BYTES}>"
#: Gmail's own: https://developers.google.com/workspace/gmail/imap/imap-extensions
GMAIL_CAPABILITY = "X-GM-EXT-1"
GMAIL_ITEMS = "X-GM-MSGID X-GM-LABELS"

_GMAIL_ID = re.compile(rb"\bX-GM-MSGID (\d{1,20})\b")
_GMAIL_LABELS = re.compile(rb'\bX-GM-LABELS \(((?:"(?:[^"\\]|\\.)*+"|[^()"])*+)\)')
_LABEL = re.compile(rb'"((?:[^"\\]|\\.)*+)"|([^\s"]+)')
_MAX_LABELS = 100


@dataclass(frozen=True, slots=True)
class FolderState:
    """`uidvalidity` changes when the folder was made anew: then old UIDs mean nothing. `uidnext`: the next
    mail gets this UID or a higher one. `keywords`: the lower-case flags that can be kept for ever; any other
    keyword can too if `keywords_allowed`."""

    uidvalidity: int
    uidnext: int
    read_only: bool
    keywords_allowed: bool
    keywords: frozenset[str] = frozenset()

    def keeps(self, keyword: str) -> bool:
        return self.keywords_allowed or keyword.lower() in self.keywords


@dataclass(frozen=True, slots=True)
class MailHeader:
    """What is known of a mail before it is read. `size` in bytes; `sent_at` in UTC; `sender` bare or empty.

    `provider_id`: the provider's stable identity of the mail (Gmail: one mail has several places, one for each
    label); `labels`: Gmail's.
    """

    uid: int
    message_id: str | None
    sender: str
    subject: str
    sent_at: datetime | None
    size: int
    provider_id: str | None = None
    labels: tuple[str, ...] = ()
    #: when the server took it in (INTERNALDATE), in UTC
    received_at: datetime | None = None


def read_header(uid: int, mail: Fetched) -> MailHeader:
    headers = parse_headers(mail.body or b"")
    senders = address_values(headers, "From", limit=1)
    gmail_id = _GMAIL_ID.search(mail.text)
    return MailHeader(
        uid=uid,
        message_id=message_id_value(headers),
        sender=senders[0].address if senders else "",
        subject=text_value(headers, "Subject"),
        sent_at=date_value(headers),
        size=mail.number(SIZE) or 0,
        provider_id=f"gmail:{gmail_id.group(1).decode()}" if gmail_id else None,
        labels=_labels(mail.text),
        received_at=mail.internal_date(),
    )


def _labels(text: bytes) -> tuple[str, ...]:
    """Gmail's labels as words: `\\Inbox`, or a user's own, which come in the UTF-7 of folder names."""
    found = _GMAIL_LABELS.search(text)
    labels: list[str] = []
    for match in _LABEL.finditer(found.group(1)) if found else ():
        raw = re.sub(rb"\\(.)", rb"\1", match.group(1)) if match.group(1) is not None else match.group(2)
        label = raw.decode("utf-8", "replace")
        if raw.isascii():
            with contextlib.suppress(ValueError):  # not in that UTF-7: shown as it came
                label = utf7_decode(raw)
        labels.append(clean_line(label, 255))
    return tuple(labels[:_MAX_LABELS])
