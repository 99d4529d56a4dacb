"""`nova workflow list|show|diff|export|schema`: looking at what is stored."""

import json
from pathlib import Path
from typing import Annotated

import typer

from nova_pipelines.cli.files import STDIN, read_text, source_name
from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, plain, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.failures import folder_failure
from nova_pipelines.domain.errors import DefinitionError

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name, job name or number of a workflow.")]
VersionOption = Annotated[int | None, typer.Option("--version", help="Number of a version. [default: the newest]")]


def list_workflows(as_json: JsonFlag = False) -> None:
    """List the stored workflows, each compiled again."""
    from nova_pipelines.compiler.publishing import stored_workflows

    with open_nova() as nova, nova.read() as session:
        stored = stored_workflows(session)
    if as_json:
        emit(
            [
                {
                    "id": found.workflow.id,
                    "name": found.workflow.name,
                    "job_name": found.workflow.job_name,
                    "version": found.version,
                    "trigger": found.trigger,
                    "nodes": found.nodes,
                    "compiles": found.problem is None,
                    "problem": found.problem,
                    "created_at": found.created_at,
                }
                for found in stored
            ]
        )
        return
    table(
        ("name", "version", "trigger", "loaded (UTC)", "state"),
        [
            (
                found.workflow.name,
                found.version,
                found.trigger,
                moment(found.created_at),
                found.problem or "ok",
            )
            for found in stored
        ],
        numbers=("version",),
    )


def show(name: Name, version: VersionOption = None, as_json: JsonFlag = False) -> None:
    """Show a workflow: its versions, and the nodes of one of them."""
    from nova_pipelines.compiler.publishing import find_version, trigger_text
    from nova_pipelines.nodes.registry import definition_from

    with open_nova() as nova, nova.read() as session:
        found = find_version(session, name, version)
        workflow = found.workflow
        numbers = [(each.number, each.created_at) for each in workflow.versions]
    problem, trigger = None, ""
    try:
        trigger = trigger_text(definition_from(found.definition, source=workflow.name).trigger)
    except DefinitionError as error:
        problem = "; ".join(str(each) for each in error.problems)
    shown = {
        "id": workflow.id,
        "name": workflow.name,
        "job_name": workflow.job_name,
        "description": workflow.description,
        "is_active": workflow.is_active,
        "version": found.number,
        "trigger": trigger,
        "problem": problem,
        "versions": [{"number": number, "created_at": created} for number, created in numbers],
        "definition": found.definition,
    }
    if as_json:
        emit(shown)
        return
    pairs((key, shown[key]) for key in ("id", "name", "job_name", "description", "version", "trigger", "problem"))
    if not workflow.is_active:
        note("this workflow was removed; loading it again brings it back")
    pairs([("versions", ", ".join(f"{number} ({moment(created)} UTC)" for number, created in numbers))])
    say("")
    ways: dict[str, list[str]] = {}
    for edge in found.definition.get("edges", []):
        way = f"{edge['condition']} → {edge['to']}" if edge.get("condition") else f"→ {edge['to']}"
        ways.setdefault(edge["from"], []).append(way)
    table(
        ("node", "kind", "next"),
        [(node["id"], node["type"], ", ".join(ways.get(node["id"], []))) for node in found.definition["nodes"]],
    )


def diff(
    name: Name,
    first: Annotated[str | None, typer.Argument(metavar="[V1 | FILE]", help="A version, or a file.")] = None,
    second: Annotated[int | None, typer.Argument(metavar="[V2]", help="Another version.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare versions of a workflow, or the newest one with a file. Without more, the last two versions."""
    from nova_pipelines.compiler.publishing import find_version
    from nova_pipelines.compiler.versions import difference
    from nova_pipelines.nodes.registry import read_definition

    with open_nova() as nova, nova.read() as session:
        newest = find_version(session, name)
        if first is not None and not (first.isascii() and first.isdigit()):
            old = newest
            new_name, new = source_name(first), read_definition(read_text(first), source=source_name(first)).canonical()
        else:
            chosen = find_version(session, name, second) if second is not None else newest
            old = find_version(session, name, int(first) if first is not None else max(1, chosen.number - 1))
            new_name, new = f"{name} version {chosen.number}", chosen.definition
        old_name, before = f"{name} version {old.number}", old.definition
    text = plain(difference(old_name, before, new_name, new).text, lines=True)
    if as_json:
        emit({"from": old_name, "to": new_name, "equal": not text, "diff": text})
    elif text:
        typer.echo(text)
    else:
        note(f"{old_name} and {new_name} are equal")


def export(
    name: Name,
    version: VersionOption = None,
    format: Annotated[str | None, typer.Option(help="json or yaml: the canonical form. [default: as written]")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file.")] = None,
) -> None:
    """Print a definition: the text as its author wrote it, or its canonical form."""
    from nova_pipelines.compiler.publishing import find_version
    from nova_pipelines.compiler.versions import as_yaml

    if format not in (None, "json", "yaml"):
        raise typer.BadParameter("choose json or yaml", param_hint="--format")
    with open_nova() as nova, nova.read() as session:
        found = find_version(session, name, version)
        if format is None:
            text = found.source
        elif format == "json":
            text = json.dumps(found.definition, ensure_ascii=False, indent=2) + "\n"
        else:
            text = as_yaml(found.definition)
    if output is None or output == STDIN:
        typer.echo(text, nl=not text.endswith("\n"))
        return
    path = Path(output)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise folder_failure(path, error) from error
    note(f"written to {path}")


def schema() -> None:
    """Print the JSON Schema of definition files, for editors."""
    from nova_pipelines.nodes.registry import definition_schema

    emit(definition_schema())
