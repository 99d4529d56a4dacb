"""`nova costs`: what the sandboxes of each workflow and client have cost, estimated."""

from datetime import timedelta
from typing import Annotated

import typer

from nova_pipelines.cli.output import JsonFlag, emit, note, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.costs import costs as add_up
from nova_pipelines.database.types import utc_now
from nova_pipelines.settings import load_settings


def costs(
    days: Annotated[int | None, typer.Option(min=1, max=36_500, help="Only of the last so many days.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the estimated cost of sandboxes by workflow and client.

    The local sandbox costs nothing. E2B bills the whole life of a sandbox, so waiting counts too.
    """
    settings = load_settings()
    with open_nova(settings) as nova, nova.read() as session:
        found = add_up(session, since=utc_now() - timedelta(days=days) if days else None)
    rates = settings.e2b_rates
    if as_json:
        rows = [
            {
                "workflow": row.workflow,
                "client": row.client,
                "executions": row.executions,
                "sandbox_seconds": row.sandbox_seconds,
                "usd": f"{row.usd:.9f}",
            }
            for row in found
        ]
        emit({"estimate": True, "rates": rates.view(), "costs": rows})
        return
    if not found:
        say("no execution has used a sandbox yet" if days is None else "no execution used a sandbox in this time")
        return
    table(
        ("workflow", "client", "executions", "seconds", "US $", "US $ each"),
        [
            (
                row.workflow,
                row.client,
                row.executions,
                f"{row.sandbox_seconds:.1f}",
                f"{row.usd:.4f}",
                f"{row.usd / row.executions:.6f}",
            )
            for row in found
        ],
        numbers=("executions", "seconds", "US $", "US $ each"),
    )
    note(f"an estimate by E2B's public prices of {rates.as_of}: {rates.text()}; the local sandbox costs nothing")
