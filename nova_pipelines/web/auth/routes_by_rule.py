"""The routes of an application with the rules that they name, for checks, tests and the API's description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from nova_pipelines.web.access import Rule


def ruled_routes(app: FastAPI) -> Iterator[tuple[str, str, list[Rule]]]:
    """(methods, path, rules) of every route but the mount of Dagster, which has a guard of its own."""
    for found in iter_route_contexts(app.routes):
        route: Any = found
        if isinstance(getattr(route, "original_route", route), Mount) and route.path in ("", "/"):
            continue
        methods = ",".join(sorted(getattr(route, "methods", None) or ["?"]))
        dependant = getattr(route, "dependant", None)
        rules = list(_rules(dependant)) if isinstance(dependant, Dependant) else []
        yield methods, str(route.path), rules


def _rules(dependant: Dependant) -> Iterator[Rule]:
    for each in dependant.dependencies:
        if isinstance(each.call, Rule):
            yield each.call
        yield from _rules(each)
