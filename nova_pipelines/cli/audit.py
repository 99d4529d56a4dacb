"""`nova audit …`: who changed what, over the network and by commands about keys and users."""

from typing import Annotated, Any

import typer

from nova_pipelines.cli.output import JsonFlag, emit, moment, table
from nova_pipelines.cli.session import open_nova

app = typer.Typer(help="The audit log: who did what, when, from where.", no_args_is_help=True)


@app.callback()
def audit() -> None:
    """The audit log: who did what, when, from where."""


@app.command("list")
def list_(
    who: Annotated[str | None, typer.Option(metavar="NAME", help="Only what this key, person or user did.")] = None,
    action: Annotated[str | None, typer.Option(help="Only what begins so: login, keys., graphql, POST …")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List what was done, newest first."""
    from nova_pipelines.database.audit_log import newest_entries

    with open_nova() as nova, nova.read() as session:
        rows = [describe(entry) for entry in newest_entries(session, actor=who, action=action, limit=limit)]
    if as_json:
        emit(rows)
        return
    table(
        ("when (UTC)", "who", "by", "what", "to what", "outcome", "from"),
        [
            (
                moment(row["at"]),
                row["actor"],
                row["actor_kind"],
                row["action"],
                row["object"],
                row["outcome"],
                row["address"],
            )
            for row in rows
        ],
    )


def describe(entry: Any) -> dict[str, Any]:
    """A row as plain data."""
    names = ("id", "at", "actor", "actor_kind", "actor_id", "action", "object", "outcome", "status", "address")
    return {name: getattr(entry, name) for name in names}
