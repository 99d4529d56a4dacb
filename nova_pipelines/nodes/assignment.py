"""From stored mails to executions: one for each document, committed before anything is asked of Dagster."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from nova_pipelines.database.mailbox_views import quarantined
from nova_pipelines.database.nova import Client, Execution, Message, Workflow
from nova_pipelines.nodes.services import Services

#: so many mails may have a number and not be committed while later ones are
ON_THEIR_WAY = 1_000


def make_executions(
    services: Services,
    *,
    workflow_id: int,
    version_id: int,
    folder: str,
    client_ids: Sequence[int] | None = None,
    limit: int = 200,
    for_all: bool = False,
) -> list[int]:
    """One pending execution for each document of the stored mails that this workflow has not had yet.

    Returns the new executions' numbers: the oldest mail of each client, then the next of each. Committed before
    anything is asked of Dagster. `for_all`: these are all clients of the workflow, so that the next call need not look
    again at what this one has seen.
    """
    with services.databases.nova.session() as session:
        had = exists().where(Execution.workflow_id == workflow_id, Execution.message_id == Message.id)
        # locked: of two that look at the same time, the second one sees what the first one made
        workflow = session.get_one(Workflow, workflow_id, with_for_update=True)
        others = (Message.status == "assigned") & (Message.id >= workflow.mails_from)
        # the clients by turns, or one with thousands of mails would come before all mail of the others
        turn = func.row_number().over(partition_by=Message.client_id, order_by=Message.id)
        query = (
            select(Message)
            .where(
                Message.folder == folder,
                # waiting for anybody, or come since this workflow exists: a new workflow does not dig up the past
                (Message.status == "stored") | (others & (Message.created_at >= workflow.created_at)),
                ~had,
            )
            .order_by(turn, Message.id)
            .limit(limit)
        )
        if client_ids is not None:
            query = query.where(Message.client_id.in_(client_ids))
        executions: list[Execution] = []
        messages = session.scalars(query).all()
        if for_all and len(messages) < limit:
            workflow.mails_from = max(workflow.mails_from, _settled_below(session))
        for message in messages:
            client = session.get_one(Client, message.client_id)
            for ordinal in units(message, client):
                executions.append(new_execution(workflow_id, version_id, client.id, {}))
                executions[-1].message_id, executions[-1].document_ordinal = message.id, ordinal
            message.status = "assigned"
        session.add_all(executions)
        session.flush()
        return [execution.id for execution in executions]


def _settled_below(session: Session) -> int:
    """Every mail with a smaller number has gone its way: none of them will be assigned later."""
    first = session.scalar(select(func.min(Message.id)).where(Message.status.in_(["seen", "stored"]) | quarantined()))
    # numbers are given before they are committed: what is on its way has one of the last
    newest = (session.scalar(select(func.max(Message.id))) or 0) - ON_THEIR_WAY
    return newest if first is None else min(first, newest)


def units(message: Message, client: Client) -> list[int]:
    """The ordinals of a mail's PDFs, and -1, the mail itself, if there is something to be done about it: it has no
    PDF, its sender may not write, or a part of it could not be opened, which may have been an invoice too."""
    fields = message.mail or {}
    if rejected_sender(message.sender, fields.get("verified"), client.sender_whitelist):
        return [-1]
    seen: set[str] = set()
    ordinals: list[int] = []
    for document in message.documents:
        if document.is_pdf and document.sha256 not in seen:
            seen.add(document.sha256)
            ordinals.append(document.ordinal)
    return [*ordinals, -1] if fields.get("problems") or not ordinals else ordinals


def rejected_sender(sender: str | None, verified: bool | None, whitelist: Sequence[str]) -> str | None:
    """Why a mail of this sender is not processed: `sender_not_allowed`, or `sender_not_verified` where the provider
    did not find that the mail is from whom its From says. None: it is. Without a whitelist everybody may write."""
    if not sender_allowed(sender, whitelist):
        return "sender_not_allowed"
    return "sender_not_verified" if whitelist and verified is False else None


def sender_allowed(sender: str | None, whitelist: Sequence[str]) -> bool:
    """Whether an address may write to a client: listed itself, or by its domain (`@example.com`)."""
    if not whitelist:
        return True
    address = (sender or "").strip().lower()
    domain = address.rpartition("@")[2]
    return any(
        entry.strip().lower() in (address, f"@{domain}", domain) if entry.strip() else False for entry in whitelist
    )


def new_execution(workflow_id: int, version_id: int, client_id: int | None, context: dict[str, object]) -> Execution:
    return Execution(
        task_id=str(uuid.uuid4()),
        workflow_id=workflow_id,
        version_id=version_id,
        client_id=client_id,
        initial_context=context,
    )
