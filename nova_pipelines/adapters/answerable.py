"""Whom a machine must not answer (RFC 3834), and the thread that an answer belongs to: from the headers alone.

Pure. Which addresses are our own, and how often somebody was answered, others know.
"""

from __future__ import annotations

import re
from email.message import Message

from nova_pipelines.adapters.compose import LOOP_MARK, MESSAGE_ID, OWN_ID, bounded_thread
from nova_pipelines.adapters.mail_headers import message_id_value, raw_value, text_value

#: so many of our own answers in one thread, and no person seems to be on the other side
MAX_OWN_IN_THREAD = 3
#: bytes of a mail within which its headers are looked for
HEADER_BYTES = 256 * 1024

_LISTS = ("List-Id", "List-Post", "List-Help", "List-Owner", "List-Archive", "List-Unsubscribe", "Mailing-List")
_MACHINES = ("X-Autoreply", "X-Autorespond", "X-Autoresponder", "X-Failed-Recipients")
#: local parts that nobody reads, or that are machines; with or without a tag (`bounces+123=x`)
_NOBODY = re.compile(
    r"(?:mailer-daemon|postmaster|listserv|majordomo|bounces?|.*-bounces?|.*-request"
    r"|(?:.*[-_.])?(?:no|do[-_.]?not|dont|never|nicht|ne)[-_.]?(?:reply|respond|antworten|repondre|responder|contestar)"
    r"(?:[-_.].*)?)(?:\+.*)?",
    re.IGNORECASE,
)


def unanswerable(address: str) -> str | None:
    """Why nothing is sent to an address, or None: `<>`, a mailer daemon, a no-reply address."""
    local = address.strip().strip("<>").rpartition("@")[0]
    if not local:
        return "the sender is empty (<>)"
    return f"nobody reads {address}" if _NOBODY.fullmatch(local[:200]) else None


def automatic_reason(message: Message) -> str | None:
    """Why a mail must not be answered by a machine, or None for the mail of a person."""
    submitted = text_value(message, "Auto-Submitted").lower()
    precedence = text_value(message, "Precedence").lower()
    suppress = text_value(message, "X-Auto-Response-Suppress").lower()
    if submitted and re.match(r"no\b", submitted) is None:
        return f"a machine sent it (Auto-Submitted: {submitted[:40]})"
    if precedence in ("bulk", "junk", "list", "auto_reply"):
        return f"a list or a machine sent it (Precedence: {precedence})"
    if (raw_value(message, "Return-Path") or "").strip() == "<>" or message.get_content_type() == "multipart/report":
        return "it is a bounce or a report"
    if found := [name for name in (*_LISTS, *_MACHINES) if message.get(name) is not None]:
        return f"a list or a machine sent it ({found[0]})"
    if re.search(r"\b(?:all|oof|autoreply)\b", suppress):
        return "it asks for no automatic answer (X-Auto-Response-Suppress)"
    return _loop(message)


def _loop(message: Message) -> str | None:
    if any(LOOP_MARK in str(value).lower() for value in message.get_all("X-Loop", [])[:20]):
        return "it is a mail of ours that came back (X-Loop)"
    if OWN_ID.fullmatch(message_id_value(message) or ""):
        return "it is a mail of ours that came back (Message-ID)"
    own = sum(OWN_ID.fullmatch(one) is not None for one in _references(message))
    if own >= MAX_OWN_IN_THREAD:
        return f"it was answered {own} times in this thread already: this may be a loop"
    return None


def thread_of(message: Message) -> tuple[str, ...]:
    """References for an answer: the whole chain of the mail and the mail itself (RFC 5322 3.6.4), bounded."""
    return bounded_thread([*_references(message), message_id_value(message) or ""])


def _references(message: Message) -> list[str]:
    text = raw_value(message, "References") or ""
    found = MESSAGE_ID.findall(text)
    if found:
        return found
    parents = MESSAGE_ID.findall(raw_value(message, "In-Reply-To") or "")
    return parents if len(parents) == 1 else []  # of several nobody knows which one is the parent
