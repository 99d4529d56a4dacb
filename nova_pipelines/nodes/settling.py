"""After the work: mails that are done are marked on their server. What fails here is repeated later."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import exists, select
from sqlalchemy.orm import aliased

from nova_pipelines.adapters.imap import Mailbox
from nova_pipelines.database.mail_events import record_event
from nova_pipelines.database.mailboxes import due
from nova_pipelines.database.nova import Execution, Message
from nova_pipelines.domain.errors import NotFound, NovaError, PermanentError
from nova_pipelines.nodes.services import Services

#: the same refusal is written down again for a person only after this time; it is tried at every tick
_REFUSAL_KEPT = timedelta(hours=1)
#: a server that refuses so many mails one after another refuses all
_REFUSALS = 20


def settle_messages(
    services: Services, *, workflow_id: int, then: str, message_ids: Sequence[int] | None = None
) -> int:
    """Flags on the server what is done: mails whose executions are all completed. Returns how many.

    A mail with a failed execution, or one that waits for a person, stays as it is. What fails here is
    repeated by the next call, and keeps no other mail from being flagged. Raises the first error: TransientError
    or CredentialError when a mailbox cannot be reached, PermanentError or NotFound when a server refuses.
    """
    flagged = 0
    errors: list[NovaError] = []
    for credential_id, folder, uidvalidity, messages in _done(services, workflow_id, message_ids):
        done = list(messages)
        if then != "nothing":
            if not _due(services, credential_id, folder):
                continue  # the search of this mailbox failed a short while ago; no second login at every tick
            done, error = _flag_all(services, credential_id, folder, uidvalidity, messages, then)
            errors += [error] if error else []
        with services.databases.nova.session() as session:
            for message_id in done:
                message = session.get_one(Message, message_id)
                message.flagged_at, message.error = datetime.now(UTC), None
        flagged += len(done)
    if errors:
        raise errors[0]
    return flagged


def _due(services: Services, credential_id: int, folder: str) -> bool:
    with services.databases.nova.read() as session:
        return due(session, credential_id, folder)


def _flag_all(
    services: Services, credential_id: int, folder: str, uidvalidity: int, messages: dict[int, int], then: str
) -> tuple[list[int], NovaError | None]:
    """The numbers of the mails that are flagged, or gone from the server, which is as good; and the first error."""
    done: list[int] = []
    refused: dict[int, NovaError] = {}
    try:
        with Mailbox(services.mailbox(credential_id)) as mailbox:
            if mailbox.select(folder).uidvalidity != uidvalidity:
                return list(messages), None  # the folder was made anew: these UIDs now mean other mails
            for message_id, uid in messages.items():
                try:
                    _flag(mailbox, uid, then)
                    done.append(message_id)
                except (PermanentError, NotFound) as error:
                    refused[message_id] = error
                    if not done and len(refused) >= _REFUSALS:
                        break
    except NovaError as error:
        return done, error
    if refused:
        _note(services, credential_id, folder, then, refused)
    return done, next(iter(refused.values()), None)


def _note(services: Services, credential_id: int, folder: str, then: str, refused: dict[int, NovaError]) -> None:
    """Where a person looks: at the mail in the ledger, and at what happened to the mailbox."""
    first = next(iter(refused.values()))
    with services.databases.nova.session() as session:
        for message_id, error in refused.items():
            session.get_one(Message, message_id).error = str(error)
        detail = {"then": then, "error": str(first)}
        record_event(
            session, credential_id, "flag_refused", folder=folder, detail=detail, not_again_within=_REFUSAL_KEPT
        )


def _flag(mailbox: Mailbox, uid: int, then: str) -> None:
    what, _, name = then.partition(":")
    if what == "keyword":
        mailbox.add_keyword(uid, name)
        return
    mailbox.mark_seen(uid)
    if what == "move":
        mailbox.move(uid, name)


def _done(
    services: Services, workflow_id: int, message_ids: Sequence[int] | None
) -> list[tuple[int, str, int, dict[int, int]]]:
    """Mails to flag, grouped by mailbox and folder: (credential, folder, uidvalidity, {message: uid})."""
    original, of_mail = aliased(Message), Execution.message_id == Message.id
    open_or_failed = exists().where(of_mail, Execution.status != "completed")
    of_workflow = exists().where(of_mail, Execution.workflow_id == workflow_id)
    done = (Message.status == "assigned") & of_workflow & ~open_or_failed
    duplicate = (Message.status == "duplicate") & exists().where(
        original.id == Message.duplicate_of,
        original.flagged_at.is_not(None),
        # of this workflow's mails: another one's may be for another end
        exists().where(Execution.message_id == original.id, Execution.workflow_id == workflow_id),
    )
    query = select(Message).where(Message.flagged_at.is_(None), done | duplicate).order_by(Message.id)
    if message_ids is not None:
        query = query.where(Message.id.in_(message_ids))
    groups: dict[tuple[int, str, int], dict[int, int]] = {}
    with services.databases.nova.read() as session:
        for message in session.scalars(query):
            key = (message.credential_id, message.folder, message.uidvalidity)
            groups.setdefault(key, {})[message.id] = message.uid
    return [(*key, messages) for key, messages in groups.items()]
