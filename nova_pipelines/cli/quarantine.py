"""`nova mailbox quarantine …`: mails that could not be read, and the two ways out."""

import getpass
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database import quarantine
from nova_pipelines.database.clients import find_client
from nova_pipelines.database.nova import Message
from nova_pipelines.domain.errors import ConfigurationError

app = typer.Typer(help="Mails that could not be read and were set aside.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="N", help="Number of a mail, as `list` shows it.")]


@app.command("list")
def list_(
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="Only those of this client.")] = None,
    handled: Annotated[bool, typer.Option("--handled", help="Also those that a person has settled.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the mails that were set aside, oldest first."""
    with open_nova() as nova, nova.read() as session:
        client_id = find_client(session, client).id if client else None
        found = quarantine.list_quarantined(session, client_id=client_id, handled=handled)
        rows = [_fields(message, slug) for message, slug in found]
    if as_json:
        emit(rows)
        return
    if not rows:
        say("no mail is set aside")
        return
    table(
        ("no.", "client", "folder", "from / subject", "why"),
        [(r["id"], r["client"], r["folder"], f"{r['from'] or ''} / {r['subject'] or ''}", r["error"]) for r in rows],
        numbers=("no.",),
    )
    note("`nova mailbox quarantine release N` has one read again; with --handled it is settled by hand")


@app.command()
def show(number: Number, as_json: JsonFlag = False) -> None:
    """Show one of them, and where it lies."""
    with open_nova() as nova, nova.read() as session:
        fields = _fields(*quarantine.find_quarantined(session, number))
    if as_json:
        emit(fields)
    else:
        _print(fields)


@app.command()
def release(
    number: Number,
    handled: Annotated[
        bool, typer.Option("--handled", help="Do not read it again: a person has taken care of it.")
    ] = False,
    message: Annotated[str | None, typer.Option("--note", help="What was done, for --handled.")] = None,
    by: Annotated[str | None, typer.Option(help="Who did it; else the user of this terminal.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Have a mail read again, with its attempts reset; or (--handled) note that a person took care of it."""
    if handled and not (message or "").strip():
        raise ConfigurationError("--handled needs a --note", remedy='such as --note "entered by hand, invoice F-12"')
    if message and not handled:
        raise ConfigurationError("--note belongs to --handled", remedy="leave it out, or add --handled")
    who = by or getpass.getuser()
    with open_nova() as nova:
        with nova.session() as session:
            if handled:
                quarantine.settle(session, number, by=who, note=message or "")
            else:
                quarantine.release(session, number, by=who)
        with nova.read() as session:
            changed = session.get_one(Message, number)
            fields = {"id": number, "status": changed.status, "handled_by": changed.handled_by}
    if as_json:
        emit(fields)
    elif handled:
        say(f"mail {number} is settled by {who}")
    else:
        say(f"mail {number} is read again at the next search of its mailbox")


def _fields(message: Message, slug: str) -> dict[str, Any]:
    return {
        "id": message.id,
        "client": slug,
        "folder": message.folder,
        "uid": message.uid,
        "uidvalidity": message.uidvalidity,
        "message_id": message.message_id,
        "from": message.sender,
        "subject": message.subject,
        "sent_at": message.sent_at,
        "received_at": message.received_at,
        "seen_at": message.created_at,
        "size": message.size,
        "attempts": message.attempts,
        "error": message.error,
        "handled_at": message.handled_at,
        "handled_by": message.handled_by,
        "handled_note": message.handled_note,
    }


def _print(fields: Mapping[str, Any]) -> None:
    times = ("sent_at", "received_at", "seen_at", "handled_at")
    pairs((name.replace("_", " "), moment(value) if name in times else value) for name, value in fields.items())
