"""Access tokens of a mail provider: how they are asked for, renewed and refused (RFC 6749, 8628), by Authlib.

Knows no mailbox and stores nothing. Tokens and secrets appear in no message and no repr.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn
from urllib.parse import parse_qsl, urlsplit

import requests
from authlib.common.errors import AuthlibBaseError
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session

from nova_pipelines.adapters.mail_headers import clean_line
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, NovaError, TransientError

ProviderName = Literal["microsoft", "google"]
#: who logs in: a person once (device code, or a browser that comes back to an address), or the application itself
Flow = Literal["device", "browser", "app"]

#: seconds to connect, and for each answer
TIMEOUT = (10.0, 20.0)
_DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
#: errors of a token endpoint that pass by themselves (RFC 6749 4.1.2.1; the last one is Google's)
_PASSING = {"temporarily_unavailable", "server_error", "internal_failure"}


@dataclass(frozen=True, slots=True)
class Provider:
    """The endpoints of a provider; `{tenant}` is filled in. `scopes`: for a person, and for an application."""

    token_url: str
    authorize_url: str
    device_url: str | None
    scope: str
    app_scope: str | None
    #: what the provider wants beside the standard to give a refresh token
    extra: tuple[tuple[str, str], ...] = ()


_MICROSOFT = "https://login.microsoftonline.com/{tenant}/oauth2/v2.0"
PROVIDERS: dict[str, Provider] = {
    "microsoft": Provider(
        token_url=f"{_MICROSOFT}/token",
        authorize_url=f"{_MICROSOFT}/authorize",
        device_url=f"{_MICROSOFT}/devicecode",
        scope="https://outlook.office.com/IMAP.AccessAsUser.All https://outlook.office.com/SMTP.Send offline_access",
        app_scope="https://outlook.office365.com/.default",
    ),
    "google": Provider(
        token_url="https://oauth2.googleapis.com/token",  # noqa: S106 - an address
        authorize_url="https://accounts.google.com/o/oauth2/v2/auth",
        device_url=None,  # Google's device flow does not give the scope of mail
        scope="https://mail.google.com/",
        app_scope=None,
        extra=(("access_type", "offline"), ("prompt", "consent")),
    ),
}


@dataclass(frozen=True, slots=True)
class OAuthApp:
    """The application as it is registered at a provider, and where it asks. `base_url` replaces the provider's host:
    a national cloud of Microsoft's, or a test's server (http only on loopback)."""

    provider: ProviderName
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    tenant: str | None = None
    base_url: str | None = None

    @property
    def endpoints(self) -> Provider:
        return PROVIDERS[self.provider]

    def url(self, template: str) -> str:
        """A full endpoint. Raises ConfigurationError for one to which secrets would go in plain text."""
        url = template.format(tenant=self.tenant or "organizations")
        if self.base_url:
            url = self.base_url.rstrip("/") + urlsplit(url).path
        parts = urlsplit(url)
        if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ConfigurationError(f"tokens are not asked for in plain text at {url}", remedy="write https://…")
        return url


@dataclass(frozen=True, slots=True)
class Tokens:
    """`expires_at`: seconds since the epoch. Without a refresh token it is asked for anew with the app's secret."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_at: int


@dataclass(frozen=True, slots=True)
class DevicePrompt:
    """What a person must do: open the address and type the code, within `expires_in` seconds."""

    verification_uri: str
    user_code: str
    device_code: str = field(repr=False)
    interval: float
    expires_in: float


@dataclass(frozen=True, slots=True)
class BrowserPrompt:
    """The address that a person opens; `state` and `verifier` (PKCE) bind the answer to this question."""

    url: str
    redirect_uri: str
    state: str = field(repr=False)
    verifier: str = field(repr=False)


def refresh(app: OAuthApp, refresh_token: str) -> Tokens:
    """New tokens for a refresh token; a provider that rotates gives another refresh token with them.

    Raises CredentialError when a person must log in again, TransientError for the network and a busy provider.
    """
    with _session(app) as session, _translated(app):
        answer = session.refresh_token(app.url(app.endpoints.token_url), refresh_token=refresh_token)
        return _tokens(app, answer)


def app_token(app: OAuthApp) -> Tokens:
    """A token of the application itself (client credentials). Raises as `refresh`, and ConfigurationError."""
    scope = app.endpoints.app_scope
    if scope is None or not app.client_secret:
        raise ConfigurationError(
            f"an application cannot log in to {app.provider} by itself"
            if scope is None
            else "an application that logs in by itself needs its secret",
            remedy="log in as a person" if scope is None else "give --client-secret-env NAME",
        )
    with _session(app) as session, _translated(app):
        return _tokens(app, _fetch(session, app, grant_type="client_credentials", scope=scope))


def begin_device(app: OAuthApp) -> DevicePrompt:
    """Asks for a code that a person types in a browser anywhere (RFC 8628)."""
    if app.endpoints.device_url is None:
        raise ConfigurationError(f"{app.provider} has no device login for mail", remedy="log in by a browser")
    with _session(app) as session, _translated(app):
        answer = session.post(
            app.url(app.endpoints.device_url),
            data={"client_id": app.client_id, "scope": app.endpoints.scope},
            withhold_token=True,  # there is none yet
        )
        body = _json(app, answer)
        if "error" in body:
            raise _refusal(app, str(body["error"]), str(body.get("error_description") or ""))
        try:
            return DevicePrompt(
                verification_uri=clean_line(str(body.get("verification_uri") or body["verification_url"]), 300),
                user_code=clean_line(str(body["user_code"]), 50),
                device_code=str(body["device_code"]),
                interval=float(body.get("interval") or 5),
                expires_in=float(body.get("expires_in") or 900),
            )
        except (KeyError, ValueError, TypeError):
            _no_answer(app)


def wait_for_device(app: OAuthApp, prompt: DevicePrompt, *, sleep: Callable[[float], Any] = time.sleep) -> Tokens:
    """Waits until the person has typed the code. Raises CredentialError when it was refused or ran out."""
    interval, left = prompt.interval, prompt.expires_in
    while left > 0:
        sleep(interval)
        left -= interval
        try:
            with _session(app) as session:
                return _tokens(app, _fetch(session, app, grant_type=_DEVICE_GRANT, device_code=prompt.device_code))
        except AuthlibBaseError as error:
            if error.error not in ("authorization_pending", "slow_down"):
                raise _refusal(app, error.error or "", error.description or "") from None
            interval += 5 if error.error == "slow_down" else 0  # RFC 8628 3.5
        except requests.RequestException:
            continue  # as RFC 8628 says: the code stays valid
    raise CredentialError("nobody logged in while the code was valid", remedy="give the command again")


def begin_browser(app: OAuthApp, redirect_uri: str, *, login_hint: str | None = None) -> BrowserPrompt:
    """The address at which a person logs in and agrees; the browser then goes to `redirect_uri` with the answer."""
    verifier = generate_token(64)
    more = dict(app.endpoints.extra) | ({"login_hint": login_hint} if login_hint else {})
    with _session(app, redirect_uri=redirect_uri) as session:
        url, state = session.create_authorization_url(
            app.url(app.endpoints.authorize_url), code_verifier=verifier, **more
        )
    return BrowserPrompt(url, redirect_uri, state, verifier)


def finish_browser(app: OAuthApp, prompt: BrowserPrompt, answer_url: str) -> Tokens:
    """Tokens for the address to which the browser was sent. Raises CredentialError when it holds no agreement."""
    given = dict(parse_qsl(urlsplit(answer_url.strip()).query))
    if "error" in given:
        raise _refusal(app, given["error"], given.get("error_description", ""))
    if "code" not in given:
        raise CredentialError("the address holds no answer of the provider", remedy="paste the whole address")
    with _session(app, redirect_uri=prompt.redirect_uri) as session, _translated(app):
        answer = session.fetch_token(
            app.url(app.endpoints.token_url),
            authorization_response=answer_url.strip(),
            state=prompt.state,
            code_verifier=prompt.verifier,
        )
        return _tokens(app, answer)


# -- the conversation --------------------------------------------------------------------------------------


@contextlib.contextmanager
def _session(app: OAuthApp, *, redirect_uri: str | None = None) -> Iterator[Any]:
    session: Any = OAuth2Session(
        client_id=app.client_id,
        client_secret=app.client_secret,
        token_endpoint_auth_method="client_secret_post" if app.client_secret else "none",
        scope=app.endpoints.scope,
        redirect_uri=redirect_uri,
        default_timeout=TIMEOUT,
        code_challenge_method="S256",
    )
    session.max_redirects = 0  # a secret is sent to the address that was configured, and to no other
    with session:
        yield session


def _fetch(session: Any, app: OAuthApp, **parameters: Any) -> dict[str, Any]:
    return session.fetch_token(app.url(app.endpoints.token_url), client_id=app.client_id, **parameters)


def _tokens(app: OAuthApp, answer: Any) -> Tokens:
    access = answer.get("access_token")
    if not isinstance(access, str) or not re.fullmatch(r"[\x21-\x7e]{1,20000}", access):
        _no_answer(app)
    try:
        seconds = max(0, int(answer.get("expires_in") or 3600))
    except (TypeError, ValueError):
        _no_answer(app)
    return Tokens(access, answer.get("refresh_token"), int(time.time()) + seconds)


def _json(app: OAuthApp, answer: Any) -> dict[str, Any]:
    if answer.status_code >= 500:
        answer.raise_for_status()
    body = answer.json()
    return body if isinstance(body, dict) else _no_answer(app)


def _no_answer(app: OAuthApp) -> NoReturn:
    # outside of the texts: whatever came instead may hold a token
    raise TransientError(
        f"the login service of {app.provider} gave an answer that is none", remedy="it is tried again; check base URL"
    ) from None


@contextlib.contextmanager
def _translated(app: OAuthApp) -> Iterator[None]:
    try:
        yield
    except AuthlibBaseError as error:
        # not chained: Authlib's own error may quote the answer
        refused = _refusal(app, error.error or "", error.description or "")
    except requests.HTTPError as error:
        refused = _http_refusal(app, error.response.status_code if error.response is not None else 0)
    except requests.TooManyRedirects:
        refused = ConfigurationError(
            f"the login service of {app.provider} sends tokens elsewhere", remedy="correct the base URL"
        )
    except (requests.RequestException, ValueError) as error:
        kind = "did not answer in time" if isinstance(error, requests.Timeout) else "cannot be reached or understood"
        host = urlsplit(app.url(app.endpoints.token_url)).netloc
        refused = TransientError(
            f"the login service of {app.provider} ({host}) {kind} ({type(error).__name__})",
            remedy="check this machine's network; it is tried again",
        )
    else:
        return
    raise refused from None


def _http_refusal(app: OAuthApp, code: int) -> NovaError:
    message = f"the login service of {app.provider} answered {code}"
    if code >= 500 or code in (0, 429):
        return TransientError(message, remedy="it is tried again later")
    return ConfigurationError(message, remedy="check tenant and base URL")


def _refusal(app: OAuthApp, code: str, description: str) -> NovaError:
    """What an error of RFC 6749 5.2 means. Microsoft's descriptions carry their own number (AADSTS…)."""
    shown = clean_line(code, 60)
    text = clean_line(re.split(r" Trace ID:|\r?\n", description)[0], 250)
    message = f"{app.provider} refused the login: {shown}" + (f" ({text})" if text else "")
    if code in _PASSING:
        return TransientError(message, remedy="it is tried again later")
    remedies = {
        "invalid_grant": "log in again: nova client credentials set SLUG email --oauth " + app.provider,
        "expired_token": "the code ran out: give the command again",
        "access_denied": "the person or an administrator did not agree: log in again, or ask for consent",
        "invalid_client": "check --oauth-client-id and the application's secret, which may have run out",
        "unauthorized_client": "allow this kind of login in the application's registration",
        "invalid_scope": "give the application the permissions for IMAP and SMTP",
    }
    return CredentialError(message, remedy=remedies.get(code, "check the application's registration, and log in again"))
