"""`nova run`: starts an execution, for the daemon or in this process."""

import json
from typing import Annotated, Any

import typer

from nova_pipelines.cli.engine import new_run_key, run_here
from nova_pipelines.cli.executions import Wait, details, print_execution, who_takes_it
from nova_pipelines.cli.output import JsonFlag, emit, note, say
from nova_pipelines.cli.session import open_nova
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
    from nova_pipelines.compiler.beginning import begin_execution

    settings = load_settings()
    initial = _context(context)
    with open_nova(settings) as nova:
        run_key = new_run_key() if wait else None
        with nova.session() as session:
            begun = begin_execution(session, workflow, client, initial, run_key=run_key)
        number, job_name = begun.execution_id, begun.start.job_name
        if run_key is not None:
            note(f"execution {number} of {job_name} runs …")
            run_here(settings, nova, job_name=job_name, start=begun.start.step, executions=[number], run_key=run_key)
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
