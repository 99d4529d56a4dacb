"""What the routes of all pages share: their router, who asks, and how values of a form in an address are read."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.web.access import OPERATOR, VIEWER, Principal
from nova_pipelines.web.context import WebContext, context_of
from nova_pipelines.web.pages.documents import Pictures
from nova_pipelines.web.pages.rendering import PageRoute

PREFIX = "/pages"
PAGE_SIZE = 50
_MAX_WORDS = 200
_making = threading.Lock()

Context = Annotated[WebContext, Depends(context_of)]
Looks = Annotated[Principal, Depends(VIEWER)]
Decides = Annotated[Principal, Depends(OPERATOR)]


def page_router() -> APIRouter:
    """Pages are for people: none of them stands in the description of the API."""
    return APIRouter(prefix=PREFIX, route_class=PageRoute, include_in_schema=False)


def pictures_of(request: Request, context: Context) -> Pictures:
    """The pictures of this application, made when they are first asked for."""
    with _making:
        if not hasattr(request.app.state, "pictures"):
            request.app.state.pictures = Pictures(context.services)
        return request.app.state.pictures


def words_in(params: Mapping[str, str], name: str) -> str:
    """A text of a form, or nothing. Raises PermanentError where it is endless."""
    text = params.get(name, "").replace("\x00", "").strip()
    if len(text) > _MAX_WORDS:
        raise PermanentError(f"{name}: at most {_MAX_WORDS} characters")
    return text


def number_in(params: Mapping[str, str], name: str) -> int | None:
    text = words_in(params, name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        raise PermanentError(f"{name}: must be a number")
    return min(int(text), 2**31 - 1)


def date_in(params: Mapping[str, str], name: str) -> date | None:
    text = words_in(params, name)
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise PermanentError(f"{name}: must be a date such as 2026-11-30") from None


def amount_in(params: Mapping[str, str], name: str) -> Decimal | None:
    """`1000`, `1000.50` or `1000,50`."""
    text = words_in(params, name)
    if not text:
        return None
    try:
        amount = Decimal(text.replace(",", "."))
    except InvalidOperation:
        amount = Decimal("NaN")
    exponent = amount.as_tuple().exponent
    if not amount.is_finite() or abs(amount) >= Decimal(10) ** 12 or (isinstance(exponent, int) and exponent < -4):
        raise PermanentError(f"{name}: must be an amount such as 1000 or 1000.50")
    return amount


def choice_in(params: Mapping[str, str], name: str, known: tuple[str, ...]) -> str:
    text = words_in(params, name)
    if text and text not in known:
        raise PermanentError(f"{name}: must be one of {', '.join(known)}")
    return text
