"""`nova run`: starts an execution, for the daemon or in this process."""

import json
from typing import Annotated, Any

import typer

from nova_pipelines.cli.engine import new_run_key, run_here, start_step
from nova_pipelines.cli.executions import Wait, details, print_execution, who_takes_it
from nova_pipelines.cli.output import JsonFlag, emit, note, say
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.settings import load_settings

Workflow = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Name, job name or number of a workflow.")]


def run(
    workflow: Workflow,
    client: Annotated[str | None, typer.Option(metavar="SLUG", help="The client it works for.")] = None,
    context: Annotated[str, typer.Option(metavar="JSON", help="What the execution begins with: an object.")] = "{}",
    wait: Wait = False,
    as_json: JsonFlag = False,
) -> None:
    """Start one execution of a workflow.

    Without --wait it is left to the daemon. With --wait the exit code is 0 if it completed, 1 if not.
    """
    settings = load_settings()
    initial = _context(context)
    with open_nova(settings) as nova:
        run_key = new_run_key() if wait else None
        number, job_name, start = _new(nova, workflow, client, initial, run_key)
        if run_key is not None:
            note(f"execution {number} of {job_name} runs …")
            run_here(settings, nova, job_name=job_name, start=start, executions=[number], run_key=run_key)
        shown = details(nova, [number])[0]
    if as_json:
        emit(shown)
    elif wait:
        print_execution(shown)
    else:
        say(f"execution {number} of {shown['workflow']} is waiting")
        say(who_takes_it(settings))
    if wait and shown["status"] != "completed":
        raise typer.Exit(1)


def _context(text: str) -> dict[str, Any]:
    from nova_pipelines.compiler.collect import check_context

    try:
        context = json.loads(text)
    except (ValueError, RecursionError) as error:
        remedy = """quote it for the shell: --context '{"amount": 12}'"""
        raise PermanentError(f"--context is not valid JSON: {error}", remedy=remedy) from None
    check_context(context)
    return context


def _new(
    nova: Database, key: str, client_slug: str | None, context: dict[str, Any], run_key: str | None
) -> tuple[int, str, str]:
    """Commits a new execution of the newest version: (number, job name, start step).

    Raises PermanentError, with nothing made, when the client does not allow what the workflow's code needs.
    """
    from nova_pipelines.compiler.publishing import newest_version
    from nova_pipelines.database.clients import find_client
    from nova_pipelines.database.workflows import find_workflow
    from nova_pipelines.nodes.assignment import new_execution
    from nova_pipelines.nodes.exposure import exposed_keys
    from nova_pipelines.nodes.registry import definition_from
    from nova_pipelines.nodes.services import client_view
    from nova_pipelines.nodes.start import refuse_unready

    with nova.session() as session:
        workflow = find_workflow(session, key)
        start = start_step(session, workflow)
        client = find_client(session, client_slug, include_inactive=False) if client_slug else None
        version = newest_version(session, workflow)
        view = client_view(client) if client else None
        refuse_unready(definition_from(version.definition), view, context, exposed_keys(view, session))
        execution = new_execution(workflow.id, version.id, client.id if client else None, context)
        execution.run_id, execution.requested_at = run_key, utc_now() if run_key else None
        session.add(execution)
        session.flush()
        return execution.id, workflow.job_name, start
