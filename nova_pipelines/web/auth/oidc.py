"""Login by an OpenID provider: away to it, back from it, and what its claims make of somebody here.

What the return is checked against travels in an encrypted cookie of this browser, for ten minutes and once.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from cryptography.fernet import InvalidToken
from fastapi import APIRouter, Depends, HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nova_pipelines.adapters.openid import OpenIdProvider, Started
from nova_pipelines.database.secrets import login_box
from nova_pipelines.database.users import openid_user
from nova_pipelines.database.web_sessions import begin_session
from nova_pipelines.domain.errors import CredentialError, NovaError
from nova_pipelines.setting_values import Grant, split_grants
from nova_pipelines.settings import Settings
from nova_pipelines.web.access import PUBLIC
from nova_pipelines.web.auth.cookies import STARTED, drop_cookie, read_cookie, set_cookie
from nova_pipelines.web.auth.login import logged_in
from nova_pipelines.web.auth.login_pages import language, login_page, own_path
from nova_pipelines.web.auth.recording import Recorder, address_of
from nova_pipelines.web.auth.texts import TEXTS
from nova_pipelines.web.context import context_in

router = APIRouter(include_in_schema=False, dependencies=[Depends(PUBLIC)])
#: seconds that somebody may take at the provider
PATIENCE = 600


@router.get("/login/openid")
def go(request: Request) -> Response:
    settings = _configured(request)
    target = own_path(request.query_params.get("next"))
    try:
        started = provider(settings).start(_redirect_uri(request, settings))
    except NovaError as error:
        return _failed(request, error)
    kept = json.dumps([started.state, started.nonce, started.verifier, target]).encode()
    answer = RedirectResponse(started.url, 303, headers={"Cache-Control": "no-store"})
    set_cookie(answer, request, STARTED, login_box(settings).encrypt(kept).decode(), settings, seconds=PATIENCE)
    return answer


@router.get("/login/openid/return")
def come_back(request: Request) -> Response:
    settings, context = _configured(request), context_in(request)
    try:
        started, target = _kept(request, settings)
        claims = provider(settings).finish(started, _redirect_uri(request, settings), dict(request.query_params))
        grant = grant_of(claims, settings)
        with context.services.databases.nova.session() as session:
            user = openid_user(
                session,
                issuer=provider(settings).issuer,
                subject=claims["sub"],
                login=_login_of(claims),
                role=grant.role,
                clients=grant.clients,
            )
            if not user.is_active:
                raise CredentialError("this account is disabled here")
            token = begin_session(session, user, address=address_of(request), settings=settings)
    except NovaError as error:
        Recorder(context.services.databases.nova).write(request, "unknown", "login", object="openid", outcome="refused")
        return _failed(request, error)
    answer = logged_in(request, context, user, token, target)
    drop_cookie(answer, request, STARTED, settings)
    return answer


def _configured(request: Request) -> Settings:
    settings = context_in(request).settings
    if not settings.oidc_ready:
        raise HTTPException(404, "no OpenID provider is configured")
    return settings


def provider(settings: Settings) -> OpenIdProvider:
    """The provider of the settings, with what it said of itself."""
    secret = settings.nova_oidc_client_secret
    return _known_provider(
        settings.nova_oidc_issuer or "",
        settings.nova_oidc_client_id or "",
        secret.get_secret_value() if secret else "",
        settings.nova_oidc_scopes,
    )


#: one for each configuration: what it said of itself is kept
_known_provider = lru_cache(maxsize=4)(OpenIdProvider)


def _kept(request: Request, settings: Settings) -> tuple[Started, str]:
    """What this browser took along. Raises CredentialError where it has nothing, or for too long."""
    cookie = read_cookie(request, STARTED, settings)
    try:
        state, nonce, verifier, target = json.loads(login_box(settings).decrypt((cookie or "").encode(), ttl=PATIENCE))
    except (InvalidToken, ValueError):
        raise CredentialError("this login was not begun here, or more than ten minutes ago") from None
    return Started("", state, nonce, verifier), target


def _redirect_uri(request: Request, settings: Settings) -> str:
    """Where the provider sends the browser. The provider knows its addresses: a forged Host is refused there."""
    base = settings.nova_public_url or f"{request.url.scheme}://{request.url.netloc}"
    return f"{base}/login/openid/return"


def grant_of(claims: dict[str, Any], settings: Settings) -> Grant:
    """What somebody is here: the first entry of NOVA_OIDC_ROLES that fits. Raises CredentialError where none does."""
    claim = claims.get(settings.nova_oidc_role_claim, [])
    values = {claim} if isinstance(claim, str) else {each for each in claim if isinstance(each, str)}
    for grant in split_grants(settings.nova_oidc_roles or ""):
        if grant.value == "*" or grant.value in values:
            return grant
    raise CredentialError("your account has no role in NOVA: ask who manages it")


def _login_of(claims: dict[str, Any]) -> str:
    """The name under which somebody is listed. An address that the provider has not verified is anybody's."""
    verified = claims.get("email") if claims.get("email_verified") is True else None
    return str(verified or claims.get("preferred_username") or f"openid-{claims['sub']}")[:200]


def _failed(request: Request, error: NovaError) -> Response:
    reason = TEXTS[language(request)]["openid_failed"].format(reason=error.message)
    status = error.http_status if error.http_status in (401, 409, 503) else 401
    page = login_page(request, error=reason, openid=True, status=status)
    drop_cookie(page, request, STARTED, context_in(request).settings)
    return page
