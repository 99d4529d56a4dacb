"""Tables of who may use NOVA: keys of programs, people, their sessions, failed logins, and what was done by whom.

Only tables stand here; queries live in `api_keys`, `users`, `web_sessions`, `login_attempts` and `audit_log`.
No secret is stored: of tokens their SHA-256, of passwords their argon2 hash.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.types import CanonicalJSON, utc_now

_ROLES = "role IN ('viewer', 'operator', 'admin')"


class ApiKey(NovaBase):
    """A key of a program: `nova_<id>_<secret>`. It is never deleted, so that the audit log can name it."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint(_ROLES, name="role"),
        Index(
            "uq_api_keys_name",
            "name",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    #: of the whole token, in hex. 256 random bits need no slow hash
    token_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(100))
    role: Mapped[str] = mapped_column(String(10))
    #: slugs of the only clients that it sees; None: all
    clients: Mapped[list[str] | None] = mapped_column(CanonicalJSON)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    created_by: Mapped[str] = mapped_column(String(200))
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    #: to the hour
    last_used_at: Mapped[datetime | None]


class User(NovaBase):
    """A person. With a password, or known by an OpenID provider (`issuer` and `subject`)."""

    __tablename__ = "users"
    __table_args__ = (CheckConstraint(_ROLES, name="role"), UniqueConstraint("issuer", "subject"))

    id: Mapped[int] = mapped_column(primary_key=True)
    #: a name or a mail address, in lower case
    login: Mapped[str] = mapped_column(String(200), unique=True)
    #: argon2id in its own text form, which carries salt and parameters
    password_hash: Mapped[str | None] = mapped_column(String(200))
    issuer: Mapped[str | None] = mapped_column(String(500))
    subject: Mapped[str | None] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(10))
    clients: Mapped[list[str] | None] = mapped_column(CanonicalJSON)
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)
    last_login_at: Mapped[datetime | None]


class WebSession(NovaBase):
    """One login of a person in a browser. The cookie holds the token, this row its SHA-256."""

    __tablename__ = "web_sessions"
    __table_args__ = (Index("ix_web_sessions_user_id", "user_id"), Index("ix_web_sessions_expires_at", "expires_at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    address: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    #: whatever happens, it ends then
    expires_at: Mapped[datetime]
    #: to the minute; it ends when this is too long ago
    seen_at: Mapped[datetime]

    user: Mapped[User] = relationship()


class LoginAttempts(NovaBase):
    """Logins that were tried and did not succeed, for an account or an address; shared by all processes."""

    __tablename__ = "login_attempts"
    __table_args__ = (
        CheckConstraint("kind IN ('account', 'address')", name="kind"),
        Index("ix_login_attempts_last_at", "last_at"),
    )

    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    #: SHA-256 of the login, which may be a password in the wrong field; or the address
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    failures: Mapped[int]
    last_at: Mapped[datetime]
    locked_until: Mapped[datetime | None]


class AuditEntry(NovaBase):
    """Who did what to what, when, from where, and what came of it. Rows are only ever added."""

    __tablename__ = "audit_log"
    __table_args__ = (Index("ix_audit_log_at", "at"), Index("ix_audit_log_actor", "actor"))

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(default=utc_now)
    #: name of key, person, or user of the machine
    actor: Mapped[str] = mapped_column(String(200))
    #: key, session, internal, open, cli, or none where nobody was known
    actor_kind: Mapped[str] = mapped_column(String(10))
    actor_id: Mapped[int | None]
    #: `login`, `keys.create`, `POST /workflows`, `graphql launchRun`
    action: Mapped[str] = mapped_column(String(200))
    #: what it was done to
    object: Mapped[str | None] = mapped_column(Text)
    #: ok, refused (by a rule), failed
    outcome: Mapped[str] = mapped_column(String(10))
    #: HTTP status, where there was one
    status: Mapped[int | None]
    address: Mapped[str | None] = mapped_column(String(64))
