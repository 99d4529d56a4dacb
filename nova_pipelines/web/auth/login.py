"""Login of people with a password, logout, and who one is. Attempts are counted before a password is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from nova_pipelines.database import login_attempts
from nova_pipelines.database.auth_tables import User
from nova_pipelines.database.users import check_password, user_by_login
from nova_pipelines.database.web_sessions import begin_session, end_session, remove_ended
from nova_pipelines.web.access import PUBLIC, VIEWER, Principal, principal_of
from nova_pipelines.web.auth.cookies import SESSION, drop_cookie, read_cookie, set_cookie
from nova_pipelines.web.auth.login_pages import language, login_page, logout_page, own_path
from nova_pipelines.web.auth.recording import Recorder, address_of
from nova_pipelines.web.auth.texts import TEXTS, minutes
from nova_pipelines.web.context import WebContext, context_in

router = APIRouter(include_in_schema=False)
me = APIRouter(tags=["access"])
#: bytes of the form: a login, a password and a path
MAX_FORM = 16_384


@dataclass(frozen=True, slots=True)
class Form:
    login: str
    password: str
    next: str


@router.get("/login", dependencies=[Depends(PUBLIC)])
def show_login(request: Request) -> Response:
    principal = principal_of(request)
    target = own_path(request.query_params.get("next"))
    if principal is not None and principal.kind == "session":
        return RedirectResponse(target, 303)
    notice = TEXTS[language(request)]["out"] if "out" in request.query_params else ""
    return login_page(request, next=target, notice=notice, openid=context_in(request).settings.oidc_ready)


@router.post("/login", dependencies=[Depends(PUBLIC)])
async def log_in(request: Request) -> Response:
    form = await _read_form(request)
    return await run_in_threadpool(_log_in, request, form)


async def _read_form(request: Request) -> Form:
    """Raises HTTPException: 415 for another kind of body, 413 for one that is too long."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise HTTPException(415, "send the login page's form")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_FORM:
            raise HTTPException(413, "the form is too long")
    try:
        fields = parse_qs(body.decode(), keep_blank_values=True, max_num_fields=10)
    except ValueError as error:
        raise HTTPException(400, "the form cannot be read") from error
    first = {name: values[0] for name, values in fields.items()}
    return Form(first.get("login", ""), first.get("password", ""), own_path(first.get("next")))


def _log_in(request: Request, form: Form) -> Response:
    context, address, text = context_in(request), address_of(request), TEXTS[language(request)]
    recorder, openid = Recorder(context.services.databases.nova), context.settings.oidc_ready
    with context.services.databases.nova.session() as session:
        attempt = login_attempts.begin_attempt(session, form.login, address)
    if attempt.wait_seconds:
        error = text["locked"].format(minutes=minutes(attempt.wait_seconds, language(request)))
        page = login_page(request, next=form.next, login=form.login, error=error, openid=openid, status=429)
        page.headers["Retry-After"] = str(attempt.wait_seconds)
        return page
    with context.services.databases.nova.read() as session:
        user = user_by_login(session, form.login)
    right = check_password(user.password_hash if user is not None and user.is_active else None, form.password)
    token = _begin(context, request, user, form) if user is not None and right else None
    if user is None or token is None:
        # what was typed as a login may be a password: only a login that is known is written down
        outcome = "account locked" if attempt.locked_now else None
        recorder.write(
            request, user.login if user else "unknown", "login", object=outcome, outcome="refused", status=401
        )
        return login_page(request, next=form.next, login=form.login, error=text["wrong"], openid=openid, status=401)
    return logged_in(request, context, user, token, form.next)


def _begin(context: WebContext, request: Request, user: User, form: Form) -> str | None:
    """A session's token; None where the user was disabled, or given another password, while this one was checked."""
    with context.services.databases.nova.session() as session:
        now = session.get(User, user.id, with_for_update=True)
        if now is None or not now.is_active or now.password_hash != user.password_hash:
            return None
        login_attempts.succeeded(session, form.login, address_of(request))
        return begin_session(session, now, address=address_of(request), settings=context.settings)


def logged_in(request: Request, context: WebContext, user: User, token: str, target: str) -> Response:
    """The answer to a login: the cookie, and on to where somebody wanted to go. This browser's older session ends."""
    nova, settings = context.services.databases.nova, context.settings
    before = read_cookie(request, SESSION, settings)
    with nova.session() as session:
        if before:
            end_session(session, before)
        remove_ended(session, settings)
    with nova.session() as session:
        login_attempts.remove_old(session)
    clients = None if user.clients is None else frozenset(user.clients)
    Recorder(nova).write(request, Principal(user.login, "viewer", "session", clients, user.id), "login", status=303)
    answer = RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})
    set_cookie(answer, request, SESSION, token, settings, seconds=int(settings.nova_session_hours * 3600))
    return answer


@router.get("/logout", dependencies=[Depends(PUBLIC)])
def ask_logout(request: Request) -> Response:
    principal = principal_of(request)
    if principal is None or principal.kind != "session":
        return RedirectResponse("/login", 303)
    return logout_page(request, principal.name)


@router.post("/logout", dependencies=[Depends(PUBLIC)])
def log_out(request: Request) -> Response:
    """Ends the session on the server; the cookie alone would still be good for whoever copied it."""
    context = context_in(request)
    nova, token = context.services.databases.nova, read_cookie(request, SESSION, context.settings)
    principal = principal_of(request)
    if token:
        with nova.session() as session:
            end_session(session, token)
    if principal is not None and principal.kind == "session":
        Recorder(nova).write(request, principal, "logout", status=303)
    answer = RedirectResponse("/login?out", 303, headers={"Cache-Control": "no-store"})
    answer.headers["Clear-Site-Data"] = '"cache", "storage"'
    drop_cookie(answer, request, SESSION, context.settings)
    return answer


class WhoAmI(BaseModel):
    """Whom this key or session belongs to."""

    name: str
    role: str
    kind: str
    #: slugs of the only clients that are seen; null: all
    clients: list[str] | None


@me.get("/whoami", summary="Whom this key or session belongs to, and what it may")
def who_am_i(principal: Annotated[Principal, Depends(VIEWER)]) -> WhoAmI:
    clients = None if principal.clients is None else sorted(principal.clients)
    return WhoAmI(name=principal.name, role=principal.role, kind=principal.kind, clients=clients)
