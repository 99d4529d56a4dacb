"""The kind `mail_fetch`: puts the mail of an execution, and its document, into the context.

The mail was brought into ledger and store by the intake before; for an execution that was started by
hand the oldest waiting mail of the client is taken. Nothing is marked on the server here.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from nova_pipelines.adapters.mime import parse_mail
from nova_pipelines.database.nova import Client, Execution, Message
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.domain.workflow import Node
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.intake import make_executions, scan_mailbox, sender_allowed
from nova_pipelines.nodes.services import Services, primary_mailbox


class MailFetchNode(Node):
    """Reads the mail of the execution into `context.email`, its PDF's reference into `context.document`.

    Also set: `has_pdf`, `sender_allowed`, and `rejection` (`no_pdf` or `sender_not_allowed`) where there is
    nothing to process. A sender outside the whitelist counts as without a PDF.
    """

    type: Literal["mail_fetch"]
    folder: str = Field(default="INBOX", min_length=1, max_length=255)


def run(node: MailFetchNode, item: Item, services: Services) -> Result:
    loaded = _load(services, item.execution_id)
    if loaded is None and item.client is None:
        raise PermanentError(
            "this execution has no mail and no client whose mailbox could be read",
            remedy="give a client: nova run WORKFLOW --client SLUG",
        )
    if loaded is None and not _take_oldest(node, item, services):
        context = item.context | {"email_processed": False, "reason": "no waiting mail"}
        return Result(context=context, stop=True)
    loaded = loaded or _load(services, item.execution_id)
    if loaded is None:
        raise PermanentError(f"the mail of execution {item.execution_id} is no longer in the ledger")
    message, client, ordinal = loaded
    context = item.context | mail_context(services, message, client, ordinal)
    facts = {"from": message.sender or "", "subject": (message.subject or "")[:80]}
    return Result(context=context, metadata=facts)


def _load(services: Services, execution_id: int) -> tuple[Message, Client, int] | None:
    with services.databases.nova.read() as session:
        execution = session.get_one(Execution, execution_id)
        if execution.message_id is None:
            return None
        message = session.scalars(
            select(Message).options(selectinload(Message.documents)).where(Message.id == execution.message_id)
        ).one()
        client = session.get_one(Client, message.client_id)
        session.expunge_all()
        return message, client, -1 if execution.document_ordinal is None else execution.document_ordinal


def _take_oldest(node: MailFetchNode, item: Item, services: Services) -> bool:
    """Gives the oldest waiting mail of the client to this execution. False: no mail is waiting."""
    assert item.client is not None  # noqa: S101 - checked by the caller
    with services.databases.nova.read() as session:
        credential = primary_mailbox(session, item.client.id)
        execution = session.get_one(Execution, item.execution_id)
        version_id = execution.version_id
    if credential is None:
        raise PermanentError(
            f"client {item.client.slug!r} has no mailbox",
            remedy=f"set one: nova client credentials set {item.client.slug} email …",
        )
    scan_mailbox(services, credential.id, node.folder)
    made = make_executions(
        services,
        workflow_id=item.workflow_id,
        version_id=version_id,
        folder=node.folder,
        client_ids=[item.client.id],
        limit=1,
    )
    if not made:
        return False
    with services.databases.nova.session() as session:
        _hand_over(session, made[0], item.execution_id)
    return True


def _hand_over(session: Session, new_id: int, execution_id: int) -> None:
    """The first of the mail's executions becomes this one; others (more PDFs) wait for a run of their own."""
    new = session.get_one(Execution, new_id)
    message_id, ordinal = new.message_id, new.document_ordinal
    session.delete(new)
    session.flush()
    execution = session.get_one(Execution, execution_id)
    execution.message_id, execution.document_ordinal = message_id, ordinal


def mail_context(services: Services, message: Message, client: Client, ordinal: int) -> dict[str, Any]:
    """What the context gets of a mail: plain JSON, no bytes."""
    mail = parse_mail(services.store.get(message.sha256 or ""))
    allowed = sender_allowed(mail.sender, client.sender_whitelist)
    context: dict[str, Any] = {
        "client_slug": client.slug,
        "email": {
            "from": mail.sender,
            "name": mail.sender_name,
            "reply_to": mail.reply_to,
            "subject": mail.subject,
            "date": mail.sent_at.isoformat() if mail.sent_at else None,
            "message_id": mail.message_id,
            "text": mail.text,
            "automatic": mail.is_auto_reply,
        },
        "email_processed": True,
        "sender_allowed": allowed,
        "has_pdf": False,
    }
    document = next((d for d in message.documents if d.ordinal == ordinal), None)
    if document is None:
        context["rejection"] = "no_pdf" if allowed else "sender_not_allowed"
        return context
    context["has_pdf"] = True
    context["document"] = {
        "sha256": document.sha256,
        "filename": document.filename,
        "size": document.size,
        "url": services.store.uri(document.sha256),
    }
    return context


KIND = NodeKind(type="mail_fetch", model=MailFetchNode, run=run)
