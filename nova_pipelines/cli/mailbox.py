"""`nova mailbox …`: how each mailbox is, what happened to it, and old mails that are to be worked up."""

from typing import Annotated, Any

import typer

from nova_pipelines.cli import quarantine
from nova_pipelines.cli.backfill import backfill
from nova_pipelines.cli.output import JsonFlag, emit, moment, note, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.alerts import open_alerts, undelivered
from nova_pipelines.database.clients import find_client, mailboxes
from nova_pipelines.database.mail_places import places
from nova_pipelines.database.mailbox_views import list_events, view_mailboxes
from nova_pipelines.database.nova import Client, Credential
from nova_pipelines.database.session import require_file
from nova_pipelines.database.types import utc_now
from nova_pipelines.nodes.alerts import Limits
from nova_pipelines.nodes.mailbox_rows import mailbox_row
from nova_pipelines.settings import load_settings

app = typer.Typer(help="Mailboxes: their health, what was set aside, and old mails.", no_args_is_help=True)
app.add_typer(quarantine.app, name="quarantine")


@app.command()
def status(as_json: JsonFlag = False) -> None:
    """Show how each mailbox is. Exit code 1 if one is silent for too long or its credentials are refused.

    Reads nova-db alone and needs no daemon: for cron and health checks.
    """
    limits, now = Limits.of(load_settings()), utc_now()
    with open_nova() as nova, nova.read() as session:
        views = view_mailboxes(session, places(session))
    rows = [mailbox_row(view, limits, now) for view in views]
    bad = [row for row in rows if row["silent"] or row["refused"]]
    if as_json:
        emit({"healthy": not bad, "mailboxes": rows})
    elif not rows:
        say("no workflow reads a mailbox: load one with a mailbox trigger, and add a client with its credentials")
    else:
        table(
            ("mailbox", "", "last success (UTC)", "waiting", "oldest", "lag", "set aside", "error"),
            [
                (
                    row["name"],
                    "refused" if row["refused"] else "silent" if row["silent"] else "failing" if row["error"] else "ok",
                    moment(row["last_success_at"]) or "never",
                    row["backlog"],
                    _seconds(row["oldest_waits_seconds"]),
                    _seconds(row["lag_seconds"]),
                    row["quarantined"],
                    row["error"],
                )
                for row in rows
            ],
            numbers=("waiting", "set aside"),
        )
        if bad:
            note(f"{len(bad)} of {len(rows)} need somebody: `nova doctor` says what to do")
    if bad:
        raise typer.Exit(1)


def _seconds(value: float | None) -> str:
    if not value:
        return ""
    return f"{value:.1f} s" if value < 120 else f"{value / 60:.0f} min"


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """List every mailbox of every active client, and the folders that workflows read."""
    with open_nova() as nova, nova.read() as session:
        read: dict[int, list[str]] = {}
        for place in places(session):
            read.setdefault(place.credential_id, []).append(place.folder)
        rows = [_account(client, credential, read) for client, credential in mailboxes(session)]
    if as_json:
        emit(rows)
        return
    table(
        ("client", "label", "user", "server", "folders read"),
        [
            (row["client"], row["label"], row["user"], row["server"], ", ".join(row["folders"]) or "none")
            for row in rows
        ],
    )


def _account(client: Client, credential: Credential, read: dict[int, list[str]]) -> dict[str, Any]:
    settings = credential.settings
    host = settings.get("imap_host")
    return {
        "client": client.slug,
        "label": credential.label,
        "primary": credential.is_primary,
        "user": settings.get("user"),
        "server": f"{host}:{settings.get('imap_port', 993)}" if host else None,
        "folders": read.get(credential.id, []),
    }


@app.command()
def events(
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="Only those of this client.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List what happened to mailboxes, newest first: folders made anew, mails released, backfills."""
    with open_nova() as nova, nova.read() as session:
        client_id = find_client(session, client).id if client else None
        rows = [
            {"at": event.at, "client": slug, "folder": event.folder, "kind": event.kind, "detail": event.detail}
            for event, slug in list_events(session, client_id=client_id, limit=limit)
        ]
    if as_json:
        emit(rows)
        return
    table(
        ("at (UTC)", "client", "folder", "what", "detail"),
        [
            (
                moment(r["at"]),
                r["client"],
                r["folder"],
                r["kind"],
                ", ".join(f"{k}: {v}" for k, v in r["detail"].items()),
            )
            for r in rows
        ],
    )


@app.command()
def alerts(
    send: Annotated[
        bool, typer.Option("--send", help="Look now, and tell what has to be told: for cron, beside the daemon.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the alerts that are open. Exit code 1 if there is one, or one cannot be delivered."""
    if send:
        _evaluate()
    with open_nova() as nova, nova.read() as session:
        found = open_alerts(session)
        errors = [f"by {notice.channel}: {notice.error}" for notice in undelivered(session)]
        rows = [
            {name: getattr(alert, name) for name in ("id", "kind", "client", "message", "remedy", "began_at")}
            for alert in found
        ]
    if as_json:
        emit({"alerts": rows, "undelivered": errors})
    else:
        for row in rows:
            say(f"{row['id']}  {moment(row['began_at'])} UTC  {row['message']} → {row['remedy']}")
        for error in errors:
            note(f"not delivered {error}")
        if not rows:
            say("no alert is open")
    if rows or errors:
        raise typer.Exit(1)


def _evaluate() -> None:
    from nova_pipelines.nodes.alerts import evaluate_alerts
    from nova_pipelines.nodes.wiring import build_services

    settings = load_settings()
    with build_services(settings) as services, services.databases:
        require_file(services.databases.nova)
        evaluate_alerts(services, settings, now=utc_now())


app.command()(backfill)
