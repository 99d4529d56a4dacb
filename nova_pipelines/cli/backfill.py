"""`nova mailbox backfill`: old mails are taken in, each once."""

import getpass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from sqlalchemy.orm import Session

from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, say
from nova_pipelines.database.clients import find_client
from nova_pipelines.database.mail_places import places
from nova_pipelines.database.nova import Credential
from nova_pipelines.database.session import require_file
from nova_pipelines.domain.errors import NotFound
from nova_pipelines.settings import load_settings

if TYPE_CHECKING:
    from nova_pipelines.nodes.backfill import Done, Plan

DAY = ["%Y-%m-%d"]
MIB = 1024 * 1024


def backfill(
    client: Annotated[str, typer.Argument(metavar="CLIENT", help="Slug of a client.")],
    since: Annotated[datetime, typer.Option(formats=DAY, metavar="DATE", help="The first day, such as 2026-01-01.")],
    until: Annotated[
        datetime | None, typer.Option(formats=DAY, metavar="DATE", help="The last day; else until now.")
    ] = None,
    folder: Annotated[str, typer.Option(help="Folder of the mailbox.")] = "INBOX",
    label: Annotated[str | None, typer.Option(help="Which mailbox of the client; else its primary one.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be taken, and change nothing.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Take at most so many, the oldest first.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Take old mails in, read or not, each once. Can be broken off and repeated.

    Days are those of the server (INTERNALDATE). What was taken is worked on like every other mail of the folder.
    """
    from nova_pipelines.nodes.backfill import Span, plan_backfill, run_backfill
    from nova_pipelines.nodes.wiring import build_services

    with build_services(load_settings()) as services, services.databases:
        require_file(services.databases.nova)
        with services.databases.nova.read() as session:
            credential = _mailbox(session, client, label)
            read = any(p.credential_id == credential.id and p.folder == folder for p in places(session))
        span = Span(credential.id, folder, since.date(), until.date() if until else None)
        if not read:
            note(f"no live workflow reads {folder!r} of {client}: its mails wait until one does")
        if dry_run:
            _print_plan(plan_backfill(services, span, limit=limit), as_json)
            return

        def progress(done: int, of: int) -> None:
            note(f"{done} of {of}")

        done = run_backfill(services, span, limit=limit, by=getpass.getuser(), progress=progress)
    _print_done(done, as_json)


def _mailbox(session: Session, slug: str, label: str | None) -> Credential:
    own = [c for c in find_client(session, slug).credentials if c.kind == "email" and c.settings.get("imap_host")]
    chosen = [c for c in own if c.is_primary] if label is None else [c for c in own if c.label == label]
    if not chosen:
        named = ", ".join(credential.label for credential in own)
        remedy = f"its mailboxes: {named}" if own else f"set one: nova client credentials set {slug} email …"
        raise NotFound(
            f"client {slug!r} has no {'primary mailbox' if label is None else f'mailbox {label!r}'}", remedy=remedy
        )
    return chosen[0]


def _print_plan(plan: "Plan", as_json: bool) -> None:
    names = ("found", "known", "take", "seen_elsewhere", "bytes", "biggest", "too_big", "oldest", "newest")
    fields = {name: getattr(plan, name) for name in names}
    if as_json:
        emit(fields)
        return
    pairs(
        [
            ("found", plan.found),
            ("known already", plan.known),
            ("would be taken", f"{plan.take} ({plan.bytes / MIB:.1f} MiB, the biggest {plan.biggest / MIB:.1f} MiB)"),
            ("probably copies", plan.seen_elsewhere or None),
            ("too big", f"{plan.too_big}: set aside (NOVA_MAX_MAIL_BYTES)" if plan.too_big else None),
            ("oldest (UTC)", moment(plan.oldest)),
            ("newest (UTC)", moment(plan.newest)),
        ]
    )
    note("nothing was changed; without --dry-run these are taken in")


def _print_done(done: "Done", as_json: bool) -> None:
    report = done.report
    fields = {
        "stored": report.stored,
        "duplicates": report.duplicates,
        "quarantined": report.quarantined,
        "known": done.known,
        "vanished": done.vanished,
        "left": done.left,
    }
    if as_json:
        emit(fields)
        return
    say(", ".join(f"{count} {name}" for name, count in fields.items()))
    for error in report.errors:
        note(error)
    if done.left:
        note("the same command goes on with those that are left")
