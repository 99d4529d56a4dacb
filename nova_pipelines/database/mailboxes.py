"""What every search of a mailbox leaves behind, and when the next one may be: shared by sensor and watcher.

A wrong password is tried again in minutes and not at every tick, since servers lock accounts; a network in seconds.
"""

from __future__ import annotations

import imaplib
import random
from datetime import datetime, timedelta

from sqlalchemy import bindparam, exists, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session, aliased

from nova_pipelines.database.mailbox_tables import MailboxState
from nova_pipelines.database.nova import Credential
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import (
    ConfigurationError,
    CredentialError,
    NotFound,
    NovaError,
    TransientError,
)

#: kind of error → seconds before the second attempt, doubling up to so many
BACK_OFF: dict[str, tuple[float, float]] = {
    "credential": (120.0, 3600.0),
    "certificate": (60.0, 3600.0),
    "folder": (30.0, 900.0),
    "server": (10.0, 300.0),
    "network": (5.0, 60.0),
    "nova": (5.0, 60.0),
}
#: kinds that hold for the whole account: another folder of it is not tried meanwhile either
OF_THE_ACCOUNT = ("credential", "certificate")
#: of a wait at most this part is added by chance, so that many mailboxes of one server do not come at once
JITTER = 0.2


def record_success(
    session: Session, credential_id: int, folder: str, *, waiting: int = 0, now: datetime | None = None
) -> None:
    """A search of this folder succeeded. `waiting`: mails that it saw and that are not in the ledger yet."""
    moment = now or utc_now()
    values = {"of_credential": credential_id, "moment": moment}
    still_well = session.execute(_STILL_WELL, values | {"of_folder": folder, "as_waiting": waiting}).first()
    if still_well is not None:  # as nearly always
        session.execute(_ACCOUNT_WELL, values)
        return
    state = _state(session, credential_id, folder, moment)
    state.last_success_at = state.last_attempt_at = moment
    state.error_kind = state.error = state.failing_since = state.next_attempt_at = state.tried_with = None
    state.failures, state.waiting = 0, waiting
    session.execute(  # the login works again: the other folders need not wait for it
        update(MailboxState)
        .where(
            MailboxState.credential_id == credential_id,
            MailboxState.id != state.id,
            MailboxState.error_kind.in_(OF_THE_ACCOUNT),
        )
        .values(next_attempt_at=None)
    )
    _old_columns(session, credential_id, last_error=None, last_success_at=moment)


# built once: to build a statement costs several times what to run it does
_other = aliased(MailboxState)
_STILL_WELL = (
    update(MailboxState)
    .where(
        MailboxState.credential_id == bindparam("of_credential"),
        MailboxState.folder == bindparam("of_folder"),
        MailboxState.failures == 0,
        MailboxState.error_kind.is_(None),
        MailboxState.next_attempt_at.is_(None),
        MailboxState.waiting == bindparam("as_waiting"),
        ~exists().where(_other.credential_id == bindparam("of_credential"), _other.error_kind.in_(OF_THE_ACCOUNT)),
    )
    .values(last_success_at=bindparam("moment"), last_attempt_at=bindparam("moment"))
    .returning(MailboxState.id)
    .execution_options(synchronize_session=False)
)
_ACCOUNT_WELL = (
    update(Credential)
    .where(Credential.id == bindparam("of_credential"))
    .values(last_error=None, last_success_at=bindparam("moment"), updated_at=Credential.updated_at)
    .execution_options(synchronize_session=False)
)


def record_failure(
    session: Session, credential_id: int, folder: str, error: NovaError, *, now: datetime | None = None
) -> datetime:
    """A search of this folder failed with `error`. Returns the time of the next attempt."""
    moment = now or utc_now()
    state = _state(session, credential_id, folder, moment)
    kind = error_kind(error)
    # another kind begins anew: an hour's wait after wrong passwords must not become one for a network
    state.failures = state.failures + 1 if state.error_kind == kind else 1
    state.error_kind, state.error, state.last_attempt_at = kind, str(error), moment
    state.failing_since = state.failing_since or moment
    state.next_attempt_at = again = moment + back_off(kind, state.failures)
    state.tried_with = session.get_one(Credential, credential_id).updated_at
    _old_columns(session, credential_id, last_error=str(error))
    return again


def due_at(session: Session, credential_id: int, folder: str) -> datetime | None:
    """When this folder may be searched next; None: at any time."""
    changed_at = session.get_one(Credential, credential_id).updated_at
    waits = [
        state.next_attempt_at
        for state in session.scalars(select(MailboxState).where(MailboxState.credential_id == credential_id))
        if state.next_attempt_at is not None
        and state.tried_with == changed_at
        and (state.folder == folder or state.error_kind in OF_THE_ACCOUNT)
    ]
    return max(waits, default=None)


def due(session: Session, credential_id: int, folder: str, *, now: datetime | None = None) -> bool:
    """Whether this folder may be searched now: at once when its credential was changed since it failed."""
    at = due_at(session, credential_id, folder)
    return at is None or at <= (now or utc_now())


def back_off(kind: str, failures: int) -> timedelta:
    """How long to wait after so many failures of one kind in a row (1, 2, …)."""
    first, longest = BACK_OFF[kind]
    seconds = min(longest, first * 2.0 ** min(failures - 1, 20))
    return timedelta(seconds=min(longest, seconds * (1 + random.random() * JITTER)))  # noqa: S311 - no secret


def error_kind(error: NovaError) -> str:
    """Whose matter an error of a search is: a key of BACK_OFF.

    The class says it, and what caused it: `nova` is this installation itself (its databases, its document store).
    """
    cause = error.__cause__
    if isinstance(error, CredentialError):
        return "credential"
    if isinstance(cause, DBAPIError) or "document store" in error.message:
        return "nova"
    if isinstance(error, NotFound):
        return "folder"
    if isinstance(error, ConfigurationError):  # an OSError is one of TLS here: its files, or what they verify
        return "certificate" if isinstance(cause, OSError) else "server"
    if isinstance(error, TransientError) and isinstance(cause, (OSError, imaplib.IMAP4.abort)):
        return "network"
    return "server"


def _state(session: Session, credential_id: int, folder: str, now: datetime) -> MailboxState:
    """The row of a folder, made where there is none; locked, since sensor and watcher write it at once."""
    query = select(MailboxState).filter_by(credential_id=credential_id, folder=folder).with_for_update()
    state = session.scalar(query)
    if state is None:
        try:
            with session.begin_nested():
                session.add(MailboxState(credential_id=credential_id, folder=folder, last_attempt_at=now, failures=0))
        except IntegrityError:  # the other one was faster
            pass
        state = session.scalars(query).one()
    return state


def _old_columns(session: Session, credential_id: int, **values: object) -> None:
    """The credential's own health, for those who read it there. `updated_at` stays: it tells of a changed account."""
    session.execute(
        update(Credential)
        .where(Credential.id == credential_id)
        .values(**values, updated_at=Credential.updated_at)
        .execution_options(synchronize_session=False)
    )
