"""How a page is made: templates with everything escaped, the reader's language, and what the page may do.

Nothing on a page is inline: the policy allows scripts, styles and pictures of this server alone, so that a text of a
mail which some day slipped through unescaped would still run nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from nova_pipelines.domain.errors import NovaError
from nova_pipelines.domain.money import format_amount
from nova_pipelines.web.access import principal_of
from nova_pipelines.web.pages.catalogue import COOKIE, LANGUAGES, Language, Words, language_of

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # with `no-referrer` browsers send `Origin: null` with our own forms, which is how a foreign page looks
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
#: characters that turn the writing around them (Unicode Bidi controls): a text must not change how others read
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: characters of one value in a table
MAX_CELL = 300


def render(request: Request, name: str, http_status: int = 200, **values: Any) -> HTMLResponse:
    """A page, or a part of one (`_….html`), in the reader's language."""
    language = language_of(request)
    words = Words(language)
    principal = principal_of(request)
    shown = {
        "t": words,
        "language": language,
        "other": next(other for other in LANGUAGES if other != language),
        "here": _here(request),
        "principal": principal,
        "logged_in": principal is not None and principal.kind == "session",
        "sees_dagster": principal is not None and principal.clients is None,
        "money": _money_in(language),
        "path": request.url.path,
        **values,
    }
    response = HTMLResponse(_environment().get_template(name).render(shown), http_status, headers=HEADERS)
    response.headers["Content-Language"] = language
    if request.query_params.get("lang") == language:
        response.set_cookie(COOKIE, language, max_age=31_536_000, httponly=True, samesite="lax", path="/pages")
    return response


def _here(request: Request) -> str:
    """The address of this page without the switch of the language, to be followed by `lang=`."""
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != "lang"]
    return f"{request.url.path}?{urlencode([*rest, ('lang', '')])}"


def _money_in(language: Language) -> Callable[[object, str], str]:
    return lambda amount, currency: "" if amount is None else plain(format_amount(amount, currency, language))


def plain(value: object, longest: int = MAX_CELL) -> str:
    """A text of somebody else's as one that can stand in a page: no controls, no turned writing, not endless."""
    if value is None:
        return ""
    text = _CONTROL.sub(" ", _BIDI.sub("", str(value)))
    return text if len(text) <= longest else text[: longest - 1] + "…"


def moment(value: object) -> str:
    """A time in UTC, or a date, as digits that mean the same everywhere."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return plain(value)
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return value.isoformat() if isinstance(value, date) else ""


def number(value: Decimal | float | None) -> str:
    return "" if value is None else f"{value:.3f}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("nova_pipelines.web.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"plain": plain, "moment": moment, "number": number}
    environment.globals["static"] = static_url
    return environment


@lru_cache(maxsize=16)
def static_file(name: str) -> tuple[bytes, str]:
    """A file of `static/` and its hash, by name; only what stands in that folder."""
    path = STATIC / name
    if path.parent != STATIC or name.startswith(".") or not path.is_file():
        raise HTTPException(404, "there is no such file")
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()[:12]


def static_url(name: str) -> str:
    return f"/pages/static/{name}?v={static_file(name)[1]}"


class PageRoute(APIRoute):
    """A route whose errors are pages. What the login is for (401) is left to the application."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except NovaError as error:
                status = 502 if error.http_status == 401 else error.http_status
                return error_page(request, status, error.message)
            except RequestValidationError as error:
                reasons = "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors()[:5])
                return error_page(request, 422, reasons)
            except HTTPException as error:
                if error.status_code == 401:
                    raise
                return error_page(request, error.status_code, str(error.detail))

        return handle


def error_page(request: Request, status: int, reason: str) -> HTMLResponse:
    return render(request, "error.html", status, status=status, reason=plain(reason, 1_000))
