"""`nova workflow …`: definitions from files into the database, and back."""

import difflib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from nova_pipelines.cli.files import STDIN, read_text, source_name
from nova_pipelines.cli.live import dagster_url, reload_location
from nova_pipelines.cli.output import JsonFlag, emit, moment, note, pairs, plain, say, table
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.failures import folder_failure
from nova_pipelines.domain.errors import Conflict, DefinitionError, NovaError, Problem
from nova_pipelines.settings import Settings, load_settings

app = typer.Typer(help="Workflows: check, store and look at definitions.", no_args_is_help=True)

Files = Annotated[list[str], typer.Argument(metavar="FILE…", help="JSON or YAML files; - reads stdin.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name, job name or number of a workflow.")]
VersionOption = Annotated[int | None, typer.Option("--version", help="Number of a version. [default: the newest]")]


@app.command()
def validate(files: Files, as_json: JsonFlag = False) -> None:
    """Check definition files: all problems of all files, each with its place. Stores nothing."""
    from nova_pipelines.compiler.publishing import prepare

    failures: dict[str, DefinitionError] = {}
    for file in files:
        try:
            prepare(read_text(file), source=source_name(file))
        except DefinitionError as error:
            failures[file] = error
    if as_json:
        emit([{"file": file, "valid": file not in failures, "problems": _problems(failures, file)} for file in files])
    else:
        for file in files:
            if file in failures:
                note(f"{failures[file].message}", style="red")
            else:
                say(f"{source_name(file)}: valid")
    if failures:
        raise typer.Exit(DefinitionError.exit_code)


def _problems(failures: dict[str, DefinitionError], file: str) -> list[dict[str, str]]:
    problems: list[Problem] = failures[file].problems if file in failures else []
    return [{"path": problem.path, "reason": problem.reason} for problem in problems]


@app.command()
def load(files: Files, as_json: JsonFlag = False) -> None:
    """Store definition files as the newest versions of their workflows.

    A file that is not valid is reported and keeps no other from being stored.
    """
    settings = load_settings()
    results = _load_all(settings, files)
    stored = [entry for entry in results if "error" not in entry]
    live, message = (
        _make_live(settings) if any(entry["changed"] or entry["revived"] for entry in stored) else (None, "")
    )
    if as_json:
        emit({"files": results, "live": live, "message": message or None})
    else:
        for entry in results:
            if "error" not in entry:
                state = "" if entry["changed"] else " (offered again)" if entry["revived"] else " (unchanged)"
                say(f"{entry['file']}: {entry['name']} version {entry['version']}{state}, job {entry['job_name']}")
        if message:
            (note if live is None else say)(message)
    codes = [entry["error"]["exit_code"] for entry in results if "error" in entry]
    if codes or (message and live is None):
        raise typer.Exit(max(codes, default=1))


def _load_all(settings: Settings, files: list[str]) -> list[dict[str, Any]]:
    from nova_pipelines.compiler.publishing import prepare, store

    results: list[dict[str, Any]] = []
    sources: dict[str, str] = {}
    with open_nova(settings) as nova:
        for file in files:
            source = source_name(file)
            try:
                prepared = prepare(read_text(file), source=source)
                name = prepared.definition.name
                if name in sources:
                    remedy = "load one of them, or give them different names"
                    raise Conflict(f"{source} and {sources[name]} both define {name!r}", remedy=remedy)
                sources[name] = source
                with nova.session() as session:
                    published = store(session, prepared)
            except (DefinitionError, Conflict) as error:
                note(f"error: {error.message}" + (f"\n→ {error.remedy}" if error.remedy else ""), style="red")
                results.append({"file": source, "error": _error(error)})
                continue
            names = ("name", "job_name", "version", "changed", "revived", "workflow_id")
            results.append({"file": source, **{name: getattr(published, name) for name in names}})
    return results


def _error(error: NovaError) -> dict[str, Any]:
    shown = {"type": type(error).__name__, "message": error.message, "remedy": error.remedy}
    if isinstance(error, DefinitionError):
        shown["problems"] = [{"path": problem.path, "reason": problem.reason} for problem in error.problems]
    return shown | {"exit_code": error.exit_code}


def _make_live(settings: Settings) -> tuple[bool | None, str]:
    """Whether the running code server has the new versions; None: it runs and did not take them."""
    url = dagster_url(settings)
    later = "stored; it will be live when NOVA starts (`nova up`)"
    if url is None:
        return False, later
    try:
        reason = reload_location(url)
    except (OSError, ValueError) as error:
        return False, f"{later}: nothing answers at {url} ({error})"
    if reason is None:
        return True, "live now"
    return None, f"stored, but the code server at {url} did not load it: {reason}"


@app.command("list")
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


@app.command()
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


@app.command()
def diff(
    name: Name,
    first: Annotated[str | None, typer.Argument(metavar="[V1 | FILE]", help="A version, or a file.")] = None,
    second: Annotated[int | None, typer.Argument(metavar="[V2]", help="Another version.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Compare versions of a workflow, or the newest one with a file. Without more, the last two versions."""
    from nova_pipelines.compiler.publishing import find_version
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
    lines = [
        plain(line, lines=True)
        for line in difflib.unified_diff(
            as_yaml(before).splitlines(), as_yaml(new).splitlines(), old_name, new_name, lineterm=""
        )
    ]
    if as_json:
        emit({"from": old_name, "to": new_name, "equal": not lines, "diff": "\n".join(lines)})
    elif lines:
        typer.echo("\n".join(lines))
    else:
        note(f"{old_name} and {new_name} are equal")


def as_yaml(definition: dict[str, Any]) -> str:
    """The canonical form of a definition as YAML; code keeps its lines."""
    return yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)


@app.command()
def export(
    name: Name,
    version: VersionOption = None,
    format: Annotated[str | None, typer.Option(help="json or yaml: the canonical form. [default: as written]")] = None,
    output: Annotated[str | None, typer.Option("-o", "--output", metavar="FILE", help="Write to a file.")] = None,
) -> None:
    """Print a definition: the text as its author wrote it, or its canonical form."""
    from nova_pipelines.compiler.publishing import find_version

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


@app.command()
def schema() -> None:
    """Print the JSON Schema of definition files, for editors."""
    from nova_pipelines.nodes.registry import definition_schema

    emit(definition_schema())


@app.command()
def remove(name: Name, as_json: JsonFlag = False) -> None:
    """Stop offering a workflow. Its versions, executions and chains stay; loading it again brings it back."""
    from nova_pipelines.database.workflows import deactivate, find_workflow

    settings = load_settings()
    with open_nova(settings) as nova, nova.session() as session:
        workflow = find_workflow(session, name)
        deactivate(session, workflow)
        shown = workflow.name
    live, message = _make_live(settings)
    if as_json:
        emit({"name": shown, "result": "removed", "live": live})
        return
    say(f"workflow {shown} removed" + ("" if live else "; a running NOVA offers it until it is restarted"))
    if live is None:
        note(message)
