"""Who may do what. Every route names exactly one rule; a route without one fails a test and is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fastapi import HTTPException, Request
from starlette.requests import HTTPConnection

Role = Literal["viewer", "operator", "admin"]
ROLES: tuple[Role, ...] = ("viewer", "operator", "admin")


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
        return ROLES.index(self.role) >= ROLES.index(role)

    def sees(self, slug: str | None) -> bool:
        """Whether things of this client (None: of no client) are shown to it."""
        return self.clients is None or (slug is not None and slug in self.clients)


@dataclass(frozen=True, slots=True)
class Rule:
    """As a dependency of a route: `dependencies=[Depends(Rule("operator"))]`, or to get the principal itself.

    `role` None: everybody, also without a key. `all_clients`: only for those who see all clients.
    """

    role: Role | None
    all_clients: bool = False

    async def __call__(self, request: Request) -> Principal | None:
        principal = principal_of(request)
        if self.role is None:
            return principal
        if principal is None:
            raise HTTPException(401, "log in, or send a key", headers={"WWW-Authenticate": "Bearer"})
        if not principal.may(self.role):
            raise HTTPException(403, f"this needs the role {self.role}; {principal.name} has {principal.role}")
        if self.all_clients and principal.clients is not None:
            raise HTTPException(403, f"{principal.name} is limited to some clients, and this concerns all of them")
        return principal


PUBLIC, VIEWER, OPERATOR, ADMIN = Rule(None), Rule("viewer"), Rule("operator"), Rule("admin")
#: of what belongs to no client alone: workflows' texts, keys, the Dagster UI
VIEWER_OF_ALL = Rule("viewer", all_clients=True)
OPERATOR_OF_ALL = Rule("operator", all_clients=True)
ADMIN_OF_ALL = Rule("admin", all_clients=True)


def principal_of(connection: HTTPConnection) -> Principal | None:
    """Who asks on this connection (http or websocket), as the authentication middleware found; None: nobody known."""
    return connection.scope.get("state", {}).get("principal")


#: finds who asks; None: nobody that is known
Authenticate = Callable[[HTTPConnection], Principal | None]
