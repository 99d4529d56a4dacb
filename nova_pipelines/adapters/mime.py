"""A raw mail as plain values: who, when, what it says, and its attachments, however they were wrapped.

The mail is hostile input: time, depth and number of parts are bounded, every string is valid UTF-8 without
control characters. Knows nothing of IMAP and opens no attachment.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from email import errors, policy
from email.generator import BytesGenerator
from email.message import Message
from email.parser import BytesParser
from io import BytesIO

from nova_pipelines.adapters.mail_headers import (
    address_values,
    clean_line,
    clean_text,
    date_value,
    decode_bytes,
    decode_words,
    message_id_value,
    raw_value,
    text_value,
)
from nova_pipelines.domain.errors import PermanentError

MAX_BODY_BYTES = 100 * 1024
MAX_PARTS = 200
MAX_FORWARDS = 10
MAX_FILENAME = 200
MAX_HEADERS = 2000
#: a Content-Type longer than this would cost the stdlib quadratic time
MAX_PARAMETER_BYTES = 8 * 1024
#: lines × boundaries: the stdlib compares each line with each open boundary, about 8 million in a second
MAX_PARSER_WORK = 20_000_000

_LONG_HEADER = re.compile(
    rb"(?:^|[\r\n])content-(?:type|disposition)[ \t]*:((?:[^\r\n]+|(?:\r\n|\r|\n)[ \t])*+)", re.IGNORECASE
)
_MEDIA_TYPE = re.compile(r"[\w.+-]{1,50}/[\w.+-]{1,49}", re.ASCII)
_HTML_TOKEN = re.compile(r"<(/?[a-zA-Z!][a-zA-Z0-9]*)[^<>]*>?|[^<]+|<")
_BREAKING = {"br", "p", "div", "tr", "li", "table", "h1", "h2", "h3", "h4", "blockquote"}
#: what the stdlib's parser and parameter decoding were seen to raise on hostile input
_PARSER_FAULTS = (errors.MessageError, ValueError, LookupError, TypeError, AttributeError)


@dataclass(frozen=True, slots=True)
class Attachment:
    """`media_type` is what the mail claims, `is_pdf` what the content says (its magic number)."""

    filename: str
    media_type: str
    content: bytes = field(repr=False)
    is_pdf: bool


@dataclass(frozen=True, slots=True)
class ParsedMail:
    """`sender`, `recipients` (To and Cc) and `reply_to` are bare addresses; a sender that is missing or not
    clearly one address is empty. `text` is the plain body, or that of the HTML, at most 100 KB of UTF-8."""

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

    @property
    def pdfs(self) -> tuple[Attachment, ...]:
        return tuple(attachment for attachment in self.attachments if attachment.is_pdf)


def parse_mail(raw: bytes) -> ParsedMail:
    """Takes a mail apart. Bad headers and charsets are cleaned, never raised.

    Raises PermanentError when the mail is built to be expensive: more than 200 parts, more than 10 mails
    inside one another, headers or nesting out of all proportion.
    """
    message = _parse(raw)
    parts = list(_leaves(message))  # first: it refuses what is too big
    senders = address_values(message, "From")
    reply_to = address_values(message, "Reply-To", limit=1)
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
        text=_body([part for part in parts if part.is_body and not part.is_pdf and part.depth == 0]),
        attachments=tuple(part.attachment() for part in parts if part.is_pdf or not part.is_body),
        is_auto_reply=_is_automatic(message, senders[0].address if senders else ""),
    )


def is_pdf(content: bytes) -> bool:
    """PDF 32000-1, note 13 of annex H: a reader accepts the header within the first 1024 bytes."""
    return b"%PDF-" in content[:1024]


# -- the tree of parts -------------------------------------------------------------------------------------


class _Leaf:
    """A part without parts. `is_body`: text that a mail program shows as the mail itself."""

    def __init__(self, part: Message, depth: int) -> None:
        self.part = part
        self.depth = depth
        self.filename = _filename(part)
        self.media_type = _media_type(part)
        self.content = _content(part)
        disposition = (raw_value(part, "Content-Disposition") or "").strip().lower()
        plain_text = self.media_type in ("text/plain", "text/html")
        self.is_body = plain_text and not self.filename and not disposition.startswith("attachment")
        # in a body that speaks of PDF the magic may stand anywhere
        self.is_pdf = self.content.lstrip().startswith(b"%PDF-") if self.is_body else is_pdf(self.content)

    def attachment(self) -> Attachment:
        default = "document.pdf" if self.is_pdf else "attachment.bin"
        return Attachment(self.filename or default, self.media_type, self.content, self.is_pdf)


def _parse(raw: bytes) -> Message:
    lines = raw.count(b"\n") + raw.count(b"\r")
    boundaries = len(re.findall(rb"boundary", raw, re.IGNORECASE))
    if lines * (boundaries + 1) > MAX_PARSER_WORK:
        raise PermanentError(
            f"the mail is too complicated to be read: {lines} lines with up to {boundaries} nested parts",
            remedy="look at the mail in the mailbox",
        )
    for header in _LONG_HEADER.finditer(raw):
        if len(header.group(1)) > MAX_PARAMETER_BYTES:
            raise PermanentError(
                f"the mail has a Content-Type or Content-Disposition of {len(header.group(1))} bytes",
                remedy="look at the mail in the mailbox",
            )
    try:
        return BytesParser(policy=policy.compat32).parsebytes(raw)
    except RecursionError as error:
        raise PermanentError(
            "the parts of the mail are nested too deep", remedy="look at the mail in the mailbox"
        ) from error
    except _PARSER_FAULTS as error:
        raise PermanentError(
            f"the mail cannot be taken apart: {type(error).__name__}", remedy="look at the mail in the mailbox"
        ) from error


def _leaves(root: Message) -> Iterator[_Leaf]:
    """All leaves in their order; mails inside the mail are entered, also encoded ones and .eml files."""
    waiting = [(root, 0)]
    count = 0
    while waiting:
        part, depth = waiting.pop()
        count += 1
        if count > MAX_PARTS or depth > MAX_FORWARDS or len(part) > MAX_HEADERS:
            raise PermanentError(
                f"the mail has more than {MAX_PARTS} parts, {MAX_FORWARDS} mails inside one another "
                f"or {MAX_HEADERS} headers in a part",
                remedy="look at the mail in the mailbox",
            )
        kind = part.get_content_maintype()
        if kind == "message" and part.is_multipart():
            waiting.extend((inner, depth + 1) for inner in reversed(_messages(part)))
        elif part.is_multipart():
            waiting.extend((inner, depth) for inner in reversed(_children(part)))
        else:
            leaf = _Leaf(part, depth)
            if leaf.filename.lower().endswith(".eml"):
                waiting.append((_parse(leaf.content), depth + 1))
            yield leaf


def _children(part: Message) -> list[Message]:
    payload = part.get_payload()
    return [child for child in payload if isinstance(child, Message)] if isinstance(payload, list) else []


def _messages(part: Message) -> list[Message]:
    """The mails in a message/* part. RFC 2046 5.2.1 forbids to encode them; some programs do it anyway, and
    the stdlib then sees only text."""
    if _transfer_encoding(part) not in ("base64", "quoted-printable"):
        return _children(part)
    flat = BytesIO()
    for child in _children(part):
        BytesGenerator(flat, mangle_from_=False, maxheaderlen=0).flatten(child)
    wrapper = Message()
    wrapper["Content-Transfer-Encoding"] = _transfer_encoding(part)
    wrapper.set_payload(flat.getvalue().decode("ascii", "surrogateescape"))
    return [_parse(_content(wrapper))]


def _transfer_encoding(part: Message) -> str:
    """The bare word: the stdlib does not decode `base64 ` or `base64;`."""
    found = re.match(r"[\w-]+", (raw_value(part, "Content-Transfer-Encoding") or "").strip())
    return found.group().lower() if found else ""


def _content(part: Message) -> bytes:
    encoding = _transfer_encoding(part)
    del part["Content-Transfer-Encoding"]
    part["Content-Transfer-Encoding"] = encoding
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _media_type(part: Message) -> str:
    claimed = part.get_content_type().lower()
    return claimed if _MEDIA_TYPE.fullmatch(claimed) else "application/octet-stream"


# -- file names --------------------------------------------------------------------------------------------


def _filename(part: Message) -> str:
    """The safe file name of a part, RFC 2231 or (against the standards, but usual) RFC 2047; maybe empty."""
    for header in ("Content-Disposition", "Content-Type"):
        value = raw_value(part, header)
        if value is not None:  # with bytes beyond ASCII decoded: the stdlib would make U+FFFD of them
            part.replace_header(header, value)
    try:
        name = part.get_filename()
    except _PARSER_FAULTS:
        return ""
    return safe_filename(decode_words(name)) if name else ""


def safe_filename(name: str) -> str:
    """A bare file name for any system: no folders, no control or direction characters, at most 200
    characters with its ending kept. Empty when nothing is left."""
    bare = clean_line(name, 4096).replace("\\", "/").rsplit("/", 1)[-1]
    bare = re.sub("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", "", bare)
    bare = re.sub(r'[<>:"|?*]', "_", bare).strip(" .")
    if len(bare) <= MAX_FILENAME:
        return bare
    stem, dot, ending = bare.rpartition(".")
    if not dot or len(ending) > 10:
        return bare[:MAX_FILENAME]
    return stem[: MAX_FILENAME - len(ending) - 1] + dot + ending


# -- the body ----------------------------------------------------------------------------------------------


def _body(parts: list[_Leaf]) -> str:
    plain = [part for part in parts if part.media_type == "text/plain"]
    chosen = plain or parts
    texts = (_text(part) for part in chosen)
    whole = "\n".join(text for text in texts if text)
    return whole.encode()[:MAX_BODY_BYTES].decode("utf-8", "ignore")


def _text(part: _Leaf) -> str:
    try:
        charset = part.part.get_content_charset()
    except _PARSER_FAULTS:
        charset = None
    room = MAX_BODY_BYTES * (10 if part.media_type == "text/html" else 4)
    text = clean_text(decode_bytes(part.content[:room], charset))
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


def _is_automatic(message: Message, sender: str) -> bool:
    """Whether the mail was sent by a machine and must not be answered by one (RFC 3834, sections 2 and 5)."""
    submitted = text_value(message, "Auto-Submitted").lower()
    precedence = text_value(message, "Precedence").lower()
    local_part = sender.partition("@")[0].lower()
    return (
        (bool(submitted) and re.match(r"no\b", submitted) is None)
        or precedence in ("bulk", "junk", "list", "auto_reply")
        or (raw_value(message, "Return-Path") or "").strip() == "<>"
        or any(message.get(name) is not None for name in ("List-Id", "X-Autoreply", "X-Autorespond"))
        or re.search(r"\b(?:all|oof|autoreply)\b", text_value(message, "X-Auto-Response-Suppress").lower()) is not None
        or message.get_content_type() == "multipart/report"
        or local_part in ("mailer-daemon", "postmaster")
    )
