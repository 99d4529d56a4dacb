"""After the work: mails that are done are marked on their server. What fails here is repeated later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import select

from nova_pipelines.adapters.imap import Mailbox
from nova_pipelines.database.mailboxes import due
from nova_pipelines.database.nova import Credential, Execution, Message
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.services import Services, mailbox_config


def settle_messages(
    services: Services, *, workflow_id: int, then: str, message_ids: Sequence[int] | None = None
) -> int:
    """Flags on the server what is done: mails whose executions are all completed. Returns how many.

    A mail with a failed execution, or one that waits for a person, stays as it is. What fails here is
    repeated by the next call. Raises TransientError or CredentialError when a mailbox cannot be reached.
    """
    flagged = 0
    errors: list[NovaError] = []
    for credential_id, folder, uidvalidity, messages in _done(services, workflow_id, message_ids):
        if then != "nothing":
            if not _due(services, credential_id, folder):
                continue  # the search of this mailbox failed a short while ago; no second login at every tick
            try:
                _flag_all(services, credential_id, folder, uidvalidity, list(messages.values()), then)
            except NovaError as error:
                errors.append(error)  # one mailbox that is down keeps no other from being flagged
                continue
        with services.databases.nova.session() as session:
            for message_id in messages:
                session.get_one(Message, message_id).flagged_at = datetime.now(UTC)
        flagged += len(messages)
    if errors:
        raise errors[0]
    return flagged


def _due(services: Services, credential_id: int, folder: str) -> bool:
    with services.databases.nova.read() as session:
        return due(session, credential_id, folder)


def _flag_all(
    services: Services, credential_id: int, folder: str, uidvalidity: int, uids: list[int], then: str
) -> None:
    with services.databases.nova.read() as session:
        config = mailbox_config(session.get_one(Credential, credential_id), services.box())
    with Mailbox(config) as mailbox:
        if mailbox.select(folder).uidvalidity != uidvalidity:
            return  # the folder was made anew: these UIDs now mean other mails
        for uid in uids:
            mailbox.mark_seen(uid)
            if then.startswith("move:"):
                mailbox.move(uid, then.removeprefix("move:"))


def _done(
    services: Services, workflow_id: int, message_ids: Sequence[int] | None
) -> list[tuple[int, str, int, dict[int, int]]]:
    """Mails to flag, grouped by mailbox and folder: (credential, folder, uidvalidity, {message: uid})."""
    open_or_failed = select(Execution.message_id).where(
        Execution.message_id.is_not(None), Execution.status != "completed"
    )
    any_execution = select(Execution.message_id).where(
        Execution.workflow_id == workflow_id, Execution.message_id.is_not(None)
    )
    duplicate = (Message.status == "duplicate") & Message.duplicate_of.in_(
        # of this workflow's mails: another one's may be for another end
        select(Message.id).where(Message.flagged_at.is_not(None), Message.id.in_(any_execution))
    )
    done = (Message.status == "assigned") & Message.id.in_(any_execution) & Message.id.not_in(open_or_failed)
    query = select(Message).where(Message.flagged_at.is_(None), done | duplicate).order_by(Message.id)
    if message_ids is not None:
        query = query.where(Message.id.in_(message_ids))
    groups: dict[tuple[int, str, int], dict[int, int]] = {}
    with services.databases.nova.read() as session:
        for message in session.scalars(query):
            key = (message.credential_id, message.folder, message.uidvalidity)
            groups.setdefault(key, {})[message.id] = message.uid
    return [(*key, messages) for key, messages in groups.items()]
