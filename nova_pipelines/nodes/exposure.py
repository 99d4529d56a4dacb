"""A client's credentials in the context of old code: put in for one job, taken out of what it leaves, and masked.

Only for clients that are marked `expose_credentials`. What is stored never holds them: the next job gets them anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import make_url, select
from sqlalchemy.orm import Session

from nova_pipelines.adapters.sandbox.base import Outcome
from nova_pipelines.database.clients import credential_secret
from nova_pipelines.database.nova import Credential
from nova_pipelines.domain.errors import CredentialError
from nova_pipelines.domain.masking import MIN_SECRET, Masker
from nova_pipelines.domain.needs import SECRET_KEYS, SLUG_KEY
from nova_pipelines.nodes.base import ClientView
from nova_pipelines.nodes.services import Services

#: the key of the context that holds the password of a kind of credential
_PASSWORD = {"email": "email_password", "database": "db_password"}


@dataclass(frozen=True, slots=True)
class Exposed:
    """What code gets beside its own context. `repr` shows no value."""

    values: dict[str, Any] = field(default_factory=dict, repr=False)
    masker: Masker = field(default_factory=lambda: Masker(()))

    def given(self, own: dict[str, Any]) -> dict[str, Any]:
        """The context of a job. What the workflow has set itself stays: it may name another database."""
        return self.values | own

    def hidden(self, outcome: Outcome, own: dict[str, Any]) -> Outcome:
        """An outcome without what was given beside `own`, and with every secret masked that is left in it."""
        if not self.values:
            return outcome
        result, mask = outcome.result, self.masker
        if result is not None:
            result = {key: value for key, value in result.items() if key in own or not self._is_given(key, value)}
        return replace(
            outcome,
            result=mask.data(result),
            stdout=mask.cut_text(outcome.stdout, at_end=True)
            if outcome.stdout_truncated
            else mask.text(outcome.stdout),
            stderr=mask.cut_text(outcome.stderr, at_end=True)
            if outcome.stderr_truncated
            else mask.text(outcome.stderr),
            error=None if outcome.error is None else mask.cut_text(outcome.error),
        )

    def _is_given(self, key: str, value: Any) -> bool:
        if key not in self.values or value == self.values[key]:
            return key in self.values
        # a password without its blanks is still the client's: masked it would be of no use to the next node
        return key in SECRET_KEYS and self.masker.data(value) != value


def exposed(client: ClientView | None, services: Services) -> Exposed:
    """What the code of a client's workflows gets; nothing unless the client is marked.

    Raises CredentialError when a secret cannot be decrypted, or is too short to be hidden.
    """
    if client is None or not client.expose_credentials:
        return Exposed()
    with services.databases.nova.read() as session:
        credentials = _primary(session, client)
        values = _in_the_clear(client, credentials)
        secrets: set[str] = set()
        for credential in credentials:
            if credential.settings.get("oauth"):
                continue  # a login by tokens has no password that code could use, and its tokens stay here
            opened = credential_secret(services.box(), credential)
            values[_PASSWORD[credential.kind]] = str(opened.get("password") or "")
            secrets |= {_long_enough(client, credential, str(secret)) for secret in opened.values() if secret}
    return Exposed(values, Masker(secrets))


def exposed_keys(client: ClientView | None, session: Session) -> frozenset[str]:
    """The keys that `exposed` would give, without opening any secret."""
    if client is None or not client.expose_credentials:
        return frozenset()
    credentials = _primary(session, client)
    passwords = (_PASSWORD[credential.kind] for credential in credentials if not credential.settings.get("oauth"))
    return frozenset([*_in_the_clear(client, credentials), *passwords])


def _primary(session: Session, client: ClientView) -> list[Credential]:
    """The client's primary credential of each kind that old code can use: of a file there is nothing to connect to."""
    query = select(Credential).where(
        Credential.client_id == client.id, Credential.is_primary, Credential.kind.in_(_PASSWORD)
    )
    return [found for found in session.scalars(query) if found.kind == "email" or _server(found.settings)]


def _in_the_clear(client: ClientView, credentials: list[Credential]) -> dict[str, Any]:
    values: dict[str, Any] = {SLUG_KEY: client.slug}
    for credential in credentials:
        settings = credential.settings
        values |= _mail_values(client, settings) if credential.kind == "email" else _server(settings)
    return {key: value for key, value in values.items() if value is not None}


def _mail_values(client: ClientView, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "imap_host": settings.get("imap_host"),
        "imap_port": settings.get("imap_port", 993) if settings.get("imap_host") else None,
        "smtp_host": settings.get("smtp_host"),
        "smtp_port": settings.get("smtp_port", 587) if settings.get("smtp_host") else None,
        "email_user": settings["user"],
        "sender_whitelist": list(client.sender_whitelist),
    }


def _server(settings: dict[str, Any]) -> dict[str, Any]:
    """A database URL as the five keys of the old dialect, without the password; empty if it names no server."""
    url = make_url(settings["url"])
    host = url.host or url.query.get("host")
    if not host:
        return {}
    return {
        "db_host": host,
        "db_port": url.port or 5432,
        "db_name": url.database,
        "db_user": url.username,
    }


def _long_enough(client: ClientView, credential: Credential, secret: str) -> str:
    if len(secret) < MIN_SECRET:
        what = f"the password of the {credential.kind} credential {credential.label!r} of client {client.slug!r}"
        raise CredentialError(
            f"{what} has fewer than {MIN_SECRET} characters: it could not be hidden in what code prints",
            remedy=f"set a longer one: nova client credentials set {client.slug} {credential.kind}",
        )
    return secret
