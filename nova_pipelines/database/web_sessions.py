"""Sessions of people in a browser: begun at a login, found by the cookie's token, ended."""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.orm import Session, joinedload

from nova_pipelines.database.api_keys import digest
from nova_pipelines.database.auth_tables import User, WebSession
from nova_pipelines.database.types import utc_now
from nova_pipelines.settings import Settings

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
#: when somebody was last seen is known to the minute
SEEN_STEP = timedelta(minutes=1)


def begin_session(session: Session, user: User, *, address: str, settings: Settings) -> str:
    """A new session; its token, for the cookie. Made anew at each login, so that none can be foisted on anybody."""
    now = utc_now()
    token = secrets.token_urlsafe(32)
    row = WebSession(token_sha256=digest(token), user_id=user.id, address=address[:64], created_at=now, seen_at=now)
    row.expires_at = now + timedelta(hours=settings.nova_session_hours)
    session.add(row)
    user.last_login_at = now
    session.flush()
    return token


def session_by_token(session: Session, token: str, settings: Settings) -> WebSession | None:
    """The living session, with its user; None: there is none, it has ended, or the user is disabled."""
    if not _TOKEN.fullmatch(token):
        return None
    query = select(WebSession).where(WebSession.token_sha256 == digest(token)).options(joinedload(WebSession.user))
    found = session.scalar(query)
    if found is None or not found.user.is_active:
        return None
    now = utc_now()
    if found.expires_at <= now or found.seen_at <= _oldest(now, settings):
        return None
    return found


def _oldest(now: datetime, settings: Settings) -> datetime:
    return now - timedelta(minutes=settings.nova_session_idle_minutes)


def sight_is_old(found: WebSession) -> bool:
    """Whether it should be written down again that somebody is there (`mark_seen`)."""
    return found.seen_at < utc_now() - SEEN_STEP


def mark_seen(session: Session, session_id: int) -> None:
    session.execute(update(WebSession).where(WebSession.id == session_id).values(seen_at=utc_now()))


def end_session(session: Session, token: str) -> bool:
    """Whether there was one."""
    ended = session.execute(delete(WebSession).where(WebSession.token_sha256 == digest(token)).returning(WebSession.id))
    return ended.first() is not None


def remove_ended(session: Session, settings: Settings) -> None:
    """Takes away the rows of sessions that ended by themselves."""
    now = utc_now()
    ended = or_(WebSession.expires_at <= now, WebSession.seen_at <= _oldest(now, settings))
    session.execute(delete(WebSession).where(ended))
