"""`nova client …`: the firm's clients."""

from typing import Annotated, Any

import typer

from nova_pipelines.cli.credentials import app as credentials_app
from nova_pipelines.cli.output import JsonFlag, emit, moment, pairs, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.credential_records import describe_client
from nova_pipelines.domain.errors import ConfigurationError

app = typer.Typer(help="Clients: whose mailboxes are read and whose invoices are stored.", no_args_is_help=True)
app.add_typer(credentials_app, name="credentials")

Slug = Annotated[str, typer.Argument(metavar="SLUG", help="Short name of the client, such as idom.")]
Allow = Annotated[
    list[str] | None,
    typer.Option("--allow-sender", help="Who may write: an address, or a domain (@example.com). Repeatable."),
]
Expose = Annotated[
    bool | None,
    typer.Option("--expose-credentials/--hide-credentials", help="Show credentials to code of old workflows."),
]
Network = Annotated[
    bool | None, typer.Option("--allow-network/--no-network", help="Let this client's sandboxes use the network.")
]


@app.command()
def add(
    slug: Annotated[str, typer.Argument(metavar="SLUG", help="Short name, such as idom: a-z, 0-9, hyphens.")],
    name: Annotated[str | None, typer.Option(help="Name of the client. [default: the short name]")] = None,
    email: Annotated[str | None, typer.Option(help="Mail address of the client.")] = None,
    allow_sender: Allow = None,
    expose_credentials: Expose = None,
    allow_network: Network = None,
    as_json: JsonFlag = False,
) -> None:
    """Add a client."""
    from nova_pipelines.database.clients import add_client

    with open_nova() as nova, nova.session() as session:
        client = add_client(
            session,
            name=slug if name is None else name,
            slug=slug,
            email=email,
            sender_whitelist=allow_sender or (),
            expose_credentials=bool(expose_credentials),
            allow_network=bool(allow_network),
        )
        session.flush()
        shown = describe_client(client)
    if as_json:
        emit(shown)
        return
    say(f"client {slug} added (number {shown['id']})")
    say(f"next: nova client credentials set {slug} email --imap-host HOST --smtp-host HOST --user USER")


@app.command("list")
def list_clients(as_json: JsonFlag = False) -> None:
    """List all clients."""
    from sqlalchemy import select

    from nova_pipelines.database.nova import Client

    with open_nova() as nova, nova.read() as session:
        clients = [describe_client(client) for client in session.scalars(select(Client).order_by(Client.slug))]
    if as_json:
        emit(clients)
        return
    table(
        ("slug", "name", "email", "active", "whitelist", "mailboxes", "databases"),
        [
            (
                client["slug"],
                client["name"],
                client["email"],
                _yes(client["is_active"]),
                ", ".join(client["sender_whitelist"]),
                sum(credential["kind"] == "email" for credential in client["credentials"]),
                sum(credential["kind"] == "database" for credential in client["credentials"]),
            )
            for client in clients
        ],
        numbers=("mailboxes", "databases"),
    )


@app.command()
def show(slug: Slug, as_json: JsonFlag = False) -> None:
    """Show a client with its credentials (never a password)."""
    from nova_pipelines.database.clients import find_client

    with open_nova() as nova, nova.read() as session:
        client = describe_client(find_client(session, slug))
    if as_json:
        emit(client)
        return
    pairs(
        [
            ("number", client["id"]),
            ("name", client["name"]),
            ("slug", client["slug"]),
            ("email", client["email"]),
            ("active", _yes(client["is_active"])),
            ("whitelist", ", ".join(client["sender_whitelist"]) or "everybody may write"),
            ("credentials in sandboxes", _yes(client["expose_credentials"])),
            ("network in sandboxes", _yes(client["allow_network"])),
        ]
    )
    for credential in client["credentials"]:
        say("")
        health = credential["last_error"] or (f"read at {moment(credential['last_success_at'])} UTC")
        pairs(
            [
                (credential["kind"], f"{credential['label']}{' (primary)' if credential['is_primary'] else ''}"),
                *sorted(credential["settings"].items()),
                ("health", health if credential["last_error"] or credential["last_success_at"] else "not used yet"),
            ]
        )


@app.command()
def update(
    slug: Slug,
    name: Annotated[str | None, typer.Option(help="New name.")] = None,
    email: Annotated[str | None, typer.Option(help="New mail address; an empty text takes it away.")] = None,
    allow_sender: Allow = None,
    allow_everybody: Annotated[bool, typer.Option("--allow-everybody", help="Empty the whitelist.")] = False,
    expose_credentials: Expose = None,
    allow_network: Network = None,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether NOVA works for it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Change a client. What is not given stays; --allow-sender replaces the whole whitelist."""
    from nova_pipelines.database.clients import find_client, update_client

    if allow_sender and allow_everybody:
        raise ConfigurationError("--allow-sender and --allow-everybody exclude each other", remedy="give one of them")
    given = {
        "name": name,
        "email": email,
        "sender_whitelist": [] if allow_everybody else allow_sender or None,
        "expose_credentials": expose_credentials,
        "allow_network": allow_network,
        "is_active": active,
    }
    changes: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if changes.get("email") == "":
        changes["email"] = None
    if not changes:
        raise ConfigurationError("nothing to change was given", remedy="see `nova client update --help`")
    with open_nova() as nova, nova.session() as session:
        client = describe_client(update_client(session, find_client(session, slug), **changes))
    if as_json:
        emit(client)
    else:
        say(f"client {client['slug']} changed: {', '.join(sorted(changes))}")


@app.command()
def remove(slug: Slug, as_json: JsonFlag = False) -> None:
    """Remove a client with its credentials. One that has executions or mails is only made inactive."""
    from nova_pipelines.database.clients import find_client, remove_client

    with open_nova() as nova, nova.session() as session:
        client = find_client(session, slug)
        shown, done = client.slug, remove_client(session, client)
    if as_json:
        emit({"slug": shown, "result": done})
    elif done == "deleted":
        say(f"client {shown} deleted")
    else:
        say(f"client {shown} made inactive: its executions and mails stay")


def _yes(value: bool) -> str:
    return "yes" if value else "no"
