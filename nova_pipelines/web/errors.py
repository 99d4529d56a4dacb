"""Errors as answers: problem details (RFC 9457) with the status of the error's class. Never a traceback."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nova_pipelines.domain.errors import DefinitionError, NovaError

log = logging.getLogger("nova.web")
PROBLEM = "application/problem+json"
#: problems that an answer lists
MAX_PROBLEMS = 100


def problem(status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> JSONResponse:
    """`{"type", "title", "status", "detail", …}`; members whose value is None are left out."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    body |= {name: value for name, value in more.items() if value is not None}
    return JSONResponse(body, status, media_type=PROBLEM, headers=headers)


def install(app: FastAPI) -> None:
    """Has every error of this application answered as a problem."""

    @app.exception_handler(NovaError)
    async def nova_error(_request: Request, error: NovaError) -> JSONResponse:
        problems = None
        if isinstance(error, DefinitionError):
            problems = [{"path": one.path, "reason": one.reason} for one in error.problems[:MAX_PROBLEMS]]
        # a key of this server that is wrong is no fault of whoever asks: 401 would say "log in"
        status = 502 if error.http_status == 401 else error.http_status
        headers = {"Retry-After": "5"} if status == 503 else None
        return problem(status, error.message, headers=headers, remedy=error.remedy, problems=problems)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> JSONResponse:
        return problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = [
            {"path": ".".join(str(part) for part in found["loc"]), "reason": str(found["msg"])}
            for found in error.errors()[:MAX_PROBLEMS]
        ]
        return problem(422, "the request is not valid", problems=problems)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("unexpected error", exc_info=error)
        # Starlette answers these outside of all middleware
        known = getattr(request.state, "request_id", None)
        headers = {"X-Request-ID": known} if known else None
        return problem(500, "an unexpected error; the log of the web service says more", headers=headers)
