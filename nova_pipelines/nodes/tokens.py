"""The access token of a mailbox: taken from the store while it is good, renewed by one process at a time.

The one place where the provider's answers (adapters) and the encrypted store (database) meet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from nova_pipelines.database import tokens
from nova_pipelines.database.secrets import SecretBox
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import CredentialError, TransientError

if TYPE_CHECKING:  # Authlib and requests are loaded where a token is really asked for
    from nova_pipelines.adapters.oauth import OAuthApp, Tokens

#: a token that ends sooner than this is renewed before it is used
EARLY_SECONDS = 300
#: how often somebody who waits for another process's renewal looks
LOOK_SECONDS = 0.1
#: how long a database that is away is waited for
STORE_SECONDS = 20.0


@dataclass(frozen=True)
class MailboxTokens:
    """A TokenSource (adapters/sasl.py) of one e-mail credential. It may live as long as its process."""

    nova: Database
    box: Callable[[], SecretBox]
    credential_id: int
    user: str
    clock: Callable[[], float] = field(default=time.time, repr=False)

    def token(self) -> str:
        """A token that is good for some minutes at least. Raises CredentialError or TransientError."""
        stored = self._load()
        return stored.secret["access_token"] if self._is_good(stored, "") else self._renew("")

    def renewed(self, refused: str) -> str:
        """Another token than `refused`, which the server did not take though it should still be good."""
        return self._renew(refused)

    def _load(self) -> tokens.Stored:
        return tokens.load(self.nova, self.box(), self.credential_id)

    def _is_good(self, stored: tokens.Stored, refused: str) -> bool:
        access = stored.secret.get("access_token")
        ends = int(stored.secret.get("expires_at") or 0)
        return bool(access) and access != refused and ends - EARLY_SECONDS > self.clock()

    def _renew(self, refused: str) -> str:
        deadline = time.monotonic() + tokens.LEASE_SECONDS + 5
        while time.monotonic() < deadline:
            holder = tokens.lease(self.nova, self.credential_id)
            if holder is not None:
                try:
                    return self._renew_alone(refused)
                finally:
                    tokens.give_back(self.nova, self.credential_id, holder)
            time.sleep(LOOK_SECONDS)
            stored = self._load()
            if self._is_good(stored, refused):
                return stored.secret["access_token"]
        raise TransientError(
            f"another process renews the login of {self.user} and does not end", remedy="it is tried again"
        )

    def _renew_alone(self, refused: str) -> str:
        stored = self._load()
        if self._is_good(stored, refused):  # somebody was faster
            return stored.secret["access_token"]
        fresh = self._ask(stored)
        # a refresh token that was rotated exists nowhere else by now: a database that is away for a moment must not
        # cost it. Where the secret was changed meanwhile (a person logged in again) theirs stays; this token is good
        for attempt in Retrying(
            stop=stop_after_delay(STORE_SECONDS),
            wait=wait_fixed(LOOK_SECONDS),
            retry=retry_if_exception_type(TransientError),
            reraise=True,
        ):
            with attempt:
                tokens.store(self.nova, self.box(), self.credential_id, stored, merged(stored.secret, fresh))
        return fresh.access_token

    def _ask(self, stored: tokens.Stored) -> Tokens:
        from nova_pipelines.adapters import oauth

        app = oauth_app(stored.settings, stored.secret)
        try:
            if stored.settings.get("oauth_flow") == "app":
                return oauth.app_token(app)
            refresh_token = stored.secret.get("refresh_token")
            if not refresh_token:
                raise CredentialError("nobody has logged in yet", remedy="log in: nova client credentials set")
            return oauth.refresh(app, str(refresh_token))
        except CredentialError as error:
            raise CredentialError(f"mailbox {self.user}: {error.message}", remedy=error.remedy) from None


def oauth_app(settings: Mapping[str, Any], secret: Mapping[str, Any]) -> OAuthApp:
    """The application of a credential. Raises ConfigurationError later, when an endpoint is asked for."""
    from nova_pipelines.adapters.oauth import OAuthApp

    return OAuthApp(
        provider=settings["oauth"],
        client_id=settings["oauth_client_id"],
        client_secret=secret.get("client_secret"),
        tenant=settings.get("oauth_tenant"),
        base_url=settings.get("oauth_base_url"),
    )


def merged(secret: Mapping[str, Any], fresh: Tokens) -> dict[str, Any]:
    """The secret with new tokens; a provider that gives no new refresh token means the old one to stay."""
    changes: dict[str, Any] = {"access_token": fresh.access_token, "expires_at": fresh.expires_at}
    if fresh.refresh_token:
        changes["refresh_token"] = fresh.refresh_token
    return dict(secret) | changes
