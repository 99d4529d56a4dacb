"""`nova outbox …`: mail that goes out, and what a person decides about one of which nobody knows."""

import getpass
from enum import StrEnum
from typing import Annotated, Any

import typer

from nova_pipelines.cli.executions import who_takes_it
from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, plain, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.clients import find_client
from nova_pipelines.database.outbox import (
    Decision,
    Listed,
    Resolved,
    count_mails,
    find_mail,
    list_mails,
    resolve,
)
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import load_settings

app = typer.Typer(help="Mail that goes out: what was sent, what waits, what nobody knows.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="N", help="Number of a mail in the outbox.")]


class Status(StrEnum):
    pending = "pending"
    sending = "sending"
    sent = "sent"
    unknown = "unknown"
    held = "held"
    failed = "failed"
    dropped = "dropped"


#: what each status means to a person
MEANINGS = {
    "pending": "it waits for its next try",
    "sending": "it is being sent, or a crash interrupted that",
    "sent": "the server took it",
    "unknown": "nobody knows whether the server took it: look for its Message-ID in the sent mails of the account",
    "held": "the address was answered too often: a person decides",
    "failed": "the server does not take it",
    "dropped": "a person said that it is not to be sent",
}


@app.callback()
def outbox() -> None:
    """Mail that goes out: what was sent, what waits, what nobody knows."""


@app.command("list")
def list_(
    status: Annotated[list[Status] | None, typer.Option(help="Only mails of this status. Repeatable.")] = None,
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="Only mails for this client.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List mails, newest first."""
    with open_nova() as nova, nova.read() as session:
        client_id = find_client(session, client).id if client else None
        statuses = [each.value for each in status or ()]
        rows = [summary(found) for found in list_mails(session, statuses=statuses, client_id=client_id, limit=limit)]
        counts = count_mails(session)
    if as_json:
        emit(rows)
        return
    table(
        ("no.", "status", "execution", "client", "begun (UTC)", "to / subject / error"),
        [
            (
                row["id"],
                row["status"],
                row["execution_id"],
                row["client"],
                moment(row["begun_at"] or row["created_at"]),
                _about(row),
            )
            for row in rows
        ],
        numbers=("no.", "execution"),
    )
    note("all: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count) if rows else "no mail")


def _about(row: dict[str, Any]) -> str:
    parts = (plain(row["recipient"]), plain(row["subject"])[:60], plain(row["error"])[:100])
    return " / ".join(part for part in parts if part)


@app.command()
def show(number: Number, as_json: JsonFlag = False) -> None:
    """Show a mail, what is known of it, and what was decided."""
    with open_nova() as nova, nova.read() as session:
        shown = detail(find_mail(session, number))
    if as_json:
        emit(shown)
        return
    pairs(
        [
            ("mail", shown["id"]),
            ("status", shown["status"]),
            ("that means", MEANINGS[shown["status"]]),
            ("error", shown["error"]),
            ("from", shown["sender"]),
            ("to", shown["recipient"]),
            ("subject", shown["subject"]),
            ("Message-ID", shown["message_id"]),
            ("answers", shown["in_reply_to"]),
            ("client", shown["client"]),
            ("execution", f"{shown['execution_id']} ({shown['execution_status']}), node {plain(shown['node_id'])}"),
            ("tries", shown["attempts"]),
            ("made (UTC)", moment(shown["created_at"])),
            ("last try (UTC)", moment(shown["begun_at"])),
            ("next try (UTC)", moment(shown["next_try_at"])),
            ("sent (UTC)", moment(shown["sent_at"])),
            *(("decided", _decision(made)) for made in shown["decisions"]),
        ]
    )
    say("")
    say(shown["body"])
    if shown["status"] in ("unknown", "held", "failed", "sending"):
        note(f"`nova outbox resolve {number}` with --sent, --resend or --drop says what is true, or what is to be done")


def _decision(made: dict[str, Any]) -> str:
    reason = f": {made['note']}" if made["note"] else ""
    return f"{moment(made['decided_at'])} {made['decision']} (was {made['status_before']}) by {made['by']}{reason}"


@app.command("resolve")
def resolve_(
    number: Number,
    sent: Annotated[
        bool, typer.Option("--sent", help="It was sent: the execution goes on without sending it.")
    ] = False,
    resend: Annotated[bool, typer.Option("--resend", help="Send it (again), under the same Message-ID.")] = False,
    drop: Annotated[bool, typer.Option("--drop", help="Do not send it: the execution goes on without it.")] = False,
    why: Annotated[str | None, typer.Option("--note", help="Why; kept with the decision.")] = None,
    by: Annotated[str | None, typer.Option(help="Who decides. [default: the user of this machine]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is true of a mail that is unknown, held, failed or waiting. Its execution goes on after that."""
    choices: dict[Decision, bool] = {"sent": sent, "resend": resend, "drop": drop}
    chosen: list[Decision] = [name for name, wanted in choices.items() if wanted]
    if len(chosen) != 1:
        raise ConfigurationError("say one thing about the mail", remedy="give --sent, --resend or --drop")
    settings = load_settings()
    with open_nova(settings) as nova, nova.session() as session:
        done = resolve(session, number, chosen[0], by=by or _me(), note=why)
    if as_json:
        emit({name: getattr(done, name) for name in ("mail_id", "status", "execution_id", "goes_on", "reason")})
    else:
        _print_resolved(done, who_takes_it(settings))


def _print_resolved(done: Resolved, who: str) -> None:
    words = {"sent": "counts as sent", "dropped": "is dropped", "pending": "will be sent"}
    say(f"mail {done.mail_id} {words[done.status]}")
    if done.goes_on:
        say(f"execution {done.execution_id} goes on: {who}")
    else:
        note(f"execution {done.execution_id} stays as it is: {done.reason}")


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"


def summary(listed: Listed) -> dict[str, Any]:
    """A mail as plain data, without its text."""
    mail = listed.mail
    names = ("id", "status", "execution_id", "node_id", "sender", "recipient", "subject", "message_id", "attempts")
    times = ("created_at", "begun_at", "next_try_at", "sent_at")
    shown = {name: getattr(mail, name) for name in (*names, "error", *times)}
    return shown | {"client": listed.client, "execution_status": listed.execution.status}


def detail(listed: Listed) -> dict[str, Any]:
    decisions = [
        {
            "decision": made.decision,
            "status_before": made.status_before,
            "by": made.decided_by,
            "note": made.note,
            "decided_at": made.decided_at,
        }
        for made in listed.mail.decisions
    ]
    more = {"body": listed.mail.body, "in_reply_to": listed.mail.in_reply_to, "decisions": decisions}
    return summary(listed) | more
