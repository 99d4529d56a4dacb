"""`nova webhooks …`: who is told when executions end, and whether they took it."""

import getpass
import os
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nova_pipelines.cli.output import JsonFlag, emit, moment, note, plain, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.domain.errors import ConfigurationError, TransientError
from nova_pipelines.settings import load_settings

if TYPE_CHECKING:
    from nova_pipelines.database.nova import Webhook, WebhookDelivery

app = typer.Typer(help="Webhooks: who is told when executions end.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="N", help="Number of a webhook.")]


class Event(StrEnum):
    completed = "completed"
    failed = "failed"
    needs_review = "needs_review"
    unknown = "unknown"


@app.callback()
def webhooks() -> None:
    """Webhooks: who is told when executions end."""


@app.command()
def add(
    url: Annotated[str, typer.Argument(help="Where to post to: https, at a public address.")],
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="Only executions of this client.")] = None,
    event: Annotated[list[Event] | None, typer.Option(help="Only these ends. Repeatable. [default: all]")] = None,
    key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variable with the key of the signature. [default: a new key]")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Have an address called whenever an execution ends. Prints the key of the signature, once."""
    from nova_pipelines.adapters.targets import check_target
    from nova_pipelines.database.clients import find_client
    from nova_pipelines.database.secrets import open_box
    from nova_pipelines.database.webhooks import EVENTS, add_webhook

    settings = load_settings()
    target = check_target(url, private=settings.nova_webhook_private)
    key = _key(key_env)
    with open_nova(settings) as nova, nova.session() as session:
        row = add_webhook(
            session,
            open_box(settings),
            url=url,
            target=target,
            key=key or secrets.token_urlsafe(32),
            client=find_client(session, client) if client else None,
            events=[one.value for one in event] if event else EVENTS,
            by=f"{getpass.getuser()} (nova webhooks add)",
        )
        shown = _shown(row, client, {})
        made = None if key else open_box(settings).decrypt(row.secret)["key"]
    if as_json:
        emit(shown | {"key": made})
        return
    say(f"webhook {shown['id']} tells {plain(target)}")
    if made:
        say(f"key of its signatures: {made}")
        note("it is not shown again; the receiver checks X-Nova-Signature with it (docs/monitoring.md)")


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "")
    if len(key) < 16:
        raise ConfigurationError(
            f"the variable {variable} holds no key of 16 characters or more", remedy="leave --key-env out to get one"
        )
    return key


@app.command("list")
def list_(as_json: JsonFlag = False) -> None:
    """All webhooks, with how many deliveries wait, were taken and were given up."""
    from nova_pipelines.database.webhooks import count_deliveries, list_webhooks

    with open_nova() as nova, nova.read() as session:
        counts = count_deliveries(session)
        rows = [_shown(row, slug, counts.get(row.id, {})) for row, slug in list_webhooks(session)]
    if as_json:
        emit(rows)
        return
    table(
        ("no.", "target", "client", "events", "waiting", "sent", "given up", "added (UTC)"),
        [
            (
                *(row["id"], plain(row["target"]), row["client"] or "all", ", ".join(row["events"])),
                *(row["pending"], row["sent"], row["failed"], moment(row["created_at"])),
            )
            for row in rows
        ],
        numbers=("no.", "waiting", "sent", "given up"),
    )


def _shown(row: "Webhook", slug: str | None, counts: dict[str, int]) -> dict[str, Any]:
    return {
        "id": row.id,
        "target": row.target,
        "client": slug,
        "events": row.events.strip(",").split(","),
        "is_active": row.is_active,
        "created_by": row.created_by,
        "created_at": row.created_at,
        **{status: counts.get(status, 0) for status in ("pending", "sent", "failed")},
    }


@app.command()
def remove(number: Number, as_json: JsonFlag = False) -> None:
    """Tell this address nothing more, not even what waits for it."""
    from nova_pipelines.database.webhooks import find_webhook

    with open_nova() as nova, nova.session() as session:
        row = find_webhook(session, number)
        target = row.target
        session.delete(row)
    if as_json:
        emit({"id": number, "removed": True})
    else:
        say(f"webhook {number} to {plain(target)} is removed")


@app.command("test")
def try_(number: Number, as_json: JsonFlag = False) -> None:
    """Call an address now, with an event `test`, and say what it answered. Exit code 1 if it did not take it."""
    from nova_pipelines.database.nova import WebhookDelivery
    from nova_pipelines.database.webhooks import add_test, find_webhook
    from nova_pipelines.nodes.webhooks import Courier
    from nova_pipelines.nodes.wiring import build_services

    settings = load_settings()
    with open_nova(settings) as nova:
        with nova.session() as session:
            delivery = add_test(session, find_webhook(session, number)).id
        with build_services(settings) as services, services.databases:
            courier = Courier(services, settings)
            # the web service may be faster: then its answer is waited for
            row = _settled(lambda: (courier.round(), _row(nova, WebhookDelivery, delivery))[1])
    if as_json:
        emit({"id": number, "status": row.status, "error": row.last_error})
    elif row.status == "sent":
        say(f"webhook {number} took it")
    else:
        raise TransientError(f"webhook {number} did not take it: {row.last_error or 'no answer yet'}")
    if row.status != "sent":
        raise typer.Exit(1)


def _row(nova: Any, kind: Any, number: int) -> "WebhookDelivery":
    with nova.read() as session:
        return session.get_one(kind, number)


def _settled(look: Any, seconds: float = 20.0) -> "WebhookDelivery":
    import time

    deadline = time.monotonic() + seconds
    while (row := look()).status == "pending" and time.monotonic() < deadline:
        time.sleep(0.2)
    return row


@app.command()
def retry(number: Number, as_json: JsonFlag = False) -> None:
    """Try once more what was given up for an address."""
    from nova_pipelines.database.webhooks import find_webhook, release_failed

    with open_nova() as nova, nova.session() as session:
        count = release_failed(session, find_webhook(session, number).id)
    if as_json:
        emit({"id": number, "released": count})
    else:
        say(f"{count} deliveries of webhook {number} are tried again")
