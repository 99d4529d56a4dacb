"""Begins executions: everything is checked first. What `nova run` and the HTTP API share.

Knows nothing of who runs them: they are kept under a run key for whoever asks for a run, or left to the sensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from nova_pipelines.compiler.catalog import compile_version
from nova_pipelines.compiler.job import Compiled
from nova_pipelines.compiler.publishing import newest_version
from nova_pipelines.database.clients import find_client
from nova_pipelines.database.nova import Workflow, WorkflowVersion
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.workflows import find_workflow
from nova_pipelines.domain.workflow import Definition
from nova_pipelines.nodes.assignment import new_execution
from nova_pipelines.nodes.exposure import exposed_keys
from nova_pipelines.nodes.services import client_view
from nova_pipelines.nodes.start import refuse_unready


@dataclass(frozen=True, slots=True)
class Start:
    """What a run of a workflow's newest version is asked for with."""

    workflow_id: int
    job_name: str
    #: the step that takes the executions
    step: str
    #: the code location must have this revision of the catalog, or a later one, to run this version
    revision: int


@dataclass(frozen=True, slots=True)
class Begun:
    """An execution that was made."""

    execution_id: int
    task_id: str
    workflow_name: str
    client: str | None
    start: Start


def compiled_newest(session: Session, workflow: Workflow) -> tuple[WorkflowVersion, Definition, Compiled]:
    """The newest version of a workflow, compiled. Raises DefinitionError if it no longer compiles."""
    version = newest_version(session, workflow)
    definition, compiled = compile_version(
        version.definition,
        workflow_id=workflow.id,
        version_id=version.id,
        version=version.number,
        source=f"{workflow.name} version {version.number}",
    )
    return version, definition, compiled


def start_of(session: Session, workflow: Workflow) -> Start:
    """How a run of the newest version is asked for. Raises DefinitionError if it no longer compiles."""
    version, _, compiled = compiled_newest(session, workflow)
    return Start(workflow.id, workflow.job_name, compiled.plan.steps[0].name, version.revision)


def begin_execution(
    session: Session, key: str | int, client_slug: str | None, context: dict[str, Any], *, run_key: str | None
) -> Begun:
    """Makes an execution of the newest version of a workflow. The caller commits.

    `run_key`: kept for the run with this key; None: the sensor asks for a run. Raises NotFound for an unknown workflow
    or client, DefinitionError for a version that no longer compiles, and PermanentError when the client does not allow
    what the workflow's code needs.
    """
    workflow = find_workflow(session, key)
    version, definition, compiled = compiled_newest(session, workflow)
    client = find_client(session, client_slug, include_inactive=False) if client_slug else None
    view = client_view(client) if client else None
    refuse_unready(definition, view, context, exposed_keys(view, session))
    execution = new_execution(workflow.id, version.id, client.id if client else None, context)
    execution.run_id, execution.requested_at = run_key, utc_now() if run_key else None
    session.add(execution)
    session.flush()
    return Begun(
        execution_id=execution.id,
        task_id=execution.task_id,
        workflow_name=workflow.name,
        client=client.slug if client else None,
        start=Start(workflow.id, workflow.job_name, compiled.plan.steps[0].name, version.revision),
    )
