"""Queries of clients and their credentials, with the checks that keep a record usable and free of secrets."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from sqlalchemy import exists, make_url, select
from sqlalchemy.exc import ArgumentError, IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import Client, Credential, Execution, Message
from nova_pipelines.database.secrets import SecretBox, lock_credentials, open_credential
from nova_pipelines.domain.errors import Conflict, NotFound, PermanentError

Kind = Literal["email", "database"]

#: what a credential may hold in the clear
SETTINGS: dict[str, frozenset[str]] = {
    "email": frozenset(
        {"imap_host", "imap_port", "imap_tls", "smtp_host", "smtp_port", "smtp_tls"}
        | {"address", "user", "folder", "ca_file", "smtp_login", "authserv_id", "authserv_hops"}
        | {"oauth", "oauth_flow", "oauth_tenant", "oauth_client_id", "oauth_base_url"}
    ),
    "database": frozenset({"url"}),
}
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_ADDRESS = re.compile(r"[^@\s,;<>\"\x00-\x1f\x7f]+@[^@\s,;<>\"\x00-\x1f\x7f]+")
_CHANGEABLE = frozenset(["name", "email", "is_active", "sender_whitelist", "expose_credentials", "allow_network"])


def add_client(
    session: Session,
    *,
    name: str,
    slug: str,
    email: str | None = None,
    sender_whitelist: Iterable[str] = (),
    expose_credentials: bool = False,
    allow_network: bool = False,
) -> Client:
    """A new client. Raises PermanentError for a value that cannot be, Conflict for a slug that is taken."""
    if not _SLUG.fullmatch(slug) or len(slug) > 100:
        raise PermanentError(
            f"{slug!r} is no slug", remedy="use lower-case letters, digits and single hyphens, such as idom-es"
        )
    client = Client(slug=slug, is_active=True)
    values = {"name": name, "email": email, "sender_whitelist": sender_whitelist}
    _set(client, {**values, "expose_credentials": expose_credentials, "allow_network": allow_network})
    try:
        with session.begin_nested():
            session.add(client)
    except IntegrityError as error:
        remedy = "choose another slug, or change that client"
        raise Conflict(f"there is a client {slug} already", remedy=remedy) from error
    return client


def update_client(session: Session, client: Client, **changes: Any) -> Client:
    """Changes name, email, is_active, sender_whitelist, expose_credentials, allow_network.

    The slug stays: the invoices in facturas carry it. Raises PermanentError, with nothing changed.
    """
    unknown = sorted(changes.keys() - _CHANGEABLE)
    if unknown:
        remedy = f"what can be changed: {', '.join(sorted(_CHANGEABLE))}"
        raise PermanentError(f"a client's {', '.join(unknown)} cannot be changed", remedy=remedy)
    _set(client, changes)
    session.flush()
    return client


def _set(client: Client, values: Mapping[str, Any]) -> None:
    checked = dict(values)
    if "name" in checked:
        checked["name"] = str(checked["name"]).strip()
        if not checked["name"] or len(checked["name"]) > 200:
            raise PermanentError("a client's name has 1 to 200 characters", remedy="give it a name")
    if checked.get("email") is not None:
        checked["email"] = _address(checked["email"])
    if "sender_whitelist" in checked:
        checked["sender_whitelist"] = [_whitelisted(entry) for entry in checked["sender_whitelist"]]
    for field, value in checked.items():
        setattr(client, field, value)


def _address(text: str) -> str:
    address = text.strip()
    if not _ADDRESS.fullmatch(address) or len(address) > 320:
        raise PermanentError(f"{text!r} is no mail address", remedy="write it as ana@example.com")
    return address


def _whitelisted(entry: str) -> str:
    folded = entry.strip().lower()
    if folded.startswith("@") and _ADDRESS.fullmatch(f"a{folded}"):
        return folded
    if not _ADDRESS.fullmatch(folded):
        remedy = "write an address (ana@example.com) or a domain (@example.com)"
        raise PermanentError(f"{entry!r} cannot stand in a whitelist", remedy=remedy)
    return folded


def find_client(session: Session, slug: str, *, include_inactive: bool = True) -> Client:
    """A client by its slug. Raises NotFound that names close matches."""
    query = select(Client) if include_inactive else select(Client).where(Client.is_active)
    client = session.scalar(query.where(Client.slug == slug.strip().lower()))
    if client is None:
        close = difflib.get_close_matches(slug.lower(), session.scalars(select(Client.slug)).all())
        remedy = f"did you mean {', '.join(close)}?" if close else "`nova client list` shows all of them"
        raise NotFound(f"there is no client {slug!r}", remedy=remedy)
    return client


def remove_client(session: Session, client: Client) -> Literal["deleted", "deactivated"]:
    """Deletes a client with its credentials; one that has executions or mails is only deactivated."""
    session.flush()
    if not session.scalar(select(_has_history(client.id))):
        try:
            with session.begin_nested():
                session.delete(client)
        except IntegrityError:  # a mail or an execution came in just now
            session.refresh(client)
        else:
            return "deleted"
    client.is_active = False
    session.flush()
    return "deactivated"


def _has_history(client_id: int) -> Any:
    return exists().where(Execution.client_id == client_id) | exists().where(Message.client_id == client_id)


def set_credential(
    session: Session,
    box: SecretBox,
    client: Client,
    kind: Kind,
    label: str = "default",
    *,
    settings: Mapping[str, Any],
    secret: Mapping[str, Any],
    primary: bool | None = None,
) -> Credential:
    """Makes or replaces the credential `label` of a client.

    `primary`: True makes it the primary one of its kind, None leaves that as it is (the first one of a kind
    is primary). Raises PermanentError for settings that cannot be or that hold a secret, Conflict for
    `primary=False` on the primary one.
    """
    _check_settings(kind, settings)
    if not label.strip() or len(label) > 100:
        raise PermanentError("a credential's label has 1 to 100 characters", remedy="give it a label")
    lock_credentials(session)
    of_kind = session.scalars(
        select(Credential).where(Credential.client_id == client.id, Credential.kind == kind)
    ).all()
    credential = next((known for known in of_kind if known.label == label), None)
    if credential is None:
        credential = Credential(client=client, kind=kind, label=label, is_primary=False)
    credential.settings, credential.secret = dict(settings), box.encrypt(secret)
    credential.last_error = None
    session.add(credential)
    _choose_primary(session, credential, of_kind, primary)
    session.flush()
    return credential


def _choose_primary(
    session: Session, credential: Credential, of_kind: Iterable[Credential], primary: bool | None
) -> None:
    former = next((known for known in of_kind if known.is_primary), None)
    if former is credential and primary is False:
        remedy = "make another one primary; that takes it from this one"
        raise Conflict(f"{credential.label} is the primary credential of its kind", remedy=remedy)
    if former is None or (primary and former is not credential):
        if former is not None:
            former.is_primary = False
        session.flush()  # two primaries, even for a moment, are refused by the index
        credential.is_primary = True


def _check_settings(kind: str, settings: Mapping[str, Any]) -> None:
    if kind not in SETTINGS:
        raise PermanentError(f"{kind!r} is no kind of credential", remedy="use email or database")
    unknown = sorted(settings.keys() - SETTINGS[kind])
    if unknown:
        remedy = f"settings: {', '.join(sorted(SETTINGS[kind]))}; what is secret goes into the secret"
        raise PermanentError(f"{kind} credentials have no setting {', '.join(unknown)}", remedy=remedy)
    for name in ("imap_port", "smtp_port"):
        port = settings.get(name, 1)
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            raise PermanentError(f"{name} is no port", remedy="give a number from 1 to 65535")
    _check_provider(settings)
    if kind == "database":
        _check_url(settings.get("url"))
    if settings.get("oauth") is not None:
        _check_oauth(settings)


def _check_oauth(settings: Mapping[str, Any]) -> None:
    """A login by OAuth: whose, how, and by which application."""
    if settings["oauth"] not in ("microsoft", "google"):
        raise PermanentError(f"{settings['oauth']!r} is no known provider", remedy="use microsoft or google")
    if settings.get("oauth_flow") not in ("device", "browser", "app") or not settings.get("oauth_client_id"):
        raise PermanentError("a login by OAuth needs its flow and the id of its application", remedy="set both")
    tenant = settings.get("oauth_tenant")
    if tenant is not None and not re.fullmatch(r"[A-Za-z0-9.-]{1,100}", str(tenant)):
        raise PermanentError(f"{tenant!r} is no tenant", remedy="give its id or its domain, such as example.com")


def _check_provider(settings: Mapping[str, Any]) -> None:
    authserv_id, hops = settings.get("authserv_id") or "", settings.get("authserv_hops") or 0
    if not isinstance(authserv_id, str) or not re.fullmatch(r"[A-Za-z0-9._:-]{0,255}", authserv_id):
        remedy = "copy the first word of the Authentication-Results header of a mail, such as mx.google.com"
        raise PermanentError("authserv_id is no name of a server", remedy=remedy)
    if isinstance(hops, bool) or not isinstance(hops, int) or not 0 <= hops <= 20:
        raise PermanentError("authserv_hops is no number from 0 to 20", remedy="see docs/mail.md")


def _check_url(url: Any) -> None:
    remedy = "write postgresql://user@host:5432/name, and the password into the secret"
    try:
        parsed = make_url(url) if isinstance(url, str) else None
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None:
        raise PermanentError("the url of a database credential is no database URL", remedy=remedy)
    if parsed.password is not None or any("pass" in name.lower() for name in parsed.query):
        raise PermanentError("the url of a database credential holds a password", remedy=remedy)


def credential_secret(box: SecretBox, credential: Credential) -> dict[str, Any]:
    """What is secret in a credential, such as {"password": …}. Raises CredentialError that names it."""
    return open_credential(box, credential)


def mailboxes(session: Session) -> list[tuple[Client, Credential]]:
    """Every mailbox of every active client, in a steady order."""
    query = (
        select(Client, Credential)
        .join(Credential, Credential.client_id == Client.id)
        .where(Client.is_active, Credential.kind == "email")
        .order_by(Client.id, Credential.id)
    )
    return [(client, credential) for client, credential in session.execute(query)]
