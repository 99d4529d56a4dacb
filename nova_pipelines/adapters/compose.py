"""A mail that NOVA writes, from plain values to headers: threads, names and addresses right, and no header injected.

Knows neither how it is handed in (smtp.py) nor why it is written.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from email import policy
from email.headerregistry import Address, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from nova_pipelines.adapters.mail_headers import clean_line, clean_text
from nova_pipelines.domain.errors import PermanentError

#: in X-Loop of all our mails: a mail that comes back with it is not answered
LOOP_MARK = "nova-pipelines"
#: our own Message-IDs, whichever installation made them
OWN_ID = re.compile(r"<nova\.\d{1,12}\.[0-9a-f]{16}@[^<>\s]+>")
#: an id that can stand in a header as it is: ASCII, one word, no line too long for a server
MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,250}>")
_ADDRESS = re.compile(r"[^\s<>@\x00-\x1f\x7f]+@[^\s<>@\x00-\x1f\x7f]+")
#: of a long thread the first ids and the last ones stay (RFC 5537 3.4.4 does the same)
MAX_THREAD = 20


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`answer`: to a mail that came in (whose id is `in_reply_to`), else a mail of its own."""

    sender: str
    sender_name: str
    recipient: str
    recipient_name: str
    subject: str
    body: str
    message_id: str
    date: datetime
    answer: bool
    in_reply_to: str | None = None
    thread: tuple[str, ...] = ()


class _Ids(UnstructuredHeader):
    """A header of Message-IDs, one a line. The stdlib takes a long id for a text and encodes it (`=?utf-8?q?…`), and
    no mail program finds the thread then."""

    def fold(self, *, policy: Any) -> str:
        ids = str(self).split()
        return f"{getattr(self, 'name')}: " + f"{policy.linesep} ".join(ids) + policy.linesep  # noqa: B009


_HEADERS: Any = HeaderRegistry()  # its annotations know no header classes but its own
for _name in ("in-reply-to", "references"):
    _HEADERS.map_to_type(_name, _Ids)
_POLICY = policy.SMTP.clone(header_factory=_HEADERS)


def own_message_id(execution_id: int, node_id: str, sender: str) -> str:
    """Deterministic: the same work can be recognised by the receiving side too."""
    digest = hashlib.sha256(f"{execution_id}\x00{node_id}".encode()).hexdigest()[:16]
    domain = wire_address(sender).rpartition("@")[2]
    return f"<nova.{execution_id}.{digest}@{domain if domain.isascii() and domain else 'localhost'}>"


def wire_address(address: str) -> str:
    """The address with its domain in ASCII (IDNA), so that only a local part beyond ASCII needs SMTPUTF8."""
    local, at, domain = address.rpartition("@")
    if domain.isascii() or len(domain) > 253:
        return address
    try:
        return f"{local}{at}{domain.encode('idna').decode('ascii')}"
    except UnicodeError:
        return address  # the server says what it thinks of it


def bounded_thread(ids: list[str]) -> tuple[str, ...]:
    """The ids that can be sent, each once, in order: of many the first one and the last ones."""
    found = [one for one in dict.fromkeys(ids) if MESSAGE_ID.fullmatch(one)]
    return tuple(found if len(found) <= MAX_THREAD else [found[0], *found[1 - MAX_THREAD :]])


def compose(mail: Outgoing) -> EmailMessage:
    """The mail as a message. Raises PermanentError for an address that cannot stand in a header."""
    message = EmailMessage(policy=_POLICY)
    message["From"] = _address(mail.sender_name, mail.sender)
    message["To"] = _address(mail.recipient_name, mail.recipient)
    message["Subject"] = clean_line(mail.subject, 250)
    message["Message-ID"] = mail.message_id
    message["Date"] = format_datetime(mail.date)
    # RFC 3834 5: other machines must not answer this; the second is what Exchange looks at
    message["Auto-Submitted"] = "auto-replied" if mail.answer else "auto-generated"
    message["X-Auto-Response-Suppress"] = "All"
    message["X-Loop"] = LOOP_MARK
    if mail.in_reply_to and MESSAGE_ID.fullmatch(mail.in_reply_to):
        message["In-Reply-To"] = mail.in_reply_to
    if thread := bounded_thread(list(mail.thread)):
        message["References"] = " ".join(thread)
    message.set_content(clean_text(mail.body))
    return message


def check_address(address: str) -> None:
    """Raises PermanentError for what is no address, or could end a command or a header."""
    if not _ADDRESS.fullmatch(address):
        raise PermanentError(
            f"{clean_line(address, 100)!r} is no mail address", remedy="check the addresses of sender and recipients"
        )


def _address(name: str, address: str) -> Address:
    check_address(address)
    local, _, domain = wire_address(address).rpartition("@")
    # not as addr_spec: the stdlib refuses a local part beyond ASCII there
    return Address(display_name=clean_line(name, 100), username=local, domain=domain)
