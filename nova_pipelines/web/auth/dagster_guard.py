"""Stands before the mounted Dagster: its pages and GraphQL are for those who see all clients, by their role."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from nova_pipelines.web.access import OPERATOR_OF_ALL, VIEWER_OF_ALL, Refusal, Rule, principal_of
from nova_pipelines.web.auth.graphql_rules import judge, mutations_of, read_document
from nova_pipelines.web.auth.origin import SAFE_METHODS
from nova_pipelines.web.auth.recording import Recorder
from nova_pipelines.web.errors import problem

#: variables that say what a mutation was done to
_NAMES = ("runId", "runIds", "pipelineName", "jobName", "sensorName", "scheduleName", "repositoryLocationName")
_NAMES += ("backfillId", "concurrencyKey", "partitionsDefName", "partitionKey")
#: what Dagster's server is asked by
METHODS = ("GET", "HEAD", "POST")
#: names that one row of the audit log lists
_LISTED = 20


class DagsterGuard:
    """Pure ASGI around the mount. What it lets through is refused again by GraphQLGuard where it is a mutation."""

    def __init__(self, app: ASGIApp, known_methods: Callable[[Scope], str]) -> None:
        """`known_methods`: those of a path of NOVA's own, which a method that HTTP does not know leads here too."""
        self._app, self._known_methods = app, known_methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        refusal = _rule(scope).refusal(connection)
        if refusal is None and scope["type"] == "http":
            refusal = _method_refusal(scope)
        if refusal is not None and refusal.status == 405:
            allowed = self._known_methods(scope) or ", ".join(METHODS)
            await problem(405, refusal.detail, headers={"Allow": allowed})(scope, receive, send)
            return
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before accept: the server answers 403
        else:
            error = refusal.as_error()
            answer = problem(refusal.status, refusal.detail, headers=dict(error.headers or {}))
            await answer(scope, receive, send)


def _rule(scope: Scope) -> Rule:
    """What events are reported to Dagster by POST is an operator's; who reads is a viewer."""
    changes = scope["type"] == "http" and scope["method"] not in SAFE_METHODS and not _is_graphql(scope)
    return OPERATOR_OF_ALL if changes else VIEWER_OF_ALL


def _is_graphql(scope: Scope) -> bool:
    return scope["path"] == "/graphql"


def _method_refusal(scope: Scope) -> Refusal | None:
    return None if scope["method"] in METHODS else Refusal(405, f"{scope['method']} is not allowed here")


class GraphQLGuard:
    """Asked by Dagster's server (`dagster_ui`) about each document, in a thread, before it is executed; and told after.

    A `Guard` of `dagster_ui`.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def refusal(self, connection: HTTPConnection, query: str) -> Refusal | None:
        """Why this document is not executed on this connection."""
        principal = principal_of(connection)
        if principal is None or principal.clients is not None:  # DagsterGuard let it through: it did not
            return Refusal(403, "this needs somebody who sees all clients")
        document = read_document(query)
        if isinstance(document, Refusal):
            return document
        refused = judge(document, principal.role, may_mutate=connection.scope.get("method") != "GET")
        if refused is not None and refused.status == 403:
            for name in _first(mutations_of(document)):
                self._recorder.write(connection, principal, f"graphql {name}", outcome="refused", status=403)
        return refused

    def may_write(self, connection: HTTPConnection) -> bool:
        """Whether the UI offers what changes something."""
        principal = principal_of(connection)
        return principal is not None and principal.may("operator")

    def done(self, connection: HTTPConnection, query: str, variables: Any, *, succeeded: bool, status: int) -> None:
        """Writes mutations into the audit log, with the names of what they were about."""
        principal, document = principal_of(connection), read_document(query)
        if principal is None or isinstance(document, Refusal):
            return
        about = " ".join(list(dict.fromkeys(_named(variables)))[:_LISTED]) or None
        outcome = "ok" if succeeded else "failed"
        for name in _first(mutations_of(document)):
            if name not in ("logTelemetry", "setNuxSeen"):
                self._recorder.write(
                    connection, principal, f"graphql {name}", object=about, outcome=outcome, status=status
                )


def _first(names: list[str]) -> list[str]:
    return list(dict.fromkeys(names))[:_LISTED]


def _named(value: Any, depth: int = 0) -> Iterator[str]:
    """`name=value` of what variables name. Run config, which may hold anything, is not looked into."""
    if depth > 6:
        return
    if isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _named(inner, depth + 1)
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            if key in _NAMES and isinstance(inner, str):
                yield f"{key}={inner[:100]}"
            elif key in _NAMES and isinstance(inner, list):
                yield f"{key}={','.join(str(each)[:40] for each in cast('list[Any]', inner)[:_LISTED])}"
            elif key != "runConfigData":
                yield from _named(inner, depth + 1)
