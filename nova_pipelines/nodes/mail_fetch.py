"""The kind `mail_fetch`: puts the mail of an execution, and its document, into the context.

The mail was brought into ledger and store by the intake before; for an execution that was started by
hand the oldest waiting mail of the client is taken. Nothing is marked on the server here.
"""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import bindparam, select
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import Client, Execution, Message, MessageDocument
from nova_pipelines.domain.errors import NeedsPerson, PermanentError
from nova_pipelines.domain.workflow import Folder, Node
from nova_pipelines.nodes.assignment import make_executions, rejected_sender
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.nodes.services import Services, primary_mailbox


class MailFetchNode(Node):
    """Reads the mail of the execution into `context.email`, its PDF's reference into `context.document`.

    Also set: `has_pdf`, `sender_allowed`, and `rejection` (`no_pdf`, `sender_not_allowed` or
    `sender_not_verified`) where there is nothing to process. A sender outside the whitelist, or one whose
    address may be forged, counts as without a PDF. A mail of which a part could not be opened (encrypted, a
    damaged archive) goes to a person.
    """

    type: Literal["mail_fetch"]
    folder: Folder = "INBOX"


def run(node: MailFetchNode, item: Item, services: Services) -> Result:
    mail = _load(services, item.execution_id)
    if mail is None and item.client is None:
        raise PermanentError(
            "this execution has no mail and no client whose mailbox could be read",
            remedy="give a client: nova run WORKFLOW --client SLUG",
        )
    if mail is None and not _take_oldest(node, item, services):
        context = item.context | {"email_processed": False, "reason": "no waiting mail"}
        return Result(context=context, stop=True)
    mail = mail or _load(services, item.execution_id)
    if mail is None:
        raise PermanentError(f"the mail of execution {item.execution_id} is no longer in the ledger")
    context = item.context | mail_context(services, mail)
    _refuse_unopened(context)
    facts = {"from": context["email"]["from"], "subject": str(context["email"]["subject"])[:80]}
    return Result(context=context, metadata=facts)


def _refuse_unopened(context: dict[str, Any]) -> None:
    """What could not be opened may be an invoice: "no PDF was attached" would be wrong."""
    problems = context["email"].get("problems")
    if problems and context.get("rejection") == "no_pdf":
        shown: dict[str, Any] = context | {"rejection": "unreadable"}
        raise NeedsPerson(
            f"the mail {context['email'].get('subject', '')!r} holds what could not be opened: {'; '.join(problems)}",
            remedy="look at the mail in the mailbox; ask the sender for a plain PDF, or enter it by hand",
            context=shown,
        )


#: one query for each item of a batch, built once: columns only, no objects to keep track of
_MAIL = (
    select(
        Message.mail,
        Client.slug,
        Client.sender_whitelist,
        MessageDocument.sha256,
        MessageDocument.filename,
        MessageDocument.size,
    )
    .select_from(Execution)
    .join(Message, Message.id == Execution.message_id)
    .join(Client, Client.id == Message.client_id)
    .outerjoin(
        MessageDocument,
        (MessageDocument.message_id == Message.id) & (MessageDocument.ordinal == Execution.document_ordinal),
    )
    .where(Execution.id == bindparam("execution_id"))
)


def _load(services: Services, execution_id: int) -> Any:  # the row of _MAIL, or None
    with services.databases.nova.read() as session:
        return session.execute(_MAIL, {"execution_id": execution_id}).one_or_none()


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


def mail_context(services: Services, mail: Any) -> dict[str, Any]:
    """What the context gets of a mail: plain JSON, no bytes."""
    fields = mail.mail or {}
    rejected = rejected_sender(fields.get("from"), fields.get("verified"), mail.sender_whitelist or [])
    if rejected == "sender_not_verified":  # an answer would go to somebody who most likely wrote nothing
        fields = fields | {"automatic": True}
    context: dict[str, Any] = {
        "client_slug": mail.slug,
        "email": fields,
        "email_processed": True,
        "sender_allowed": rejected is None,
        "has_pdf": False,
    }
    if mail.sha256 is None or rejected:
        context["rejection"] = rejected or "no_pdf"
        return context
    url = services.store.uri(mail.sha256)
    document = {"sha256": mail.sha256, "filename": mail.filename, "size": mail.size, "url": url}
    return context | {"has_pdf": True, "document": document}


KIND = NodeKind(type="mail_fetch", model=MailFetchNode, run=run)
