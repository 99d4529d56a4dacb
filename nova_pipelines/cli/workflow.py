"""`nova workflow …`: checks definition files, stores them and makes them live."""

from typing import Annotated, Any

import typer

from nova_pipelines.cli import workflow_views
from nova_pipelines.cli.files import read_text, source_name
from nova_pipelines.cli.live import dagster_url, reload_location
from nova_pipelines.cli.output import JsonFlag, emit, note, say
from nova_pipelines.cli.session import open_nova
from nova_pipelines.cli.workflow_views import Name
from nova_pipelines.domain.errors import Conflict, DefinitionError, NovaError, Problem
from nova_pipelines.settings import Settings, load_settings

app = typer.Typer(help="Workflows: check, store and look at definitions.", no_args_is_help=True)

Files = Annotated[list[str], typer.Argument(metavar="FILE…", help="JSON or YAML files; - reads stdin.")]


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
        reason = reload_location(url, settings)
    except (OSError, ValueError) as error:
        return False, f"{later}: nothing answers at {url} ({error})"
    if reason is None:
        return True, "live now"
    return None, f"stored, but the code server at {url} did not load it: {reason}"


app.command("list")(workflow_views.list_workflows)
app.command()(workflow_views.show)
app.command()(workflow_views.diff)
app.command()(workflow_views.export)
app.command()(workflow_views.schema)


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
