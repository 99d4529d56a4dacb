"""FETCH responses, taken apart by their structure and not by their place (RFC 3501, 7.4.2).

Knows imaplib's way of handing them over and nothing of mailboxes.
"""

from __future__ import annotations

import imaplib
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

_RECORD_START = re.compile(rb"\d+ \(")
UID = re.compile(rb"\bUID (\d+)")
SIZE = re.compile(rb"\bRFC822\.SIZE (\d+)")
FLAGS = re.compile(rb"\bFLAGS \(([^)]*)\)")
_LITERAL = re.compile(rb" ?\{\d+\}$")
_SHORT_BODY = re.compile(rb'\bBODY\[[^\]]*\](?:<\d+>)? "((?:[^"\\]|\\.)*)"', re.DOTALL)


@dataclass(slots=True)
class Fetched:
    """One FETCH response. `body` is None if the response carries none, being an unsolicited one (trap 4), or
    if it is NIL: so Dovecot says, with size 0, that the mail vanished and the session was not told yet."""

    text: bytes = b""
    body: bytes | None = field(default=None, repr=False)

    def internal_date(self) -> datetime | None:
        """INTERNALDATE in UTC; None where the response holds none that can be."""
        parsed = imaplib.Internaldate2tuple(self.text)  # in local time
        try:
            return datetime.fromtimestamp(time.mktime(parsed), UTC) if parsed else None
        except (ValueError, OverflowError):
            return None

    def number(self, pattern: re.Pattern[bytes]) -> int | None:
        found = pattern.search(self.text)
        return int(found.group(1)) if found else None


def records(data: Sequence[Any]) -> Iterator[Fetched]:
    """imaplib's FETCH data as one record for each response: it gives bytes, or (bytes, literal) and the rest
    as bytes, so that pairing them blindly goes wrong with the first unsolicited response (trap 4)."""
    record: Fetched | None = None
    for part in data:
        if part is None:
            continue
        text = part[0] if isinstance(part, tuple) else part
        if _RECORD_START.match(text):
            if record:
                yield _finished(record)
            record = Fetched()
        if record:
            record.text += text
            if isinstance(part, tuple):
                _take_literal(record, part[1])
    if record:
        yield _finished(record)


def _take_literal(record: Fetched, literal: bytes) -> None:
    """A literal after `BODY[…]` or `BODY[…]<0>` is the body; any other is text, such as one of Gmail's labels."""
    before = _LITERAL.sub(b"", record.text)
    if before.endswith((b"]", b">")):
        record.body = literal
    else:
        record.text = before + b' "' + re.sub(rb'(["\\])', rb"\\\1", literal) + b'"'


def _finished(record: Fetched) -> Fetched:
    short = _SHORT_BODY.search(record.text) if record.body is None else None
    if short:  # a server may send a short body as a quoted string
        record.body = re.sub(rb"\\(.)", rb"\1", short.group(1), flags=re.DOTALL)
        record.text = record.text.replace(short.group(), b"")
    return record
