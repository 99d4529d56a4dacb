"""`nova executions …`: look at executions and take them up again."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from nova_pipelines.cli.engine import new_run_key, run_here
from nova_pipelines.cli.live import dagster_url
from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, plain, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.clients import find_client
from nova_pipelines.database.executions import (
    STATUSES,
    Released,
    count_by_status,
    find_execution,
    list_executions,
    release,
    with_status,
)
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.nova import Workflow as WorkflowRow
from nova_pipelines.database.session import Database
from nova_pipelines.database.workflows import find_workflow
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings, load_settings

app = typer.Typer(help="Executions: what was worked on, and what came of it.", no_args_is_help=True)

Wait = Annotated[bool, typer.Option("--wait", help="Run it here and now, and wait for the end.")]


def who_takes_it(settings: Settings) -> str:
    if dagster_url(settings):
        return "the daemon takes it up within seconds"
    return "it will be taken up when NOVA runs (`nova up`); --wait runs it at once"


@app.command("list")
def list_(
    status: Annotated[
        list[str] | None,
        typer.Option(help="pending, running, in_approval, completed, failed, needs_review or unknown."),
    ] = None,
    workflow: Annotated[str | None, typer.Option(help="Only those of this workflow.")] = None,
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="Only those of this client.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List executions, newest first."""
    from nova_pipelines.compiler.lookup import summary

    wrong = sorted(set(status or ()) - set(STATUSES))
    if wrong:
        raise typer.BadParameter(f"{', '.join(wrong)}: choose from {', '.join(STATUSES)}", param_hint="--status")
    with open_nova() as nova, nova.read() as session:
        workflow_id = find_workflow(session, workflow, include_inactive=True).id if workflow else None
        client_id = find_client(session, client).id if client else None
        found = list_executions(
            session, statuses=status or (), workflow_id=workflow_id, client_id=client_id, limit=limit
        )
        counts = count_by_status(session)
        rows = [summary(listed) for listed in found]
    if as_json:
        emit(rows)
        return
    table(
        ("no.", "status", "workflow", "client", "begun (UTC)", "from / subject / error"),
        [
            (
                row["id"],
                row["status"],
                row["workflow"],
                row["client"],
                moment(row["started_at"] or row["created_at"]),
                _about(row),
            )
            for row in rows
        ],
        numbers=("no.",),
    )
    note("all: " + ", ".join(f"{count} {name}" for name, count in counts.items() if count) if rows else "no execution")


def _about(row: dict[str, Any]) -> str:
    parts = (plain(row["from"]), plain(row["subject"])[:60], plain(row["error"])[:100])
    return " / ".join(part for part in parts if part)


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of an execution.")], as_json: JsonFlag = False
) -> None:
    """Show an execution with its final context."""
    with open_nova() as nova:
        shown = details(nova, [number])[0]
    if as_json:
        emit(shown)
    else:
        print_execution(shown)


def details(nova: Database, numbers: Sequence[int]) -> list[dict[str, Any]]:
    from nova_pipelines.compiler.lookup import detail

    with nova.read() as session:
        return [detail(session, find_execution(session, number)) for number in numbers]


def print_execution(shown: dict[str, Any]) -> None:
    pairs(
        [
            ("execution", shown["id"]),
            ("workflow", f"{shown['workflow']} (version {shown['version']})"),
            ("client", shown["client"]),
            ("status", shown["status"]),
            ("stopped at", shown["failed_node"]),
            ("error", shown["error"]),
            ("from", shown["from"]),
            ("subject", shown["subject"]),
            ("created (UTC)", moment(shown["created_at"])),
            ("started (UTC)", moment(shown["started_at"])),
            ("ended (UTC)", moment(shown["completed_at"])),
            ("waits until", moment(shown["waits_until"])),
            ("sandbox", f"{shown['sandbox_seconds']:.3f} s, about ${shown['cost_usd']}"),
            ("run", shown["run_id"]),
        ]
    )
    say("")
    say("context")
    say(json.dumps(shown["context"], ensure_ascii=False, indent=2, default=str))
    note(f"`nova chain show {shown['id']}` shows every step")


@app.command()
def retry(
    numbers: Annotated[list[int] | None, typer.Argument(metavar="[N…]", help="Numbers of executions.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All executions that failed.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also one whose outcome is unknown: its work may be done twice.")
    ] = False,
    wait: Wait = False,
    as_json: JsonFlag = False,
) -> None:
    """Take up executions where they stopped; nothing that they have done is done again.

    For those that failed, that waited for a person or (with --force) whose outcome is unknown.
    """
    settings = load_settings()
    if bool(numbers) == failed:
        raise ConfigurationError("say which executions", remedy="give their numbers, or --failed for all that failed")
    with open_nova(settings) as nova:
        chosen = _retry_here(settings, nova, numbers, force) if wait else _release_for_daemon(nova, numbers, force)
        shown = details(nova, chosen.released)
    refused = chosen.refused
    if as_json:
        named = [{"id": refusal.execution_id, "reason": refusal.reason} for refusal in refused]
        emit({"retried": shown, "refused": named})
    else:
        _print_retried(settings, shown, wait)
        if not shown and not refused:
            say("no execution has failed")
    for refusal in refused:
        note(f"execution {refusal.execution_id} is not retried: {refusal.reason}")
    if refused or (wait and any(row["status"] != "completed" for row in shown)):
        raise typer.Exit(1)


def _release_for_daemon(nova: Database, numbers: Sequence[int] | None, force: bool) -> Released:
    with nova.session() as session:
        return release(session, with_status(session, "failed") if numbers is None else numbers, force=force)


def _retry_here(settings: Settings, nova: Database, numbers: Sequence[int] | None, force: bool) -> Released:
    """Releases and runs them in batches of one workflow; each batch is released only when its turn comes."""
    from nova_pipelines.compiler.beginning import start_of

    result = Released()
    for workflow, batch in _batches(nova, numbers, settings.nova_max_batch):
        run_key = new_run_key()
        with nova.session() as session:
            # first, so that a definition which no longer compiles leaves everything as it was
            start = start_of(session, workflow).step if workflow else ""
            done = release(session, batch, force=force, run_key=run_key)
        result.refused += done.refused
        result.released += done.released
        if workflow and done.released:
            note(f"{len(done.released)} executions of {workflow.job_name} run …")
            job = workflow.job_name
            run_here(settings, nova, job_name=job, start=start, executions=done.released, run_key=run_key)
    return result


def _batches(
    nova: Database, numbers: Sequence[int] | None, max_batch: int
) -> Iterator[tuple[WorkflowRow | None, list[int]]]:
    """Executions by workflow (None: those that do not exist), at most `max_batch` at a time."""
    groups: dict[int | None, list[int]] = {}
    with nova.read() as session:
        for number in with_status(session, "failed") if numbers is None else dict.fromkeys(numbers):
            row = session.get(Execution, number) if 0 < number < 2**31 else None
            groups.setdefault(row.workflow_id if row else None, []).append(number)
        workflows = {key: session.get(WorkflowRow, key) if key is not None else None for key in groups}
    for key, group in groups.items():
        for begin in range(0, len(group), max_batch):
            yield workflows[key], group[begin : begin + max_batch]


def _print_retried(settings: Settings, shown: Sequence[dict[str, Any]], wait: bool) -> None:
    for row in shown:
        reason = f": {plain(row['error'])}" if wait and row["error"] else ""
        say(f"execution {row['id']}: {row['status'] if wait else 'waiting again'}{reason}")
    if shown and not wait:
        say(who_takes_it(settings))
