"""What works beside the requests: reloads, starts of runs, and looks for those who follow an execution."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request

from nova_pipelines.web.context import WebContext
from nova_pipelines.web.following import Watch
from nova_pipelines.web.launching import Launcher
from nova_pipelines.web.reloading import Reloader


class Background:
    """The threads of one application. They run from the begin of its lifespan to the end."""

    def __init__(self, context: WebContext) -> None:
        nova = context.services.databases.nova
        self.reloader = Reloader(nova, context.dagster, lambda: self.launcher.look_again())
        self.launcher = Launcher(
            nova,
            live=self.reloader.is_live,
            launch=context.dagster.launch,
            max_batch=context.settings.nova_max_batch,
        )
        self.watch = Watch(nova)

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        threads = (self.reloader, self.launcher, self.watch)
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            for thread in threads:
                thread.stop()


async def background_of(request: Request) -> Background:
    """For `Depends`: the threads of the application that answers this request."""
    return request.app.state.background
