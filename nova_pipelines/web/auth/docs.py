"""The description of the API and its two pages, from files of this machine: no content network, no inline script.

Swagger UI and ReDoc come with the package fastapi-offline, whose files alone are used.
"""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from starlette.requests import Request

from nova_pipelines.web.access import VIEWER
from nova_pipelines.web.auth.headers import PAGE_POLICY
from nova_pipelines.web.auth.routes_by_rule import ruled_routes

router = APIRouter(include_in_schema=False, dependencies=[Depends(VIEWER)])

FILES = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "redoc.standalone.js": "text/javascript",
}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>NOVA API</title>{head}</head><body>{body}</body></html>
"""
_SWAGGER_HEAD = '<link rel="stylesheet" href="/docs/files/swagger-ui.css">'
_SWAGGER_BODY = """<div id="page"></div><script src="/docs/files/swagger-ui-bundle.js"></script>
<script nonce="{nonce}">
SwaggerUIBundle({{url: "/openapi.json", dom_id: "#page", deepLinking: true, layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset]}});
</script>"""
_REDOC_BODY = """<div id="page"></div><script src="/docs/files/redoc.standalone.js"></script>
<script nonce="{nonce}">Redoc.init("/openapi.json", {{}}, document.getElementById("page"));</script>"""


@router.get("/openapi.json")
def openapi(request: Request) -> JSONResponse:
    return JSONResponse(_with_security(request.app))


@router.get("/docs")
def swagger() -> HTMLResponse:
    return _page(_SWAGGER_HEAD, _SWAGGER_BODY)


@router.get("/redoc")
def redoc() -> HTMLResponse:
    return _page("", _REDOC_BODY)


@router.get("/docs/files/{name}")
def file(name: str) -> FileResponse:
    if name not in FILES:
        raise HTTPException(404, "there is no such file")
    return FileResponse(_folder() / name, media_type=FILES[name], headers={"Cache-Control": "private, max-age=86400"})


def _folder() -> Path:
    """Where the package keeps its files; it is not imported."""
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise HTTPException(501, "the pages of the API need the package fastapi-offline; /openapi.json is there")
    return Path(found.origin).parent / "static"


def _page(head: str, body: str) -> HTMLResponse:
    nonce = secrets.token_urlsafe(16)
    # both programs write styles and workers into the page; scripts are those above alone
    policy = f"{PAGE_POLICY}; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; worker-src blob:"
    html = _PAGE.format(head=head, body=body.format(nonce=nonce))
    return HTMLResponse(html, headers={"Content-Security-Policy": policy})


def _with_security(app: FastAPI) -> dict[str, Any]:
    """The API's description, with how a key is sent, and to which of its parts; FastAPI keeps it."""
    description = app.openapi()
    description.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for methods, path, rules in ruled_routes(app):
        operations: dict[str, Any] = description["paths"].get(path, {})
        for method in methods.lower().split(","):
            if method in operations and rules[0].role is not None:
                operations[method]["security"] = [{"key": []}]
                answers = operations[method].setdefault("responses", {})
                answers.setdefault("401", _refusal("Nobody who is known: log in, or send a key"))
                answers.setdefault("403", _refusal(f"Somebody who may not: this needs the role {rules[0].role}"))
    return description


def _refusal(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/problem+json": {}}}
