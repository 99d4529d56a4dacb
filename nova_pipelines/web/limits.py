"""What one client may cost: the size of a body, the time that it takes to send it, and how it reads the answer.

`Limits` is ASGI, around the application; `GuardedProtocol` is uvicorn's HTTP/1.1 with time limits that it lacks.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nova_pipelines.setting_values import split_list
from nova_pipelines.settings import Settings
from nova_pipelines.web.errors import problem

#: bytes of a body; seconds between two pieces of it, and for all of it
MAX_BODY, PIECE_SECONDS, BODY_SECONDS = 10 * 1024 * 1024, 15.0, 120.0
#: seconds for a request's head, from its first byte or the connection on; its bytes; open connections
HEAD_SECONDS, MAX_HEAD, MAX_CONNECTIONS = 10.0, 64 * 1024, 1_000
#: requests at the same time, beyond which new ones are refused with 503; bytes of a websocket's message
AT_ONCE, MAX_MESSAGE = 500, 4 * 1024 * 1024
#: whole seconds that requests get to end when the server is told to
GRACE_SECONDS = 1
#: seconds that a client may leave an answer unread
READ_SECONDS = 60.0


class Limits:
    """Answers 413 to a body that is too big and 408 to one that comes too slowly."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int = MAX_BODY,
        piece_seconds: float = PIECE_SECONDS,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._app = app
        self._max, self._piece, self._all = max_body, piece_seconds, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(self, receive, send)
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if length.isdigit() and int(length) > self._max:
            await body.refuse(413, scope)
            return
        try:
            await self._app(scope, lambda: body.receive(scope), body.send)
        except Exception:
            if not body.refused:  # else it only says that the client has gone, as it was told
                raise

    def over(self, size: int) -> bool:
        return size > self._max

    def seconds_left(self, began: float) -> float:
        return max(0.0, min(self._piece, began + self._all - time.monotonic()))


class _Body:
    """The body of one request, and whether it was refused."""

    def __init__(self, limits: Limits, receive: Receive, send: Send) -> None:
        self._limits, self._receive, self._send = limits, receive, send
        self._began, self._size = time.monotonic(), 0
        self._complete = self._answering = self.refused = False

    async def receive(self, scope: Scope) -> Message:
        if self._complete:  # what comes now is the end of the connection, whenever that is
            return await self._receive()
        if self.refused:
            return {"type": "http.disconnect"}
        try:
            async with asyncio.timeout(self._limits.seconds_left(self._began)):
                message = await self._receive()
        except TimeoutError:
            return await self.refuse(408, scope)
        if message["type"] != "http.request":
            self._complete = True
            return message
        self._size += len(message.get("body", b""))
        if self._limits.over(self._size):
            return await self.refuse(413, scope)
        self._complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        self._answering = True
        if not self.refused:
            await self._send(message)

    async def refuse(self, status: int, scope: Scope) -> Message:
        """Answers in the application's place, unless it has begun to; to it the client has gone."""
        self.refused = True
        if not self._answering:
            detail = "the body is too big" if status == 413 else "the body came too slowly"
            answer = problem(status, detail, headers={"Connection": "close"})
            await answer(scope, self._receive, self._send)
        return {"type": "http.disconnect"}


class GuardedProtocol(HttpToolsProtocol):
    """Closes connections whose head does not come, or is too big, and those of clients that read nothing."""

    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_timer = _cancelled(self._head_timer)
        self._read_timer = _cancelled(self._read_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > MAX_HEAD:
            self._refuse(431, "the head of the request is too big")

    def on_headers_complete(self) -> None:
        self._head_timer, self._head_bytes = _cancelled(self._head_timer), 0
        super().on_headers_complete()

    def handle_websocket_upgrade(self) -> None:
        self._head_timer = _cancelled(self._head_timer)
        super().handle_websocket_upgrade()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._read_timer is None:
            self._read_timer = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._read_timer = _cancelled(self._read_timer)
        super().resume_writing()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_bytes = 0
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._refuse, 408, "the head came too slowly")

    def _refuse(self, status: int, text: str) -> None:
        self._head_timer = _cancelled(self._head_timer)
        if not self.transport.is_closing():
            head = f"HTTP/1.1 {status} \r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\n"
            self.transport.write(f"{head}Connection: close\r\n\r\n{text}".encode())
            self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> Any:
    if timer is not None:
        timer.cancel()


def configuration(app: ASGIApp, settings: Settings, host: str, port: int) -> uvicorn.Config:
    """How uvicorn serves the application: with these limits, and with the log of `adapters/logs.py`."""
    proxies = split_list(settings.nova_trusted_proxies)
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=GuardedProtocol,
        log_config=None,
        log_level=settings.log_level.lower(),
        access_log=False,
        server_header=False,
        # uvicorn would believe every program of this machine
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
        limit_concurrency=AT_ONCE,
        ws_max_size=MAX_MESSAGE,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
