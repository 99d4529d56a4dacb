"""The middleware of every connection, http and websocket: who asks, whether it comes from elsewhere, and that what was
open when somebody lost their right ends. Routes find the principal by `access.principal_of`.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nova_pipelines.web.access import Authenticate, Principal, Refusal
from nova_pipelines.web.auth.origin import SAFE_METHODS, comes_from_elsewhere
from nova_pipelines.web.auth.recording import Recorder
from nova_pipelines.web.errors import problem

#: how long somebody who lost their right may still be sent what they asked for before
RECHECK_SECONDS = 15.0
#: RFC 6455, 7.4.1: policy violation
_CLOSED = {"type": "websocket.close", "code": 1008, "reason": "the session has ended"}


class AuthMiddleware:
    """Pure ASGI, outside of all routes and of Dagster."""

    def __init__(self, app: ASGIApp, *, authenticate: Authenticate, recorder: Recorder) -> None:
        self._app, self._authenticate, self._recorder = app, authenticate, recorder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        found = await run_sync(self._authenticate, connection)
        principal = found if isinstance(found, Principal) else None
        state = scope.setdefault("state", {})
        state["principal"], state["refusal"] = principal, found if isinstance(found, Refusal) else None
        watch = _Watch(connection, self._authenticate, principal)
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send, watch)
        else:
            await self._http(scope, receive, send, watch)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send, watch: _Watch) -> None:
        if watch.principal is None or is_foreign(watch.connection, watch.principal):
            await send({"type": "websocket.close", "code": 1008})  # before accept: the server answers 403
            return

        async def guarded_send(message: Message) -> None:
            if message["type"] == "websocket.send" and await watch.is_over():
                if not watch.closed:
                    watch.closed = True
                    await send(_CLOSED)
                return
            if not watch.closed:
                await send(message)

        async def guarded_receive() -> Message:
            message = await receive()
            if message["type"] == "websocket.receive" and await watch.is_over():
                if not watch.closed:
                    watch.closed = True
                    await send(_CLOSED)
                return {"type": "websocket.disconnect", "code": 1008}
            return message

        await self._app(scope, guarded_receive, guarded_send)

    async def _http(self, scope: Scope, receive: Receive, send: Send, watch: _Watch) -> None:
        connection, changes = watch.connection, scope["method"] not in SAFE_METHODS
        if changes and is_foreign(connection, watch.principal):
            refused = problem(403, "a page of another site sent this request")
            await refused(scope, receive, send)
            return
        status = 500

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if watch.closed:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == 401 and _is_navigation(connection) and not _is_page(message):
                    watch.closed = True
                    await RedirectResponse(login_url(connection), 303)(scope, receive, send)
                    return
            elif message.get("more_body") and await watch.is_over():
                watch.closed = True
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        try:
            await self._app(scope, receive, guarded_send)
        finally:
            if changes and watch.principal is not None:
                await run_sync(self._recorder.request, connection, watch.principal, status)


class _Watch:
    """Looks again, now and then, whether somebody who was let in still is."""

    def __init__(self, connection: HTTPConnection, authenticate: Authenticate, principal: Principal | None) -> None:
        self.connection, self.principal = connection, principal
        self.closed = False
        self._authenticate, self._checked = authenticate, time.monotonic()

    async def is_over(self) -> bool:
        if self.closed:
            return True
        if self.principal is None or time.monotonic() < self._checked + RECHECK_SECONDS:
            return False
        self._checked = time.monotonic()
        now = await run_sync(self._authenticate, self.connection)
        # the database being away ends nothing: whoever was let in is known
        return now != self.principal if isinstance(now, Principal) else now.status != 503


def is_foreign(connection: HTTPConnection, principal: Principal | None) -> bool:
    """Whether a page of another site may have had the browser send this. No browser adds a key by itself."""
    if principal is not None and principal.kind in ("key", "internal"):
        return False
    return comes_from_elsewhere(connection, silent_is_foreign=principal is not None and principal.kind == "session")


def _is_navigation(connection: HTTPConnection) -> bool:
    """Whether a browser opens a page, so that a login page is of use."""
    headers: Any = connection.headers
    if connection.scope["method"] not in ("GET", "HEAD") or "authorization" in headers:
        return False
    return headers.get("sec-fetch-mode", "navigate") == "navigate" and "text/html" in headers.get("accept", "")


def _is_page(start: Message) -> bool:
    """Whether the answer itself is made for a person: it says more than the login page would."""
    return any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in start["headers"])


def login_url(connection: HTTPConnection) -> str:
    """The login page, which leads back to where somebody wanted to go."""
    wanted = connection.url.path + (f"?{connection.url.query}" if connection.url.query else "")
    return "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='')}"
