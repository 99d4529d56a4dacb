"""People who log in: made, found, their passwords checked. A password is stored as an argon2id hash only."""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.database.api_keys import known_slugs
from nova_pipelines.database.auth_tables import User, WebSession
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict, NotFound, PermanentError
from nova_pipelines.domain.roles import Role

#: characters of a password (NIST SP 800-63B asks for 8 at least, and no rule about their kinds)
MIN_PASSWORD, MAX_PASSWORD = 12, 1_000
_LOGIN = re.compile(r"[^\s\x00-\x1f\x7f]{1,200}")
#: RFC 9106's second choice: 64 MiB, three passes
_hasher = PasswordHasher()
#: each check takes 64 MiB: more at once would let strangers fill the memory
_places = threading.BoundedSemaphore(2)


def normal_login(login: str) -> str:
    """A login as it is stored and compared."""
    return unicodedata.normalize("NFKC", login).strip().casefold()


def hash_password(password: str) -> str:
    """Raises PermanentError for a password that is too short or too long."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        remedy = "several words are easy to keep in mind"
        raise PermanentError(f"a password has {MIN_PASSWORD} to {MAX_PASSWORD} characters", remedy=remedy)
    with _places:
        return _hasher.hash(_bytes(password))


def _bytes(password: str) -> bytes:
    """The same bytes however a keyboard composes an accent."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")


@lru_cache(maxsize=1)
def _nobodys_hash() -> str:
    return _hasher.hash(b"nobody has this password")


def check_password(password_hash: str | None, password: str) -> bool:
    """Whether it is the password. Takes as long where there is none, so that nobody learns who has an account."""
    with _places:
        try:
            _hasher.verify(password_hash or _nobodys_hash(), _bytes(password[: MAX_PASSWORD + 1]))
        except (VerificationError, InvalidHashError):
            return False
    return password_hash is not None


def warm_up() -> None:
    """Makes what the first check of an unknown login needs: it must not take longer than others."""
    _nobodys_hash()


def create_user(
    session: Session, *, login: str, password_hash: str | None, role: Role, clients: Iterable[str] | None = None
) -> User:
    """A new person. Raises PermanentError for a login that cannot be, NotFound (client), Conflict (login in use)."""
    name = normal_login(login)
    if not _LOGIN.fullmatch(name):
        raise PermanentError(f"{login!r} cannot be a login", remedy="a name or a mail address without spaces")
    slugs = known_slugs(session, clients)
    user = User(login=name, password_hash=password_hash, role=role, clients=slugs, is_active=True)
    try:
        with session.begin_nested():
            session.add(user)
    except IntegrityError as error:
        remedy = "`nova users password` gives a new password, `nova users enable` lets them in again"
        raise Conflict(f"there is a user {name} already", remedy=remedy) from error
    return user


def find_user(session: Session, login: str) -> User:
    """Raises NotFound."""
    user = user_by_login(session, login)
    if user is None:
        raise NotFound(f"there is no user {login!r}", remedy="`nova users list` shows all of them")
    return user


def user_by_login(session: Session, login: str) -> User | None:
    return session.scalar(select(User).where(User.login == normal_login(login)))


def list_users(session: Session) -> list[User]:
    return list(session.scalars(select(User).order_by(User.login)))


def set_active(session: Session, user: User, active: bool) -> None:
    """Lets somebody in or not; disabling ends all sessions."""
    user.is_active = active
    if not active:
        end_sessions(session, user)
    session.flush()


def set_password(session: Session, user: User, password_hash: str) -> None:
    """A new password ends all sessions. Raises Conflict for somebody who logs in by an OpenID provider."""
    if user.issuer is not None:
        raise Conflict(f"{user.login} logs in at {user.issuer}", remedy="change the password there")
    user.password_hash = password_hash
    end_sessions(session, user)
    session.flush()


def end_sessions(session: Session, user: User) -> None:
    session.execute(delete(WebSession).where(WebSession.user_id == user.id))


def openid_user(
    session: Session, *, issuer: str, subject: str, login: str, role: Role, clients: list[str] | None
) -> User:
    """The person whom a provider knows by `subject`, with the role that it gives now; made at the first login.

    Raises Conflict where somebody else has that login: two identities are never joined by a name or an address.
    """
    user = session.scalar(select(User).where(User.issuer == issuer, User.subject == subject))
    if user is None:
        user = create_user(session, login=login, password_hash=None, role=role)
        user.issuer, user.subject = issuer, subject
    user.role, user.clients = role, clients
    session.flush()
    return user


def logged_in(user: User) -> None:
    user.last_login_at = utc_now()
