"""From stored mails to executions: one for each document, committed before anything is asked of Dagster."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from sqlalchemy import func, select

from nova_pipelines.database.nova import Client, Execution, Message, Workflow
from nova_pipelines.nodes.services import Services


def make_executions(
    services: Services,
    *,
    workflow_id: int,
    version_id: int,
    folder: str,
    client_ids: Sequence[int] | None = None,
    limit: int = 200,
) -> list[int]:
    """One pending execution for each document of the stored mails that this workflow has not had yet.

    Returns the new executions' numbers: the oldest mail of each client, then the next of each. Committed before
    anything is asked of Dagster.
    """
    with services.databases.nova.session() as session:
        had = select(Execution.message_id).where(
            Execution.workflow_id == workflow_id, Execution.message_id.is_not(None)
        )
        # locked: of two that look at the same time, the second one sees what the first one made
        since = session.get_one(Workflow, workflow_id, with_for_update=True).created_at
        # the clients by turns, or one with thousands of mails would come before all mail of the others
        turn = func.row_number().over(partition_by=Message.client_id, order_by=Message.id)
        query = (
            select(Message)
            .where(
                Message.folder == folder,
                # waiting for anybody, or come since this workflow exists: a new workflow does not dig up the past
                (Message.status == "stored") | ((Message.status == "assigned") & (Message.created_at >= since)),
                Message.id.not_in(had),
            )
            .order_by(turn, Message.id)
            .limit(limit)
        )
        if client_ids is not None:
            query = query.where(Message.client_id.in_(client_ids))
        executions: list[Execution] = []
        for message in session.scalars(query):
            client = session.get_one(Client, message.client_id)
            for ordinal in units(message, client):
                executions.append(new_execution(workflow_id, version_id, client.id, {}))
                executions[-1].message_id, executions[-1].document_ordinal = message.id, ordinal
            message.status = "assigned"
        session.add_all(executions)
        session.flush()
        return [execution.id for execution in executions]


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
