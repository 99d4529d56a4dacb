"""What a principal sees: the clients that it is limited to, as filters of queries."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from nova_pipelines.database.clients import find_client
from nova_pipelines.database.executions import Listed, find_execution
from nova_pipelines.database.listings import client_ids
from nova_pipelines.database.nova import Client
from nova_pipelines.domain.errors import NotFound
from nova_pipelines.web.access import Principal, principal_of


async def _known(request: Request) -> Principal:
    principal = principal_of(request)
    if principal is None:  # the rule of the route has refused it before
        raise RuntimeError("this route has no rule that asks who it is")
    return principal


#: who asks, in a route whose rule wants somebody
Who = Annotated[Principal, Depends(_known)]


def slugs_for(who: Principal, asked: str | None) -> Collection[str] | None:
    """The clients whose things are listed: the one that was asked for, if it is shown at all; None: all."""
    if asked is None:
        return who.clients
    slug = asked.strip().lower()
    return [slug] if who.sees(slug) else []


def clients_for(session: Session, who: Principal, asked: str | None) -> list[int] | None:
    """The same as numbers. An unknown client has no things, as one that is not shown."""
    slugs = slugs_for(who, asked)
    return None if slugs is None else client_ids(session, slugs)


def seen_client(session: Session, who: Principal, key: str) -> Client:
    """A client by its slug or its number. Raises NotFound, also for one that is not shown."""
    client = None
    try:
        client = find_client(session, key)
    except NotFound as error:
        number = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else 0
        client = session.get(Client, number) if number else None
        if client is None and who.clients is None:
            raise error  # its suggestions are for those who see all
    if client is None or not who.sees(client.slug):
        raise NotFound(f"there is no client {key!r}")
    return client


def seen_execution(session: Session, who: Principal, number: int) -> Listed:
    """An execution by its number. Raises NotFound, also for one that is not shown."""
    try:
        listed = find_execution(session, number)
    except NotFound:
        raise NotFound(f"there is no execution {number}", remedy="GET /executions lists the newest ones") from None
    if not who.sees(listed.client):
        raise NotFound(f"there is no execution {number}", remedy="GET /executions lists the newest ones")
    return listed
