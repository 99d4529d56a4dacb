"""Writes into the audit log what was changed over the network, and by whom. Looks at no body, no query, no token."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from starlette.requests import HTTPConnection

from nova_pipelines.database.audit_log import Outcome, record
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.web.access import Principal

log = logging.getLogger("nova.web.auth")
#: paths whose routes write their own rows
OWN_ROWS = ("/login", "/logout", "/graphql")
#: parameters of paths that are secrets, as signed links have
SECRET_PARAMETERS = ("token", "signature", "secret", "code")


class Recorder:
    """Adds rows to the audit log of `nova`."""

    def __init__(self, nova: Database) -> None:
        self._nova = nova

    def request(self, connection: HTTPConnection, principal: Principal, status: int) -> None:
        """A request that was to change something, and its answer."""
        path = connection.url.path
        if any(path == own or path.startswith(f"{own}/") for own in OWN_ROWS):
            return
        template, given = _route(connection)
        outcome: Outcome = "ok" if status < 400 else "refused" if status in (401, 403) else "failed"
        self.write(
            connection,
            principal,
            f"{connection.scope['method']} {template}",
            object=given,
            outcome=outcome,
            status=status,
        )

    def write(
        self,
        connection: HTTPConnection,
        principal: Principal | str,
        action: str,
        *,
        object: str | None = None,
        outcome: Outcome = "ok",
        status: int | None = None,
    ) -> None:
        """One row. `principal`: a name where nobody is known yet. A log that cannot be written stops nothing: what is
        done is done, and the service's own log says it."""
        known = principal if isinstance(principal, Principal) else None
        try:
            with self._nova.session() as session:
                record(
                    session,
                    action,
                    actor=known.name if known else str(principal),
                    kind=known.kind if known else "none",
                    actor_id=known.id if known else None,
                    object=object,
                    outcome=outcome,
                    status=status,
                    address=address_of(connection),
                )
        except NovaError as error:
            log.error("the audit log has no row for %s by %s: %s", action, principal, error.message)


def address_of(connection: HTTPConnection) -> str:
    """Where it comes from: of a proxy only what NOVA_TRUSTED_PROXIES lets it say."""
    return connection.client.host if connection.client else "unknown"


def _route(connection: HTTPConnection) -> tuple[str, str | None]:
    """The route's path with names for its parameters, and their values without secrets."""
    template = getattr(connection.scope.get("route"), "path", None)
    if not isinstance(template, str) or not template:
        return f"/{connection.url.path.lstrip('/').partition('/')[0]}", None
    return template, _listed(connection.scope.get("path_params", {}).items()) or None


def _listed(parameters: Iterable[tuple[str, object]]) -> str:
    return " ".join(
        f"{name}={value}"
        for name, value in parameters
        if not any(secret in name.lower() for secret in SECRET_PARAMETERS)
    )
