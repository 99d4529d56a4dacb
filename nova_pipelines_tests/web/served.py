"""`python -m nova_pipelines_tests.web.served PORT`: the real server with pages that never end, for test_server.py."""

from __future__ import annotations

import asyncio
import sys
import time

import uvicorn
from fastapi import FastAPI, Request, WebSocket
from sse_starlette import EventSourceResponse

from nova_pipelines.adapters import logs
from nova_pipelines.settings import load_settings
from nova_pipelines.web import limits
from nova_pipelines.web.limits import Limits, configuration

#: so that nobody waits for long
limits.HEAD_SECONDS, limits.READ_SECONDS = 1.0, 1.5


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/events")
    async def events() -> EventSourceResponse:
        async def forever():
            while True:
                yield {"data": "x"}
                await asyncio.sleep(0.1)

        return EventSourceResponse(forever())

    @app.websocket("/ws")
    async def ws(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text(await socket.receive_text())

    @app.get("/flood")
    async def flood() -> EventSourceResponse:
        async def forever():
            while True:
                yield {"data": "x" * 100_000}
                await asyncio.sleep(0)

        return EventSourceResponse(forever())

    @app.get("/hang")
    def hang() -> None:
        time.sleep(30)

    @app.post("/read")
    async def read(request: Request) -> int:
        return len(await request.body())

    app.add_middleware(Limits, piece_seconds=1.0)
    return app


if __name__ == "__main__":
    settings = load_settings()
    logs.set_up(settings)
    uvicorn.Server(configuration(application(), settings, "127.0.0.1", int(sys.argv[1]))).run()
