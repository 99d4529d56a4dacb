"""Access tokens of mailboxes at rest: read, leased for a renewal, and stored so that no rotated token is lost.

Knows neither providers nor HTTP. A token stands in a credential's encrypted secret and nowhere else.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import Credential, TokenLease
from nova_pipelines.database.secrets import SecretBox, lock_credentials, open_credential
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import NotFound

#: a process that renews a token and says nothing for so long is taken for dead
LEASE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A credential as it is now. `sealed` is its secret as stored, for the compare-and-set of `store`."""

    settings: dict[str, Any]
    secret: dict[str, Any] = field(repr=False)
    sealed: bytes = field(repr=False)


def load(nova: Database, box: SecretBox, credential_id: int) -> Stored:
    """Raises NotFound when the credential is gone, CredentialError when no key opens it."""
    with nova.read() as session:
        credential = session.get(Credential, credential_id)
        if credential is None:
            raise NotFound(f"credential {credential_id} was removed", remedy="start again")
        return Stored(dict(credential.settings), open_credential(box, credential), bytes(credential.secret))


def lease(nova: Database, credential_id: int, *, seconds: float = LEASE_SECONDS) -> str | None:
    """The right to renew a credential's token, as the name of this holder; None while another one has it.

    Two renewals at once would spend the same refresh token twice, which some providers answer by ending both.
    """
    now, holder = utc_now(), str(uuid.uuid4())
    with nova.session() as session:
        # its row is the lock: of two that ask at once the second sees what the first one took
        if session.get(Credential, credential_id, with_for_update=True) is None:
            raise NotFound(f"credential {credential_id} was removed", remedy="start again")
        row = session.get(TokenLease, credential_id)
        if row is None:
            row = TokenLease(credential_id=credential_id, holder="", until=now)
            session.add(row)
        if row.until > now:
            return None
        row.holder, row.until = holder, now + timedelta(seconds=seconds)
    return holder


def give_back(nova: Database, credential_id: int, holder: str) -> None:
    """Ends a lease, unless another holder has taken it over meanwhile."""
    with nova.session() as session:
        session.execute(
            update(TokenLease)
            .where(TokenLease.credential_id == credential_id, TokenLease.holder == holder)
            .values(until=datetime.fromtimestamp(0, tz=utc_now().tzinfo))
        )


def store(nova: Database, box: SecretBox, credential_id: int, before: Stored, secret: Mapping[str, Any]) -> bool:
    """Replaces the secret that `before` was read from; False: somebody has stored another one since.

    A secret that was only put under another key meanwhile counts as the same.
    """
    with nova.session() as session:
        lock_credentials(session)
        credential = session.get(Credential, credential_id, with_for_update=True)
        if credential is None or not _unchanged(session, box, credential, before):
            return False
        credential.secret = box.encrypt(secret)
    return True


def _unchanged(session: Session, box: SecretBox, credential: Credential, before: Stored) -> bool:
    session.refresh(credential)
    return bytes(credential.secret) == before.sealed or open_credential(box, credential) == before.secret
