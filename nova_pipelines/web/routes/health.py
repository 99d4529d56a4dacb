"""Whether NOVA is well: for load balancers, for people, for those who look after it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from nova_pipelines.web.access import PUBLIC, VIEWER_OF_ALL
from nova_pipelines.web.board import State
from nova_pipelines.web.operation import Operation, operation_of

router = APIRouter(tags=["health"])
Looking = Annotated[Operation, Depends(operation_of)]
#: without these the web service cannot do what it is asked. A stopped daemon keeps it from nothing: work is taken on
#: and waits
SERVING = ("database", "facturas", "dagster", "code_location")
NEVER_STORED = {"Cache-Control": "no-store"}


@router.get(
    "/health",
    dependencies=[Depends(PUBLIC)],
    summary="Every component, checked now; 503 with the reason when something needed is down",
    responses={503: {"description": "something needed is down"}},
)
async def health(response: Response, looking: Looking) -> dict[str, Any]:
    states = await looking.board.look()
    response.headers.update(NEVER_STORED)
    down, poor = _down(states), [state for state in states if state.ok is False and not state.needed]
    response.status_code = 503 if down else 200
    status = "unhealthy" if down else "degraded" if poor else "healthy"
    reasons = {state.name: state.reason for state in (*down, *poor)}
    return {"status": status, **{state.name: state.word for state in states}, "reasons": reasons}


@router.get("/health/live", dependencies=[Depends(PUBLIC)], summary="This process answers; nothing is asked of others")
async def live(response: Response) -> dict[str, str]:
    response.headers.update(NEVER_STORED)
    return {"status": "alive"}


@router.get(
    "/health/ready",
    dependencies=[Depends(PUBLIC)],
    summary="This service can do what it is asked: databases and code server answer",
    responses={503: {"description": "not now"}},
)
async def ready(response: Response, looking: Looking) -> dict[str, Any]:
    states = await looking.board.look()
    response.headers.update(NEVER_STORED)
    down = [state for state in states if state.name in SERVING and state.ok is not True]
    response.status_code = 503 if down else 200
    return {"ready": not down, "reasons": {state.name: state.reason or state.word for state in down}}


@router.get("/health/detailed", dependencies=[Depends(VIEWER_OF_ALL)], summary="Components, issues and metrics")
async def detailed(response: Response, looking: Looking) -> dict[str, Any]:
    states = await looking.board.look()
    response.headers.update(NEVER_STORED)
    down = _down(states)
    response.status_code = 503 if down else 200
    return {
        "healthy": not down,
        "components": {state.name: _shown(state) for state in states},
        "issues": [f"{state.name}: {state.detail}" for state in states if state.ok is False],
        "metrics": await looking.metrics.json(),
    }


def _down(states: list[State]) -> list[State]:
    return [state for state in states if state.needed and state.ok is not True]


def _shown(state: State) -> dict[str, Any]:
    return {
        "status": state.word,
        "ok": state.ok,
        "needed": state.needed,
        "reason": state.reason,
        "message": state.detail,
        "seconds": state.seconds,
    }
