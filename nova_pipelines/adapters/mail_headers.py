"""Headers of a hostile mail as clean values: text, addresses, dates, message ids.

The stdlib's header classes raise, recurse or are slow on hostile input, and its address parser can be led to
a false sender; so the few rules that are needed are written here, each linear in time and without exceptions.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import quopri
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import policy
from email.message import Message
from email.parser import BytesParser
from email.utils import parsedate_to_datetime

#: RFC 5322 2.1.1, the longest line; also the width of the ledger's message_id column
MAX_TEXT = 998
#: more of a header is not looked at
MAX_HEADER = 64 * 1024

#: text codecs of Python that are no charsets of mails; some of them take quadratic time
_NO_CHARSETS = {"idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"}

_ENCODED_WORD = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]{0,40})?\?([bBqQ])\?([^?]*)\?=")
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,996}>")
_ADDRESS = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@[\w-]+(?:\.[\w-]+)*")
# an unclosed quotation runs to the end: looking for its end again from every quote would be quadratic
_TOKEN = re.compile(
    r'(?P<quoted>"(?:[^"\\]|\\.)*+"?)|(?P<comment>\([^()]*\))|<(?P<angle>[^<>]*)>'
    r'|(?P<comma>[,;:])|(?P<text>[^"(<,;:]+|.)',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Address:
    """A mailbox of an address header: `address` is bare (`a@b.example`), `name` decoded, maybe empty."""

    name: str
    address: str


def parse_headers(raw: bytes) -> Message:
    """The headers of a mail (whatever follows them is not parsed)."""
    return BytesParser(policy=policy.compat32).parsebytes(raw, headersonly=True)


def raw_value(message: Message, name: str) -> str | None:
    """The first header of that name, unfolded, with bytes beyond ASCII read as UTF-8 or else Windows-1252.

    Encoded words (RFC 2047) are left: in address headers they must be decoded after the structure is known.
    """
    wanted = name.lower()
    for key, value in message.raw_items():
        if key.lower() == wanted:
            data = str(value)[:MAX_HEADER].encode("utf-8", "surrogateescape")
            return re.sub(r"[\r\n]+[ \t]*", " ", decode_bytes(data, None))
    return None


def text_value(message: Message, name: str) -> str:
    """A header as one clean line of at most 998 characters; empty if missing."""
    return clean_line(decode_words(raw_value(message, name) or ""))


def message_id_value(message: Message, name: str = "Message-ID") -> str | None:
    """The first `<id>` of a header; without brackets the whole value; None if missing or empty."""
    value = clean_line(raw_value(message, name) or "")
    found = _MESSAGE_ID.search(value)
    return found.group() if found else (value or None)


def date_value(message: Message) -> datetime | None:
    """The Date header in UTC (a date without a zone is taken as UTC); None if missing or not a date."""
    value = raw_value(message, "Date")
    if not value:
        return None
    try:
        date = parsedate_to_datetime(value[:MAX_TEXT])
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def address_values(message: Message, name: str, *, limit: int = 100) -> tuple[Address, ...]:
    """The mailboxes of an address header that have a valid address, at most `limit`."""
    value = raw_value(message, name) or ""
    found: list[Address] = []
    for mailbox in _mailboxes(value):
        if mailbox and len(found) < limit:
            found.append(mailbox)
    if not found:  # broken quoting: an address is only taken when there is no doubt which one is meant
        angles = {match.group(1) for match in re.finditer(rf"<\s*({_ADDRESS.pattern})\s*>", value)}
        found = [Address("", angle) for angle in angles] if len(angles) == 1 else []
    return tuple(found)


def _mailboxes(value: str) -> Iterator[Address | None]:
    words: list[str] = []
    comments: list[str] = []
    angles: list[str] = []
    for token in _TOKEN.finditer(value + ","):
        kind, text = token.lastgroup, token.group()
        if kind == "comma":
            yield _mailbox(words, comments, angles)
            words, comments, angles = [], [], []
        elif kind == "angle":
            angles.append(token.group("angle"))
        elif kind == "comment":
            comments.append(text[1:-1])
        elif kind == "quoted":
            words.append(re.sub(r"\\(.)", r"\1", text.strip('"'), flags=re.DOTALL))
        else:
            words.append(text)
    if words or angles:  # only after an unclosed quotation, which swallowed the last comma
        yield _mailbox(words, comments, angles)


def _mailbox(words: list[str], comments: list[str], angles: list[str]) -> Address | None:
    """None unless there is exactly one address: of two it could be either that a whitelist means."""
    text = "".join(words).strip()
    if len(angles) == 1:
        address, name = angles[0].strip(), text or " ".join(comments)
    elif not angles:
        address, name = text, " ".join(comments)
    else:
        return None
    if not _ADDRESS.fullmatch(address):
        return None
    return Address(clean_line(decode_words(name), 200), address)


def decode_words(text: str) -> str:
    """Replaces encoded words (RFC 2047) by what they mean; a malformed one stays as it is."""
    parts: list[str] = []
    pending, pending_charset, end = b"", "", 0
    for word in _ENCODED_WORD.finditer(text):
        charset, encoding, payload = word.groups()
        between = text[end : word.start()]
        data = _word_bytes(encoding, payload)
        # a character may be split between two neighbouring words, so bytes of one charset are joined first
        joins = bool(pending) and not between.strip() and charset.lower() == pending_charset
        if not joins:
            parts.append(decode_bytes(pending, pending_charset))
            parts.append("" if pending and not between.strip() else between)
            pending = b""
        pending += data if data is not None else word.group().encode("utf-8", "replace")
        pending_charset, end = charset.lower(), word.end()
    parts.append(decode_bytes(pending, pending_charset))
    return "".join(parts) + text[end:]


def _word_bytes(encoding: str, payload: str) -> bytes | None:
    data = payload.encode("ascii", "replace")
    if encoding in "qQ":
        return quopri.decodestring(data, header=True)
    try:
        return base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    except binascii.Error:
        return None


def decode_bytes(data: bytes, charset: str | None) -> str:
    """Bytes as text, whatever they are: by the charset if it is one, else UTF-8, else Windows-1252.

    What cannot be decoded is replaced by U+FFFD, so this never raises.
    """
    try:
        codec = codecs.lookup(charset or "utf-8").name
        if codec not in {*_NO_CHARSETS, "ascii"}:
            return data.decode(codec, "strict" if codec == "utf-8" else "replace")
        return data.decode("utf-8")
    except (LookupError, ValueError):  # an unknown charset, one with a NUL in its name, not UTF-8
        return data.decode("cp1252", "replace")


def clean_line(text: str, limit: int = MAX_TEXT) -> str:
    """One line of valid UTF-8 without control characters, at most `limit` characters."""
    spaced = re.sub(r"\s+", " ", text[: limit * 4])
    visible = "".join(c for c in spaced if unicodedata.category(c) not in ("Cc", "Cs"))
    return re.sub(r" {2,}", " ", visible)[:limit].strip()


def clean_text(text: str) -> str:
    """Several lines of valid UTF-8; of control characters only newline and tab stay."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "", lines)
