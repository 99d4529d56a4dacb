"""The largest body of a request, for everything behind this port, whatever its length says."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nova_pipelines.web.errors import problem

#: bytes; a context may have 8 MiB
MAX_BODY = 10 * 1_048_576


class BodyLimit:
    """Answers 413 for a body that is too large: at once where its length is told, else as soon as it is seen."""

    def __init__(self, app: ASGIApp, most: int = MAX_BODY) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if not told.isdigit() or int(told[:20]) > self._most:
            await _too_large(self._most)(scope, receive, send)
            return
        counting = _Counting(receive, send, self._most)
        try:
            await self._app(scope, counting.receive, counting.send)
        except _TooLarge:
            if not counting.answered:
                await _too_large(self._most)(scope, receive, send)


class _TooLarge(Exception):
    """More came than may be sent."""


class _Counting:
    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive, self._send, self._left = receive, send, most
        self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _TooLarge
        return message

    async def send(self, message: Message) -> None:
        self.answered = True
        await self._send(message)


def _too_large(most: int) -> ASGIApp:
    # the rest of the body is not read: the connection cannot be used again
    return problem(413, f"a body has at most {most:,} bytes", headers={"Connection": "close"})
