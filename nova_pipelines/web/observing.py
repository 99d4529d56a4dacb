"""Every request gets an id, is counted and stands in the log: by its route, never with its query.

Pure ASGI, around everything else. What it binds (`structlog.contextvars`) stands in every line logged meanwhile.
"""

from __future__ import annotations

import logging
import re
import time
import uuid
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, clear_contextvars

from nova_pipelines.domain.masking import MASK

log = logging.getLogger("nova.access")
HEADER = "X-Request-ID"
#: a request id of somebody else is kept if it is one: it goes into logs and headers
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
#: parameters of paths that stand in the log under a name of their own
NUMBERS = {"execution_id": "execution_id", "run_id": "run_id", "task_id": "task_id", "workflow_id": "workflow_id"}
#: parameters of paths that are secrets, such as the token of a signed link
SECRET = re.compile(r"(?i)token|secret|key|signature|code")
#: asked every few seconds by machines: logged when something is wrong
QUIET = frozenset({"/health", "/health/live", "/health/ready", "/metrics"})


class Observing:
    """Wraps the application."""

    def __init__(self, app: ASGIApp, *, registry: CollectorRegistry) -> None:
        self._app = app
        names = ["route", "method", "status"]
        self._count = Counter("nova_http_requests", "Answered requests", names, registry=registry)
        self._time = Histogram(
            "nova_http_request_seconds", "From request to answer", ["route"], buckets=BUCKETS, registry=registry
        )
        self._open = Gauge("nova_http_open", "Requests and websockets under way", ["type"], registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(Headers(scope=scope).get(HEADER))
        scope.setdefault("state", {})["request_id"] = request_id
        clear_contextvars()
        bind_contextvars(request_id=request_id)
        status, size, began = 500, 0, time.perf_counter()

        async def sending(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).setdefault(HEADER, request_id)
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            elif message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.close":
                status = status if status == 101 else 403
            elif message["type"] == "websocket.http.response.start":
                status = message["status"]
            await send(message)

        gauge = self._open.labels(scope["type"])
        gauge.inc()
        try:
            await self._app(scope, receive, sending)
        finally:
            gauge.dec()
            self._note(scope, status, size, time.perf_counter() - began)

    def _note(self, scope: Scope, status: int, size: int, seconds: float) -> None:
        route = _route(scope)
        method = scope.get("method", "WEBSOCKET")
        known = method if method in METHODS or method == "WEBSOCKET" else "OTHER"
        self._count.labels(route, known, str(status)).inc()
        if scope["type"] == "http":
            self._time.labels(route).observe(seconds)
        if route in QUIET and status < 400:
            return
        level = logging.WARNING if status >= 500 else logging.INFO
        fields: dict[str, Any] = {
            "method": known,
            "path": _path(scope),
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "bytes": size,
            "client": (scope.get("client") or ["-"])[0],
            **_known(scope),
        }
        log.log(level, "%s %s %s", known, fields["path"], status, extra=fields)


def _request_id(given: str | None) -> str:
    return given if given and _ID.fullmatch(given) else uuid.uuid4().hex


def _route(scope: Scope) -> str:
    """The template of the route: a set of words that does not grow. All of Dagster's pages are one."""
    template = getattr(scope.get("route"), "path", None)
    if template:
        return "(unknown)" if "rest:path" in template else str(template)
    return "(dagster)" if "endpoint" in scope else "(none)"


def _path(scope: Scope) -> str:
    """The path without its query; what is secret in it is masked."""
    path = str(scope.get("path", ""))
    for name, value in (scope.get("path_params") or {}).items():
        if SECRET.search(name) and value:
            path = path.replace(str(value), MASK)
    return path[:300]


def _known(scope: Scope) -> dict[str, Any]:
    """Who asked, and what about."""
    found: dict[str, Any] = {}
    principal = (scope.get("state") or {}).get("principal")
    if principal is not None:
        found["principal"], found["role"] = principal.name, principal.role
    for name, value in (scope.get("path_params") or {}).items():
        if name in NUMBERS:
            found[NUMBERS[name]] = str(value)[:64]
    return found
