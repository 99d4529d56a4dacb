"""Who may do what. Every route names exactly one rule; a route without one fails a test and is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import HTTPException
from starlette.requests import HTTPConnection

from nova_pipelines.domain.roles import ROLES as ROLES
from nova_pipelines.domain.roles import Role as Role
from nova_pipelines.domain.roles import includes


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `clients`: slugs of the only clients that it sees; None: all. `kind`: how it was recognised."""

    name: str
    role: Role
    kind: Literal["key", "session", "internal", "open"]
    clients: frozenset[str] | None = None
    #: of the key or the user in nova-db, for the audit log
    id: int | None = None

    def may(self, role: Role) -> bool:
        """Each role may do what those before it may."""
        return includes(self.role, role)

    def sees(self, slug: str | None) -> bool:
        """Whether things of this client (None: of no client) are shown to it."""
        return self.clients is None or (slug is not None and slug in self.clients)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why something is not answered: 401 (log in), 403 (not you, or not from there), 503 (the database is away)."""

    status: int = 401
    detail: str = "log in, or send a key"

    def as_error(self) -> HTTPException:
        headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}.get(self.status)
        return HTTPException(self.status, self.detail, headers=headers)


@dataclass(frozen=True, slots=True)
class Rule:
    """As a dependency of a route: `dependencies=[Depends(Rule("operator"))]`, or to get the principal itself.

    `role` None: everybody, also without a key. `all_clients`: only for those who see all clients.
    """

    role: Role | None
    all_clients: bool = False

    async def __call__(self, connection: HTTPConnection) -> Principal | None:
        refusal = self.refusal(connection)
        if refusal is not None:
            raise refusal.as_error()
        return principal_of(connection)

    def refusal(self, connection: HTTPConnection) -> Refusal | None:
        """Why whoever asks on this connection may not; None: they may."""
        if self.role is None:
            return None
        principal = principal_of(connection)
        if principal is None:
            return refusal_of(connection)
        if not principal.may(self.role):
            return Refusal(403, f"this needs the role {self.role}; {principal.name} has {principal.role}")
        if self.all_clients and principal.clients is not None:
            return Refusal(403, f"{principal.name} is limited to some clients, and this concerns all of them")
        return None


PUBLIC, VIEWER, OPERATOR, ADMIN = Rule(None), Rule("viewer"), Rule("operator"), Rule("admin")
#: of what belongs to no client alone: workflows' texts, keys, the Dagster UI
VIEWER_OF_ALL = Rule("viewer", all_clients=True)
OPERATOR_OF_ALL = Rule("operator", all_clients=True)
ADMIN_OF_ALL = Rule("admin", all_clients=True)


def principal_of(connection: HTTPConnection) -> Principal | None:
    """Who asks on this connection (http or websocket), as the authentication middleware found; None: nobody known."""
    return connection.scope.get("state", {}).get("principal")


def refusal_of(connection: HTTPConnection) -> Refusal:
    """Why nobody was recognised on this connection."""
    return connection.scope.get("state", {}).get("refusal") or Refusal()


#: finds who asks, or says why nobody is known. Blocks
Authenticate = Callable[[HTTPConnection], Principal | Refusal]
