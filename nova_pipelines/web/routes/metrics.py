"""`GET /metrics`: JSON for people and old tools, text for Prometheus."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse

from nova_pipelines.web.access import VIEWER_OF_ALL
from nova_pipelines.web.operation import Operation, operation_of

router = APIRouter(tags=["health"], dependencies=[Depends(VIEWER_OF_ALL)])
#: an Accept header with one of these asks for Prometheus's text
PROMETHEUS = ("text/plain", "application/openmetrics-text")


@router.get(
    "/metrics",
    summary="Numbers as JSON; as Prometheus's text by `Accept: text/plain` or `application/openmetrics-text`",
    responses={200: {"content": {"application/json": {}, "text/plain": {}, "application/openmetrics-text": {}}}},
)
async def metrics(request: Request, looking: Annotated[Operation, Depends(operation_of)]) -> Response:
    await looking.board.glance()
    accept = request.headers.get("accept", "")
    if any(kind in accept for kind in PROMETHEUS):
        text, media_type = await looking.prometheus(accept)
        return Response(text, headers={"Content-Type": media_type, "Cache-Control": "no-store"})
    return JSONResponse(await looking.metrics.json(), headers={"Cache-Control": "no-store"})
