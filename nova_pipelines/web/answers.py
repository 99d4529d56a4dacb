"""Answers in JSON, made at once from plain data, and lists with their total."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel

from nova_pipelines.compiler.lookup import iso

#: rows of a list, and how far into it one may look
MAX_LIMIT, MAX_SKIP = 500, 10_000_000


class Problem(BaseModel):
    """Problem details (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    remedy: str | None = None
    problems: list[dict[str, str]] | None = None


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses`: the errors of a route, besides those that every route has."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    every = (400, 401, 403, 413, 422, 429, 500, 503)
    return {status: {"description": "Problem details", "content": content} for status in (*every, *statuses)}


class Page:
    """Which rows of a list: `skip` of them are left out, at most `limit` follow."""

    def __init__(self, skip: int, limit: int) -> None:
        self.skip, self.limit = skip, limit

    def total(self, rows: Sequence[Any]) -> int | None:
        """How many rows the list has; None where this page does not tell."""
        return self.skip + len(rows) if len(rows) < self.limit and (rows or not self.skip) else None

    def after(self, rows: Sequence[Any]) -> str | None:
        """The link to the next page (RFC 8288); None: there is none."""
        return None


async def _page(
    skip: Annotated[int, Query(ge=0, le=MAX_SKIP, description="Rows that are left out")] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows at most")] = 50,
) -> Page:
    return Page(skip, limit)


PageDep = Annotated[Page, Depends(_page)]


class KeyedPage(Page):
    """A page of a long table, the newest first. `before`: of rows with smaller numbers; None: of all.

    By `before` a page costs the same however far back, where the rows of `skip` are walked over, and new rows move
    nothing.
    """

    def __init__(self, skip: int, limit: int, before: int | None, query: Sequence[tuple[str, str]]) -> None:
        super().__init__(skip, limit)
        self.before, self._query = before, query

    def total(self, rows: Sequence[Any]) -> int | None:
        return super().total(rows) if self.before is None else None

    def after(self, rows: Sequence[Any]) -> str | None:
        """Relative to this page, so that it is right behind any proxy; None: this one is the last."""
        if len(rows) < self.limit:
            return None
        kept = [(name, value) for name, value in self._query if name not in ("skip", "before")]
        return f'<?{urlencode([*kept, ("before", rows[-1]["id"])])}>; rel="next"'


async def _keyed_page(
    request: Request,
    page: PageDep,
    before: Annotated[
        int | None, Query(ge=1, le=2**31 - 1, description="Only rows with smaller numbers; the header Link says which")
    ] = None,
) -> KeyedPage:
    return KeyedPage(page.skip, page.limit, before, request.query_params.multi_items())


KeyedPageDep = Annotated[KeyedPage, Depends(_keyed_page)]


def as_json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with this data. What a tampered row holds in place of JSON is shown as a text."""
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain)
    except ValueError:
        text = json.dumps(json.loads(json.dumps(data, default=_plain), parse_constant=str), ensure_ascii=False)
    return Response(text.encode("utf-8", "replace"), status, headers, "application/json")


def _list_json(rows: Sequence[Any]) -> Response:
    """As `as_json`, by a faster writer for what are columns of tables; what it cannot write, the other one can."""
    try:
        return Response(orjson.dumps(rows, default=_plain), media_type="application/json")
    except TypeError:  # orjson.JSONEncodeError: half of a surrogate pair in a text
        return as_json(rows)


def as_list(rows: Sequence[Any], page: Page, count: Callable[[], int]) -> Response:
    """A page of a list with `X-Total-Count`, and with `Link` to the next one where it leads on. `count` is asked only
    where the page does not tell."""
    total, link = page.total(rows), page.after(rows)
    answer = _list_json(rows)
    answer.headers["X-Total-Count"] = str(count() if total is None else total)
    if link:
        answer.headers["Link"] = link
    return answer


TOTAL: dict[str, Any] = {
    "headers": {"X-Total-Count": {"description": "Rows in all", "schema": {"type": "integer"}}},
}
KEYED: dict[str, Any] = {
    "headers": {
        **TOTAL["headers"],
        "Link": {"description": 'The next page, as rel="next" (RFC 8288)', "schema": {"type": "string"}},
    },
}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"no JSON for {type(value).__name__}")
