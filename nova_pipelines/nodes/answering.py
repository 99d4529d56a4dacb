"""The mail that is answered: who gets the answer, in which thread, and whether anybody may be answered at all.

Addresses come from the context, as the workflow sees them; everything else from the mail's own headers.
"""

from __future__ import annotations

from dataclasses import dataclass
from email.message import Message as Headers
from typing import Any

from sqlalchemy import select

from nova_pipelines.adapters.answerable import HEADER_BYTES, automatic_reason, thread_of, unanswerable
from nova_pipelines.adapters.compose import MESSAGE_ID, wire_address
from nova_pipelines.adapters.mail_headers import parse_headers
from nova_pipelines.database.nova import Credential, Execution, Message
from nova_pipelines.nodes.base import Item
from nova_pipelines.nodes.services import Services


@dataclass(frozen=True, slots=True)
class Answered:
    """`refusal`: why this mail is not answered, or None. `recipient` may be empty: there is nobody."""

    recipient: str
    name: str
    in_reply_to: str | None
    thread: tuple[str, ...]
    refusal: str | None


def answered_mail(item: Item, services: Services) -> Answered:
    """The mail of an item as one to be answered; Reply-To goes before From. Raises as the document store does."""
    email = item.context.get("email")
    fields: dict[str, Any] = email if isinstance(email, dict) else {}
    sender, reply_to = _text(fields.get("from")), _text(fields.get("reply_to"))
    recipient = reply_to or sender
    headers = _headers(item.execution_id, services)
    return Answered(
        recipient=recipient,
        # the name belongs to From: another address is not called so
        name=_text(fields.get("name")) if recipient == sender else "",
        in_reply_to=_message_id(fields),
        thread=thread_of(headers) if headers is not None else (),
        refusal=_refusal(fields, headers, sender, recipient, services) if fields else None,
    )


def address_key(address: str) -> str:
    """An address as it is compared and counted: mail programs write it in many ways."""
    return wire_address(address.strip()).lower()[:320]


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _message_id(fields: dict[str, Any]) -> str | None:
    found = _text(fields.get("message_id"))
    return found if MESSAGE_ID.fullmatch(found) else None


def _headers(execution_id: int, services: Services) -> Headers | None:
    """The headers of the mail as it came in; None for an execution without a mail."""
    query = select(Message.sha256).join(Execution, Execution.message_id == Message.id)
    with services.databases.nova.read() as session:
        sha256 = session.scalar(query.where(Execution.id == execution_id))
    return parse_headers(services.store.get(sha256)[:HEADER_BYTES]) if sha256 else None


def _refusal(
    fields: dict[str, Any], headers: Headers | None, sender: str, recipient: str, services: Services
) -> str | None:
    if headers is not None and (reason := automatic_reason(headers)):
        return reason
    if headers is not None and not sender:
        return "the sender is empty (<>)"
    if recipient and (reason := unanswerable(recipient)):
        return reason
    if fields.get("automatic"):
        return "a machine sent it"
    own = {address_key(address) for address in (sender, recipient) if address} & own_addresses(services)
    return f"{min(own)} is a mailbox of this installation" if own else None


def own_addresses(services: Services) -> set[str]:
    """Every address under which a mailbox of NOVA may be written to, of active clients or not."""
    found: set[str] = set()
    with services.databases.nova.read() as session:
        for settings in session.scalars(select(Credential.settings).where(Credential.kind == "email")):
            found.update(str(settings[name]) for name in ("address", "user") if settings.get(name))
    return {address_key(address) for address in found if "@" in address}
