"""A client's credentials as people set them: completed with their defaults, found by kind and label, removed.

What the command line and the HTTP API share. Knows no secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import Client, Credential, Message
from nova_pipelines.domain.errors import Conflict, NotFound, PermanentError

KINDS = ("email", "database")


def find_credential(client: Client, kind: str, label: str) -> Credential | None:
    return next((known for known in client.credentials if (known.kind, known.label) == (kind, label)), None)


def with_defaults(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with ports, encryption and user filled in. Raises PermanentError for what is missing."""
    if kind == "database":
        if not given.get("url"):
            raise PermanentError("a database needs its URL", remedy="url: postgresql://user@host:5432/name")
        return dict(given)
    mailbox = dict(given)
    if "imap_host" not in mailbox and "smtp_host" not in mailbox:
        raise PermanentError("a mailbox needs a server", remedy="give imap_host and smtp_host")
    mailbox.setdefault("user", mailbox.get("address"))
    if not mailbox["user"]:
        raise PermanentError("a mailbox needs a user to log in with", remedy="give user")
    if "imap_host" in mailbox:
        mailbox.setdefault("imap_port", 993)
        mailbox.setdefault("imap_tls", "starttls" if mailbox["imap_port"] == 143 else "ssl")
    if "smtp_host" in mailbox:
        mailbox.setdefault("smtp_port", 587)
        mailbox.setdefault("smtp_tls", "ssl" if mailbox["smtp_port"] == 465 else "starttls")
        if "@" not in str(mailbox.get("address") or mailbox["user"]):
            raise PermanentError(f"{mailbox['user']} is no mail address to send from", remedy="give address")
    return mailbox


def remove_credential(session: Session, client: Client, kind: str, label: str) -> None:
    """Removes it; another one of its kind becomes primary.

    Raises NotFound that names those there are, and Conflict for a mailbox whose mails are in the ledger.
    """
    credential = find_credential(client, kind, label)
    if credential is None:
        raise NotFound(f"client {client.slug!r} has no {kind} credential {label!r}", remedy=_have(client))
    if session.scalar(select(exists().where(Message.credential_id == credential.id))):
        remedy = f"set the client inactive: nova client update {client.slug} --inactive"
        raise Conflict(f"mails were read with {label!r}, and their history refers to it", remedy=remedy)
    others = [other for other in client.credentials if other.kind == kind and other is not credential]
    session.delete(credential)
    session.flush()
    if credential.is_primary and others:
        others[0].is_primary = True
    session.expire(client, ["credentials"])


def _have(client: Client) -> str:
    labels = ", ".join(f"{known.kind} {known.label}" for known in client.credentials)
    return f"it has: {labels}" if labels else "it has none"


def describe_client(client: Client) -> dict[str, Any]:
    """A client as plain data, with its credentials. No secrets."""
    names = ("id", "name", "slug", "email", "is_active", "sender_whitelist", "expose_credentials", "allow_network")
    shown = {name: getattr(client, name) for name in names}
    shown["credentials"] = [describe_credential(credential) for credential in client.credentials]
    return shown | {"created_at": client.created_at, "updated_at": client.updated_at}


def describe_credential(credential: Credential) -> dict[str, Any]:
    """A credential as plain data. No secret."""
    names = ("id", "kind", "label", "is_primary", "settings", "last_success_at", "last_error")
    return {name: getattr(credential, name) for name in names}
