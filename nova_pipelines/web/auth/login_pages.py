"""The pages of login and logout as HTML. Whatever is shown is escaped; no script, style by a nonce."""

from __future__ import annotations

import secrets
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request

from nova_pipelines.web.auth.headers import PAGE_POLICY
from nova_pipelines.web.auth.texts import TEXTS, Language, language_of

_TEMPLATES = Environment(
    loader=PackageLoader("nova_pipelines.web.auth"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
#: nobody may frame a login page: a frame could be laid over something else
_POLICY = PAGE_POLICY.replace("frame-ancestors 'self'", "frame-ancestors 'none'")


def language(request: Request) -> Language:
    return language_of(request.headers.get("accept-language", ""))


def login_page(
    request: Request,
    *,
    next: str = "/",
    login: str = "",
    error: str = "",
    notice: str = "",
    openid: bool = False,
    status: int = 200,
) -> HTMLResponse:
    link = f"/login/openid?next={quote(next, safe='')}" if openid else ""
    values = {"next": next, "login": login[:200], "error": error, "notice": notice, "openid": link}
    return _page(request, "login.html", values, status)


def logout_page(request: Request, name: str) -> HTMLResponse:
    text = TEXTS[language(request)]["leave_text"].format(name=name)
    return _page(request, "logout.html", {"name": text}, 200)


def _page(request: Request, template: str, values: dict[str, Any], status: int) -> HTMLResponse:
    spoken, nonce = language(request), secrets.token_urlsafe(16)
    html = _TEMPLATES.get_template(template).render(language=spoken, text=TEXTS[spoken], nonce=nonce, **values)
    headers = {
        "Content-Security-Policy": f"{_POLICY}; style-src 'nonce-{nonce}'",
        "X-Frame-Options": "DENY",
        "Cache-Control": "no-store",
        "Content-Language": spoken,
        "Vary": "Accept-Language, Cookie",
    }
    return HTMLResponse(html, status, headers=headers)


def own_path(wanted: str | None) -> str:
    """A path of this server to go to after a login; `/` for everything that could lead elsewhere.

    Browsers read a backslash as a slash and leave out tabs and line ends: `/\\evil`, `/<tab>/evil` are other hosts.
    """
    if not wanted or len(wanted) > 2_000 or not wanted.isprintable() or "\\" in wanted:
        return "/"
    try:
        parts = urlsplit(wanted)
    except ValueError:
        return "/"
    inside = wanted.startswith("/") and not wanted.startswith("//") and not parts.scheme and not parts.netloc
    leads_here = parts.path.startswith(("/login", "/logout"))
    return "/" if not inside or leads_here else wanted
