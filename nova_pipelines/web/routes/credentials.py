"""`/clients/{client}/credentials`: mailboxes and databases of a client. What is secret goes in and never comes out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field, SecretStr

from nova_pipelines.database.clients import set_credential
from nova_pipelines.database.credential_records import (
    describe_credential,
    find_credential,
    remove_credential,
    with_defaults,
)
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.web.access import ADMIN, VIEWER
from nova_pipelines.web.answers import as_json, refusals
from nova_pipelines.web.bodies import Body, body_of, documented
from nova_pipelines.web.reads import reads
from nova_pipelines.web.routes.clients import ClientKey, Context
from nova_pipelines.web.seeing import Who, seen_client
from nova_pipelines.web.shapes import CredentialShape

router = APIRouter(prefix="/clients/{client_id}/credentials", tags=["clients"])

Kind = Annotated[Literal["email", "database"], Path()]
Label = Annotated[str, Path(pattern="^[A-Za-z0-9._ -]{1,100}$", description="Name among those of its kind")]
Tls = Literal["ssl", "starttls", "none"]
Host = Annotated[str, Field(pattern="^[A-Za-z0-9._:-]{1,253}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Line = Annotated[str, Field(min_length=1, max_length=320, pattern="^[^\\x00-\\x1f]+$")]


class NewCredential(Body):
    """`settings` as `nova client credentials set` has them. For a credential that exists, what is not given stays,
    the password too. A login by OAuth and a file of certificates are set by the command line."""

    imap_host: Host | None = None
    imap_port: Port | None = None
    imap_tls: Tls | None = None
    smtp_host: Host | None = None
    smtp_port: Port | None = None
    smtp_tls: Tls | None = None
    smtp_login: bool | None = None
    user: Line | None = None
    address: Line | None = None
    folder: Line | None = None
    authserv_id: Annotated[str, Field(pattern="^[A-Za-z0-9._:-]{0,255}$")] | None = None
    authserv_hops: Annotated[int, Field(ge=0, le=20)] | None = None
    url: Annotated[str, Field(min_length=1, max_length=1000, pattern="^[^\\x00-\\x1f]+$")] | None = None
    password: Annotated[SecretStr, Field(min_length=1, max_length=10_000, strict=False)] | None = None
    primary: bool = False


@router.get(
    "",
    response_model=list[CredentialShape],
    responses=refusals(404),
    dependencies=[Depends(VIEWER)],
    summary="List a client's credentials, without their secrets",
)
@reads
def list_credentials(client_id: ClientKey, who: Who, context: Context) -> Response:
    with context.services.databases.nova.read() as session:
        client = seen_client(session, who, client_id)
        return as_json([describe_credential(credential) for credential in client.credentials])


@router.put(
    "/{kind}/{label}",
    response_model=CredentialShape,
    responses=refusals(404, 409),
    dependencies=[Depends(ADMIN)],
    openapi_extra=documented(NewCredential),
    summary="Make or change a credential",
)
def put(
    client_id: ClientKey,
    kind: Kind,
    label: Label,
    body: Annotated[NewCredential, Depends(body_of(NewCredential))],
    who: Who,
    context: Context,
) -> Response:
    given: dict[str, Any] = body.model_dump(exclude_none=True, exclude={"password", "primary"})
    box = context.services.box()
    with context.services.databases.nova.session() as session:
        client = seen_client(session, who, client_id)
        current = find_credential(client, kind, label)
        if current is not None:  # locked: a token that is renewed just now must not be overwritten by an older one
            session.refresh(current, with_for_update=True)
        stored = dict(current.settings) if current else {}
        if body.password is not None:
            secret: dict[str, Any] = {"password": body.password.get_secret_value()}
            stored = {name: value for name, value in stored.items() if not name.startswith("oauth")}
        elif current is not None:
            secret = box.decrypt(current.secret)
        else:
            secret = _no_password(given)
        settings = with_defaults(kind, stored | given)
        credential = set_credential(
            session, box, client, kind, label, settings=settings, secret=secret, primary=body.primary or None
        )
        return as_json(describe_credential(credential))


def _no_password(given: dict[str, Any]) -> dict[str, Any]:
    """Of a new credential: a file asks for none. Raises PermanentError for all else."""
    if str(given.get("url", "")).startswith("sqlite:"):
        return {"password": ""}
    raise PermanentError("a new credential needs its password", remedy="give password")


@router.delete(
    "/{kind}/{label}",
    status_code=204,
    responses=refusals(404, 409),
    dependencies=[Depends(ADMIN)],
    summary="Remove a credential",
)
def remove(client_id: ClientKey, kind: Kind, label: Label, who: Who, context: Context) -> Response:
    with context.services.databases.nova.session() as session:
        remove_credential(session, seen_client(session, who, client_id), kind, label)
    return Response(status_code=204)
