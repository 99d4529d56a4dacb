"""`/clients`: whose mailboxes are read and whose invoices are stored."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import selectinload

from nova_pipelines.database.clients import add_client, remove_client, update_client
from nova_pipelines.database.credential_records import describe_client
from nova_pipelines.database.nova import Client
from nova_pipelines.domain.errors import Conflict
from nova_pipelines.web.access import ADMIN_OF_ALL, VIEWER
from nova_pipelines.web.answers import TOTAL, PageDep, as_json, as_list, refusals
from nova_pipelines.web.bodies import Body, body_of, documented
from nova_pipelines.web.context import WebContext, context_of
from nova_pipelines.web.reads import reads
from nova_pipelines.web.seeing import Who, seen_client
from nova_pipelines.web.shapes import ClientShape

router = APIRouter(prefix="/clients", tags=["clients"])

Context = Annotated[WebContext, Depends(context_of)]
#: in a path: a slug or a number
ClientKey = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,100}$", description="Slug or number of a client")]
_ADDRESS = "^[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,60}([.][A-Za-z0-9-]{1,60}){0,4}$"
_SENDER = "^([A-Za-z0-9._%+-]{1,64})?@[A-Za-z0-9-]{1,60}([.][A-Za-z0-9-]{1,60}){0,4}$"
_NAME = "^[^\\s\\x00-\\x1f]([^\\x00-\\x1f]{0,198}[^\\s\\x00-\\x1f])?$"
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=_NAME)]
Address = Annotated[str, Field(pattern=_ADDRESS)]
Sender = Annotated[str, Field(pattern=_SENDER)]


class NewClient(Body):
    name: Name
    slug: Annotated[str, Field(pattern="^[a-z0-9]+(-[a-z0-9]+)*$", max_length=100)]
    email: Address | None = None
    sender_whitelist: Annotated[list[Sender], Field(max_length=1000)] = Field(default_factory=list)
    expose_credentials: bool = False
    allow_network: bool = False


class ClientChanges(Body):
    """What is not given stays."""

    name: Name | None = None
    email: Address | None = None
    sender_whitelist: Annotated[list[Sender], Field(max_length=1000)] | None = None
    expose_credentials: bool | None = None
    allow_network: bool | None = None
    is_active: bool | None = None


@router.post(
    "",
    status_code=201,
    response_model=ClientShape,
    responses=refusals(409),
    dependencies=[Depends(ADMIN_OF_ALL)],
    openapi_extra=documented(NewClient),
    summary="Add a client",
)
def add(body: Annotated[NewClient, Depends(body_of(NewClient))], context: Context) -> Response:
    with context.services.databases.nova.session() as session:
        client = add_client(session, **body.model_dump())
        session.flush()
        shown = describe_client(client)
    return as_json(shown, 201, {"Location": f"/clients/{shown['slug']}"})


@router.get(
    "",
    response_model=list[ClientShape],
    responses={200: TOTAL, **refusals()},
    dependencies=[Depends(VIEWER)],
    summary="List clients by slug",
)
@reads
def list_clients(who: Who, page: PageDep, context: Context) -> Response:
    wanted = select(Client) if who.clients is None else select(Client).where(Client.slug.in_(who.clients))
    query = wanted.order_by(Client.slug).offset(page.skip).limit(page.limit).options(selectinload(Client.credentials))
    with context.services.databases.nova.look() as session:
        rows = [describe_client(client) for client in session.scalars(query)]
        return as_list(rows, page, lambda: session.scalar(select(func.count()).select_from(wanted.subquery())) or 0)


@router.get(
    "/{client_id}",
    response_model=ClientShape,
    responses=refusals(404),
    dependencies=[Depends(VIEWER)],
    summary="A client with its credentials, never a secret",
)
@reads
def show(client_id: ClientKey, who: Who, context: Context) -> Response:
    with context.services.databases.nova.read() as session:
        return as_json(describe_client(seen_client(session, who, client_id)))


@router.put(
    "/{client_id}",
    response_model=ClientShape,
    responses=refusals(404),
    dependencies=[Depends(ADMIN_OF_ALL)],
    openapi_extra=documented(ClientChanges),
    summary="Change a client; what is not given stays",
)
def change(
    client_id: ClientKey, body: Annotated[ClientChanges, Depends(body_of(ClientChanges))], who: Who, context: Context
) -> Response:
    given: dict[str, Any] = body.model_dump(exclude_unset=True)
    # null takes the address away; of all else there is no "none"
    changes = {name: value for name, value in given.items() if value is not None or name == "email"}
    with context.services.databases.nova.session() as session:
        client = update_client(session, seen_client(session, who, client_id), **changes)
        session.refresh(client)
        return as_json(describe_client(client))


@router.delete(
    "/{client_id}",
    status_code=204,
    responses=refusals(404, 409),
    dependencies=[Depends(ADMIN_OF_ALL)],
    summary="Delete a client that has no executions and no mails",
)
def remove(client_id: ClientKey, who: Who, context: Context) -> Response:
    with context.services.databases.nova.session() as session:
        client = seen_client(session, who, client_id)
        slug = client.slug
        if remove_client(session, client) == "deactivated":
            raise Conflict(  # rolls the deactivation back
                f"client {slug} has executions or mails, which stay",
                remedy=f'set it inactive: PUT /clients/{slug} {{"is_active": false}}',
            )
    return Response(status_code=204)
