"""`nova keys …`: keys of programs for the web service; `nova keys rotate` is about those of credentials at rest."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from nova_pipelines.cli.output import JsonFlag, emit, moment, note, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.cli.system import rotate

app = typer.Typer(help="Keys of programs for the web service, and the encryption of credentials.", no_args_is_help=True)


class RoleName(StrEnum):
    viewer = "viewer"
    operator = "operator"
    admin = "admin"


RoleOption = Annotated[
    RoleName,
    typer.Option(help="viewer: look; operator: also start, end, retry, decide; admin: also change and delete."),
]
ClientOption = Annotated[
    list[str] | None,
    typer.Option("--client", metavar="SLUG", help="See this client alone. Repeatable. [default: all clients]"),
]


@app.callback()
def keys() -> None:
    """Keys of programs for the web service, and the encryption of credentials."""


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for, such as ci-server.")],
    role: RoleOption,
    client: ClientOption = None,
    expires: Annotated[
        int | None, typer.Option(metavar="DAYS", min=1, max=3650, help="It ends after so many days. [default: never]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key for a program. It is shown once; send it as `Authorization: Bearer KEY`."""
    from nova_pipelines.database.api_keys import create_key
    from nova_pipelines.database.audit_log import machine_user, record_command

    ends = datetime.now(UTC) + timedelta(days=expires) if expires else None
    with open_nova() as nova, nova.session() as session:
        key, token = create_key(
            session, name=name, role=role.value, clients=client or None, by=machine_user(), expires_at=ends
        )
        record_command(session, "keys.create", f"{key.id} {key.name} {key.role}")
        shown = describe(key)
    if as_json:
        emit(shown | {"token": token})
        return
    say(token)
    note(f"key {shown['id']} ({name}) made; it is not stored and cannot be shown again: keep it in a safe place")


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List all keys of programs. The keys themselves are not stored."""
    from nova_pipelines.database.api_keys import list_keys

    with open_nova() as nova, nova.read() as session:
        rows = [describe(key) for key in list_keys(session)]
    if as_json:
        emit(rows)
        return
    table(
        ("no.", "name", "role", "clients", "state", "expires (UTC)", "last used (UTC)"),
        [
            (
                row["id"],
                row["name"],
                row["role"],
                "all" if row["clients"] is None else ", ".join(row["clients"]),
                row["state"],
                moment(row["expires_at"]),
                moment(row["last_used_at"]),
            )
            for row in rows
        ],
        numbers=("no.",),
    )


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="NAME", help="Name or number of the key.")], as_json: JsonFlag = False
) -> None:
    """End a key of a program at once and for ever."""
    from nova_pipelines.database.api_keys import revoke_key
    from nova_pipelines.database.audit_log import record_command

    with open_nova() as nova, nova.session() as session:
        found = revoke_key(session, key)
        record_command(session, "keys.revoke", f"{found.id} {found.name}")
        shown = describe(found)
    if as_json:
        emit(shown)
    else:
        say(f"key {shown['id']} ({shown['name']}) revoked")


app.command()(rotate)


def describe(key: Any) -> dict[str, Any]:
    """A key as plain data, without what it is known by."""
    from nova_pipelines.database.api_keys import why_not

    names = ("id", "name", "role", "clients", "created_at", "created_by", "expires_at", "revoked_at", "last_used_at")
    state = "revoked" if key.revoked_at else "expired" if why_not(key) else "good"
    return {name: getattr(key, name) for name in names} | {"state": state}
