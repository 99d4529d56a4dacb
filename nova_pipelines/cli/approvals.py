"""`nova approvals …`: what people are asked, and their answer from the command line."""

import getpass
from enum import StrEnum
from typing import Annotated, Any

import typer

from nova_pipelines.cli.executions import who_takes_it
from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, plain, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.clients import find_client
from nova_pipelines.settings import load_settings

app = typer.Typer(help="Decisions that people are asked for.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(metavar="N", help="Number of an approval.")]
Why = Annotated[str | None, typer.Option("--note", help="Why; kept with the decision.")]
By = Annotated[str | None, typer.Option(help="Who decides. [default: the user of this machine]")]


class Status(StrEnum):
    pending = "pending"
    approved = "approved"
    rejected = "rejected"
    expired = "expired"


@app.callback()
def approvals() -> None:
    """Decisions that people are asked for."""


@app.command("list")
def list_(
    everything: Annotated[bool, typer.Option("--all", help="Those that were decided, too.")] = False,
    status: Annotated[list[Status] | None, typer.Option(help="Only those of this status. Repeatable.")] = None,
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="Only those of this client.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, newest first.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List what waits for a decision."""
    from nova_pipelines.compiler.approval_views import approval_view
    from nova_pipelines.database.approvals import list_approvals

    with open_nova() as nova, nova.read() as session:
        clients = None if client is None else [find_client(session, client).slug]
        wanted = [each.value for each in status or ()]
        found = list_approvals(
            session, open_only=not everything and not wanted, statuses=wanted, clients=clients, limit=limit
        )
        rows = [approval_view(listed) for listed in found]
    if as_json:
        emit(rows)
        return
    table(
        ("no.", "status", "execution", "client", "deadline (UTC)", "about"),
        [
            (row["id"], row["status"], row["execution_id"], row["client"], moment(row["deadline_at"]), _about(row))
            for row in rows
        ],
        numbers=("no.", "execution"),
    )
    note("`nova approvals show N`, then `nova approvals approve N` or `reject N`" if rows else "nothing waits")


def _about(row: dict[str, Any]) -> str:
    facts = [plain(str(row["facts"][name])) for name in ("supplier", "number", "amount") if name in row["facts"]]
    return " / ".join(facts) or plain(row["title"])


@app.command()
def show(number: Number, as_json: JsonFlag = False) -> None:
    """Show what is asked and, if there is one, the answer."""
    from nova_pipelines.compiler.approval_views import approval_view
    from nova_pipelines.database.approvals import find_approval

    with open_nova() as nova, nova.read() as session:
        shown = approval_view(find_approval(session, number))
    if as_json:
        emit(shown)
        return
    pairs(
        [
            ("approval", shown["id"]),
            ("status", shown["status"]),
            ("asked", plain(shown["title"])),
            *((name.replace("_", " "), plain(str(value))) for name, value in shown["facts"].items()),
            ("workflow", shown["workflow"]),
            ("client", shown["client"]),
            ("execution", f"{shown['execution_id']} ({shown['execution_status']}), node {plain(shown['node_id'])}"),
            ("asked (UTC)", moment(shown["requested_at"])),
            ("deadline (UTC)", f"{moment(shown['deadline_at'])}, then {shown['on_deadline']}"),
            ("passed on (UTC)", moment(shown["escalated_at"])),
            ("mail", plain(shown["mail_problem"])),
            ("decided (UTC)", moment(shown["decided_at"])),
            ("by", f"{plain(shown['decided_by'])} ({shown['decided_via']})" if shown["decided_by"] else None),
            ("note", plain(shown["note"])),
        ]
    )


@app.command()
def approve(number: Number, why: Why = None, by: By = None, as_json: JsonFlag = False) -> None:
    """Approve: the execution goes on along the way `approved`."""
    _decide(number, approved=True, why=why, by=by, as_json=as_json)


@app.command()
def reject(number: Number, why: Why = None, by: By = None, as_json: JsonFlag = False) -> None:
    """Reject: the execution goes on along the way `rejected`."""
    _decide(number, approved=False, why=why, by=by, as_json=as_json)


def _decide(number: int, *, approved: bool, why: str | None, by: str | None, as_json: bool) -> None:
    from nova_pipelines.database.approvals import decide

    settings = load_settings()
    answer = "approved" if approved else "rejected"
    with open_nova(settings) as nova, nova.session() as session:
        done = decide(session, number, answer, by=by or me(), via="cli", note=why)
    if as_json:
        emit({name: getattr(done, name) for name in ("approval_id", "execution_id", "status", "goes_on")})
        return
    say(f"approval {done.approval_id} is {done.status}")
    say(f"execution {done.execution_id} goes on: {who_takes_it(settings)}")


def me() -> str:
    """The user of this machine, as far as it is known."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"
