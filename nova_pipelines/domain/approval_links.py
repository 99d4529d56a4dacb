"""Signed links by which a mail lets its reader decide: what they say, and whether they are ours.

A link names one question, one answer, whom it was sent to and until when it is good; HMAC-SHA256 covers all of it.
That it works once is the business of `database.approvals`. The text of a link is a secret: it stands in no error.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast

from nova_pipelines.domain.errors import Expired, PermanentError

#: what the key of links is derived for
PURPOSE = "nova approval links 1"
#: longer than any link of ours
MAX_TOKEN = 2_000
Answer = Literal["approved", "rejected"]


@dataclass(frozen=True, slots=True)
class Link:
    """`nonce`: of the round of the question; `address`: whom it was sent to, and so who decides by it."""

    approval_id: int
    answer: Answer
    expires_at: datetime
    nonce: str
    address: str


def sign(key: bytes, link: Link) -> str:
    """The token of a link: letters, digits, `-`, `_` and one dot."""
    fields = [link.approval_id, link.answer, int(link.expires_at.timestamp()), link.nonce, link.address]
    payload = _text(json.dumps(fields, separators=(",", ":")).encode())
    return f"{payload}.{_text(_mac(key, payload))}"


def read(keys: Sequence[bytes], token: str, *, now: datetime | None = None) -> Link:
    """The link that one of `keys` signed. Raises PermanentError for any other text, Expired after its time."""
    payload, dot, mac = token.strip().partition(".")
    given = _bytes(mac) if dot and len(token) <= MAX_TOKEN else None
    if given is None or not any(hmac.compare_digest(_mac(key, payload), given) for key in keys):
        raise PermanentError(
            "this is no link of this installation, or it was cut off", remedy="open the link in the mail again"
        )
    # signed by us, so it is what `sign` has put there
    fields = cast("list[Any]", json.loads(_bytes(payload) or b"[]"))
    link = Link(fields[0], fields[1], datetime.fromtimestamp(fields[2], UTC), fields[3], fields[4])
    if (now or datetime.now(UTC)) >= link.expires_at:
        raise Expired(
            f"this link was good until {link.expires_at:%Y-%m-%d %H:%M} UTC", remedy="decide in the pages of NOVA"
        )
    return link


def _mac(key: bytes, payload: str) -> bytes:
    return hmac.new(key, payload.encode(), hashlib.sha256).digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes | None:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
