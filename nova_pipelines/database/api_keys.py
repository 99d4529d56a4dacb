"""Keys of programs: made, found by their token, revoked. The token itself is given out once and not stored."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.database.auth_tables import ApiKey
from nova_pipelines.database.clients import find_client
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict, NotFound, PermanentError
from nova_pipelines.domain.roles import Role

_TOKEN = re.compile(r"nova_([1-9][0-9]{0,8})_[0-9a-f]{64}")
_NAME = re.compile(r"[\w.@-][\w.@ -]{0,98}[\w.@-]|[\w.@-]")
#: a key's last use is known to the hour: a write for each request would cost more than the request
USED_STEP = timedelta(hours=1)


def create_key(
    session: Session, *, name: str, role: Role, clients: Iterable[str] | None, by: str, expires_at: datetime | None
) -> tuple[ApiKey, str]:
    """A new key and its token. `clients`: slugs of the only clients that it sees; None: all.

    Raises PermanentError for a name that cannot be, NotFound for an unknown client, Conflict for a name in use.
    """
    if not _NAME.fullmatch(name):
        remedy = "1 to 100 letters, digits, spaces and . _ @ -, such as ci-server"
        raise PermanentError(f"{name!r} cannot be the name of a key", remedy=remedy)
    slugs = known_slugs(session, clients)
    key = ApiKey(name=name, role=role, clients=slugs, created_by=by, expires_at=expires_at, token_sha256="")
    try:
        with session.begin_nested():
            session.add(key)
    except IntegrityError as error:
        remedy = "revoke it first (`nova keys revoke`), or choose another name"
        raise Conflict(f"there is a key {name} already", remedy=remedy) from error
    token = f"nova_{key.id}_{secrets.token_hex(32)}"
    key.token_sha256 = digest(token)
    session.flush()
    return key, token


def known_slugs(session: Session, clients: Iterable[str] | None) -> list[str] | None:
    """The slugs as they are stored, sorted. Raises NotFound."""
    return None if clients is None else sorted({find_client(session, slug).slug for slug in clients})


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def key_by_token(session: Session, token: str) -> ApiKey | None:
    """The key, whether or not it is still good (`why_not`); None: there is none with this token."""
    parts = _TOKEN.fullmatch(token)
    key = session.get(ApiKey, int(parts[1])) if parts else None
    return key if key is not None and hmac.compare_digest(key.token_sha256, digest(token)) else None


def why_not(key: ApiKey, now: datetime | None = None) -> str | None:
    """Why the key may not be used any more; None: it may."""
    if key.revoked_at is not None:
        return "this key was revoked"
    if key.expires_at is not None and key.expires_at <= (now or utc_now()):
        return "this key has expired"
    return None


def use_is_old(key: ApiKey) -> bool:
    """Whether its last use should be written down again (`mark_used`)."""
    return key.last_used_at is None or key.last_used_at < utc_now() - USED_STEP


def mark_used(session: Session, key_id: int) -> None:
    now = utc_now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=hour))


def list_keys(session: Session) -> list[ApiKey]:
    return list(session.scalars(select(ApiKey).order_by(ApiKey.id)))


def revoke_key(session: Session, name_or_number: str) -> ApiKey:
    """Ends a key for ever, by its name or its number. Raises NotFound, or Conflict where it is revoked already."""
    key = session.scalar(select(ApiKey).where(ApiKey.name == name_or_number).order_by(ApiKey.revoked_at.is_not(None)))
    if key is None and name_or_number.isascii() and name_or_number.isdigit() and len(name_or_number) < 10:
        key = session.get(ApiKey, int(name_or_number))
    if key is None:
        raise NotFound(f"there is no key {name_or_number!r}", remedy="`nova keys list` shows all of them")
    if key.revoked_at is not None:
        raise Conflict(f"the key {key.name} was revoked already")
    key.revoked_at = utc_now()
    session.flush()
    return key
