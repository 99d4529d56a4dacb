"""The OpenAPI document: what FastAPI finds, with the shapes that routes only name (problems, definitions)."""

from __future__ import annotations

from typing import Any, cast

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from nova_pipelines.nodes.registry import definition_schema
from nova_pipelines.web.answers import Problem

SCHEMAS = "#/components/schemas/"
#: where the schema of definitions is found
DEFINITION = f"{SCHEMAS}WorkflowDefinition"


def install(app: FastAPI) -> None:
    """Has this application serve the whole document."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            schemas: dict[str, Any] = found.setdefault("components", {}).setdefault("schemas", {})
            whole = cast("dict[str, Any]", _with_references(definition_schema()))
            whole.pop("$schema")
            schemas |= whole.pop("$defs") | {"WorkflowDefinition": whole, "Problem": Problem.model_json_schema()}
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document


def _with_references(value: Any) -> Any:
    """References within a schema of its own, as references within the document."""
    if isinstance(value, dict):
        return {
            key: SCHEMAS + inner.removeprefix("#/$defs/")
            if key == "$ref" and isinstance(inner, str)
            else _with_references(inner)
            for key, inner in value.items()
        }
    return [_with_references(inner) for inner in value] if isinstance(value, list) else value
