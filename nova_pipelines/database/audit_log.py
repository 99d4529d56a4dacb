"""The audit log: who did what, when, from where, with what outcome. No secret is ever given to it."""

from __future__ import annotations

import getpass
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.database.auth_tables import AuditEntry

Outcome = Literal["ok", "refused", "failed"]
ActorKind = Literal["key", "session", "internal", "open", "cli", "none"]
#: what is longer is cut: a request must not fill the log
_LONGEST = {"actor": 200, "action": 200, "object": 500, "address": 64}


def record(
    session: Session,
    action: str,
    *,
    actor: str,
    kind: ActorKind,
    actor_id: int | None = None,
    object: str | None = None,
    outcome: Outcome = "ok",
    status: int | None = None,
    address: str | None = None,
) -> None:
    """Adds one row. Texts are cut to what the log has room for; control characters are replaced."""
    texts = {"actor": actor, "action": action, "object": object, "address": address}
    shown = {name: _shown(text, _LONGEST[name]) for name, text in texts.items()}
    session.add(AuditEntry(**shown, actor_kind=kind, actor_id=actor_id, outcome=outcome, status=status))


def record_command(session: Session, action: str, object: str) -> None:
    """What a command of `nova` did, by the user of this machine who gave it."""
    record(session, action, actor=machine_user(), kind="cli", object=object)


def machine_user() -> str:
    """The user of this machine under whom this process runs."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's uid without a name
        return "unknown"


def _shown(text: str | None, longest: int) -> str | None:
    if text is None:
        return None
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:longest])


def newest_entries(
    session: Session, *, actor: str | None = None, action: str | None = None, limit: int = 50
) -> list[AuditEntry]:
    """Rows, newest first. `actor`: exactly this name; `action`: begins with this text."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if actor is not None:
        query = query.where(AuditEntry.actor == actor)
    if action is not None:
        query = query.where(AuditEntry.action.startswith(action, autoescape=True))
    return list(session.scalars(query))
