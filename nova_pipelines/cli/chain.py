"""`nova chain …`: the chain of work of an execution, and whether it is what was written."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from nova_pipelines.cli.output import JsonFlag, emit, moment, plain, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.executions import find_execution

app = typer.Typer(help="The chain of work: every step of every execution.", no_args_is_help=True)


@app.command()
def show(
    number: Annotated[int, typer.Argument(metavar="N", help="Number of an execution.")],
    context: Annotated[bool, typer.Option("--context", help="Also what went into each node and came out.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show what each node did with an execution."""
    from nova_pipelines.compiler.lookup import chain_entries

    with open_nova() as nova, nova.read() as session:
        listed = find_execution(session, number)
        entries = chain_entries(session, number)
    if as_json:
        emit({"execution_id": number, "status": listed.execution.status, "entries": entries, "total": len(entries)})
        return
    table(
        ("row", "node", "kind", "status", "decision", "path", "seconds", "time (UTC)"),
        [
            (
                entry["id"],
                entry["node_id"],
                entry["node_type"],
                entry["status"],
                entry["decision_result"],
                entry["path_taken"],
                _seconds(entry["execution_time"]),
                moment(entry["timestamp"])[11:] or moment(entry["timestamp"]),
            )
            for entry in entries
        ],
        numbers=("row", "seconds"),
    )
    for entry in entries:
        if entry["error_message"]:
            say(f"error at {entry['node_id']} (row {entry['id']}): {entry['error_message']}", style="red")
    if not entries:
        say("no node has worked on it yet")
    if context:
        for entry in entries:
            _print_contexts(entry)


def _seconds(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, (int, float)) else plain(value)


def _print_contexts(entry: dict[str, Any]) -> None:
    for title, name in (("in", "input_context"), ("out", "output_result")):
        say(f"\n{entry['node_id']} {title} (row {entry['id']}, {moment(entry['timestamp'])} UTC)", style="bold")
        say(json.dumps(entry[name], ensure_ascii=False, indent=2))


@app.command()
def verify(
    number: Annotated[int | None, typer.Argument(metavar="[N]", help="One execution only. [default: all]")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Look for rows that were changed, removed or inserted since they were written. Exit code 1 if there are."""
    from nova_pipelines.compiler.audit import verify_chains

    with open_nova() as nova:
        if number is not None:
            with nova.read() as session:
                find_execution(session, number)
        report = verify_chains(nova, number)
    if as_json:
        findings = [asdict(finding) for finding in report.findings]
        emit({"intact": report.intact, "executions": report.executions, "rows": report.rows, "findings": findings})
    elif report.intact:
        say(f"intact: {report.rows} rows of {report.executions} executions", style="green")
    else:
        table(
            ("execution", "row", "node", "what is wrong"),
            [(found.execution_id, found.row_id, found.node_id, found.reason) for found in report.findings],
            numbers=("execution", "row"),
        )
        say(f"{len(report.findings)} breaks in {report.rows} rows of {report.executions} executions", style="red")
    if not report.intact:
        raise typer.Exit(1)
