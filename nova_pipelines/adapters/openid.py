"""Login at an OpenID provider (OpenID Connect Core 1.0, authorization code flow with PKCE), by Authlib.

Knows no person and stores nothing but the provider's description and keys. Tokens appear in no message and no repr.
"""

from __future__ import annotations

import hmac
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from nova_pipelines.domain.errors import CredentialError, TransientError

#: seconds to connect, and for each answer
TIMEOUT = (5.0, 10.0)
#: signatures that are accepted: by a key of the provider, never `none` and never by a shared secret
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
#: description and keys are asked for again after so long; keys also when a signature's key is not among them
REFRESH_SECONDS, KEYS_PAUSE_SECONDS = 3600.0, 30.0
#: clocks may differ by so many seconds
LEEWAY = 60


@dataclass(frozen=True, slots=True)
class Started:
    """What a login begins with. `url`: where the browser goes; the rest it keeps for its return."""

    url: str
    state: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)


@dataclass
class OpenIdProvider:
    """One provider. May be used by several threads."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    scopes: str = "openid email profile"
    _description: dict[str, Any] = field(default_factory=dict, repr=False)
    _keys: dict[str, Any] = field(default_factory=dict, repr=False)
    _described_at: float = field(default=float("-inf"), repr=False)
    _keys_at: float = field(default=float("-inf"), repr=False)

    def start(self, redirect_uri: str) -> Started:
        """Raises TransientError where the provider does not answer."""
        state, nonce, verifier = generate_token(43), generate_token(43), generate_token(64)
        client = self._client(redirect_uri)
        url, _ = client.create_authorization_url(
            self._describe()["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
        )
        return Started(url, state, nonce, verifier)

    def finish(self, started: Started, redirect_uri: str, answer: dict[str, str]) -> dict[str, Any]:
        """The claims of the id_token, all of them checked. `answer`: the parameters with which the browser returned.

        Raises CredentialError for a refusal and for whatever does not belong together, TransientError.
        """
        if not hmac.compare_digest(answer.get("state", "").encode(), started.state.encode()):
            raise CredentialError("the answer does not belong to this login")
        if "iss" in answer and answer["iss"].rstrip("/") != self.issuer:  # RFC 9207: another provider's answer
            raise CredentialError("the answer is another provider's")
        if "error" in answer:
            raise CredentialError(f"the provider refused: {_word(answer['error'])}")
        token = self._exchange(answer.get("code", ""), started.verifier, redirect_uri)
        return self._claims(token, started.nonce)

    def _exchange(self, code: str, verifier: str, redirect_uri: str) -> str:
        if not code:
            raise CredentialError("the provider gave no code")
        try:
            answer: Any = self._client(redirect_uri).fetch_token(
                self._describe()["token_endpoint"],
                grant_type="authorization_code",
                code=code,
                code_verifier=verifier,
                timeout=TIMEOUT,
            )
        except AuthlibBaseError as error:
            raise CredentialError(f"the provider did not take the code: {_word(error.error)}") from None
        except (requests.RequestException, ValueError) as error:
            raise TransientError(f"the provider {self.issuer} did not answer: {type(error).__name__}") from None
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise CredentialError("the provider gave no id_token: is the scope openid asked for?")
        return token

    def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        try:
            claims = dict(self._decoded(token).claims)
            jwt.JWTClaimsRegistry(
                leeway=LEEWAY,
                iss={"essential": True, "value": self._describe()["issuer"]},
                aud={"essential": True, "value": self.client_id},
                exp={"essential": True},
                iat={"essential": True},
                sub={"essential": True},
                nonce={"essential": True, "value": nonce},
            ).validate(claims)
        except (JoseError, ValueError) as error:
            raise CredentialError(f"the provider's id_token is not right: {type(error).__name__}") from None
        several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if (several or "azp" in claims) and claims.get("azp") != self.client_id:  # Core, 3.1.3.7
            raise CredentialError("the provider's id_token was made for somebody else")
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise CredentialError("the provider's id_token names nobody")
        return claims

    def _decoded(self, token: str) -> jwt.Token:
        """Raises JoseError, ValueError. A key that is not known yet may be new: the keys are asked for once more."""
        try:
            return jwt.decode(token, self._key_set(), algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            if time.monotonic() < self._keys_at + KEYS_PAUSE_SECONDS:
                raise
            self._keys_at = float("-inf")
            return jwt.decode(token, self._key_set(), algorithms=ALGORITHMS)

    def _key_set(self) -> KeySet:
        if time.monotonic() > self._keys_at + REFRESH_SECONDS:
            self._keys = self._get(self._describe()["jwks_uri"])
            self._keys_at = time.monotonic()
        return KeySet.import_key_set(self._keys)  # pyright: ignore[reportArgumentType]

    def _describe(self) -> dict[str, Any]:
        """The provider's description (OpenID Connect Discovery 1.0, 4)."""
        if time.monotonic() > self._described_at + REFRESH_SECONDS:
            found = self._get(f"{self.issuer}/.well-known/openid-configuration")
            needed = ("authorization_endpoint", "token_endpoint", "jwks_uri")
            if str(found.get("issuer", "")).rstrip("/") != self.issuer:
                raise CredentialError(f"what {self.issuer} says of itself names another issuer")
            if not all(self._is_safe(found.get(name)) for name in needed):
                raise CredentialError(f"what {self.issuer} says of itself lacks an https address")
            self._description, self._described_at = found, time.monotonic()
        return self._description

    def _is_safe(self, url: Any) -> bool:
        """https; http only where the issuer itself is this machine."""
        parts = urlsplit(url) if isinstance(url, str) else None
        return parts is not None and parts.scheme in ("https", urlsplit(self.issuer).scheme) and bool(parts.hostname)

    def _get(self, url: str) -> dict[str, Any]:
        try:
            answer = requests.get(url, timeout=TIMEOUT, allow_redirects=False)
            answer.raise_for_status()
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise TransientError(f"the provider {self.issuer} did not answer: {type(error).__name__}") from None
        if not isinstance(found, dict):
            raise TransientError(f"the provider {self.issuer} gave no answer that can be read")
        return found

    def _client(self, redirect_uri: str) -> OAuth2Session:
        return OAuth2Session(
            self.client_id,
            self.client_secret,
            scope=self.scopes,
            redirect_uri=redirect_uri,
            code_challenge_method="S256",
        )


def _word(text: object) -> str:
    """An error code of the provider: what it writes about it may hold anything."""
    shown = "".join(c for c in str(text)[:60] if c.isascii() and (c.isalnum() or c in "_-"))
    return shown or "no reason given"
