"""Finds who asks: by the key in the Authorization header, the cookie of a session, or because NOVA is open here.

Nothing else is looked at; a key in a URL would stand in logs and histories. Blocks on the database.
"""

from __future__ import annotations

import hmac
import logging
import time
from typing import cast

from starlette.requests import HTTPConnection

from nova_pipelines.database.api_keys import key_by_token, mark_used, use_is_old, why_not
from nova_pipelines.database.auth_tables import ApiKey, User
from nova_pipelines.database.identities import anybody_known, is_loopback
from nova_pipelines.database.secrets import INTERNAL, internal_tokens
from nova_pipelines.database.session import Database
from nova_pipelines.database.web_sessions import mark_seen, session_by_token, sight_is_old
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.settings import Settings
from nova_pipelines.web.access import Principal, Refusal, Role
from nova_pipelines.web.auth.cookies import SESSION, read_cookie
from nova_pipelines.web.auth.origin import asks_for_loopback

log = logging.getLogger("nova.web.auth")
#: while nobody is known, it is asked again after so many seconds
LOOK_SECONDS = 1.0


class Authentication:
    """`host`: where the server listens. Only on a loopback address may NOVA be open."""

    def __init__(self, settings: Settings, nova: Database, host: str) -> None:
        self._settings, self._nova = settings, nova
        self._may_be_open = is_loopback(host) and not settings.oidc_ready
        self._looked_at = float("-inf")

    def __call__(self, connection: HTTPConnection) -> Principal | Refusal:
        """Never raises: whoever cannot be recognised because the database is away is nobody (503)."""
        try:
            return self._find(connection)
        except NovaError as error:
            log.error("nobody can be recognised: %s", error.message)
            return Refusal(503, "nobody can be recognised at this moment: look into the log of the web service")

    def _find(self, connection: HTTPConnection) -> Principal | Refusal:
        given = [value.partition(" ") for value in connection.headers.getlist("authorization")]
        tokens = [token.strip() for scheme, _, token in given if scheme.lower() == "bearer"]
        if len(tokens) > 1:
            return Refusal(401, "two keys were sent: send one")
        if tokens:
            return self._by_token(tokens[0])
        cookie = read_cookie(connection, SESSION, self._settings)
        found = self._by_session(cookie) if cookie else None
        if found is not None:
            return found
        return self._open(connection)

    def _by_token(self, token: str) -> Principal | Refusal:
        if token.startswith(INTERNAL):
            known = internal_tokens(self._settings)
            if any(hmac.compare_digest(one.encode(), token.encode("utf-8", "replace")) for one in known):
                return Principal("nova", "admin", "internal")
            return Refusal(401, "this is no token of this NOVA: do all its programs have the same NOVA_SECRET_KEY?")
        with self._nova.look() as session:
            key = key_by_token(session, token)
            reason = "this key is not known" if key is None else why_not(key)
        if key is None or reason is not None:
            return Refusal(401, reason or "")
        if use_is_old(key):
            with self._nova.session() as session:
                mark_used(session, key.id)
        return Principal(key.name, _role(key), "key", _clients(key), key.id)

    def _by_session(self, token: str) -> Principal | None:
        with self._nova.look() as session:
            found = session_by_token(session, token, self._settings)
        if found is None:
            return None
        if sight_is_old(found):
            with self._nova.session() as session:
                mark_seen(session, found.id)
        return Principal(found.user.login, _role(found.user), "session", _clients(found.user), found.user.id)

    def _open(self, connection: HTTPConnection) -> Principal | Refusal:
        if not self._may_be_open:
            return Refusal()
        if time.monotonic() > self._looked_at + LOOK_SECONDS:
            with self._nova.look() as session:
                if anybody_known(session):
                    self._may_be_open = False  # for ever: see anybody_known
                    return Refusal()
            self._looked_at = time.monotonic()
        if not asks_for_loopback(connection):
            return Refusal(403, "NOVA is open to this machine only: ask for it by http://127.0.0.1 or localhost")
        return Principal("open", "admin", "open")


def _role(row: ApiKey | User) -> Role:
    return cast("Role", row.role)  # the table's own check


def _clients(row: ApiKey | User) -> frozenset[str] | None:
    return None if row.clients is None else frozenset(row.clients)
