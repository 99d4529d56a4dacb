"""`GET /`: what this is, for programs; a browser is sent to the pages."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from nova_pipelines.web.access import PUBLIC

router = APIRouter(dependencies=[Depends(PUBLIC)])


class About(BaseModel):
    name: str
    version: str
    status: str
    docs: str
    redoc: str
    openapi: str
    health: str


@router.get("/", summary="Name, version, and where to go on")
def about() -> About:
    from nova_pipelines.web.app import VERSION

    return About(
        name="NOVA",
        version=VERSION,
        status="running",
        docs="/docs",
        redoc="/redoc",
        openapi="/openapi.json",
        health="/health",
    )
