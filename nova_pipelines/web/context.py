"""What every route may use."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from nova_pipelines.nodes.services import Services
from nova_pipelines.settings import Settings
from nova_pipelines.web.dagster_ui import Dagster


@dataclass(frozen=True, slots=True)
class WebContext:
    """Made once for an application. Services and Dagster may be used by several threads."""

    settings: Settings
    services: Services
    dagster: Dagster


def context_in(request: Request) -> WebContext:
    """The context of the application that answers this request."""
    return request.app.state.context


async def context_of(request: Request) -> WebContext:
    """For `Depends`. (FastAPI runs what is no coroutine in a thread, which costs more than all of this.)"""
    return context_in(request)
