"""What looks after the running web service: the board of components, metrics, and the courier of webhooks."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool

from nova_pipelines.web.board import Board
from nova_pipelines.web.components import build_board
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.limits import Limits
from nova_pipelines.web.metrics import Metrics
from nova_pipelines.web.observing import Observing


class Operation:
    """Of one application. Starts nothing by itself."""

    def __init__(self, context: WebContext) -> None:
        self.board: Board = build_board(context)
        self.metrics = Metrics(context.settings, self.board)

    async def prometheus(self, accept: str) -> tuple[bytes, str]:
        return await run_in_threadpool(self.metrics.prometheus, accept)


def install(app: FastAPI, context: WebContext) -> None:
    """Gives the application its operation, and has every request observed. Call it last: what is added to the
    application afterwards stands outside of it."""
    app.state.operation = operation = Operation(context)
    app.add_middleware(Limits)
    app.add_middleware(Observing, registry=operation.metrics.registry)


def operation_of(request: Request) -> Operation:
    """For `Depends`."""
    return request.app.state.operation
