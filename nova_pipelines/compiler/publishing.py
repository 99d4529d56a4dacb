"""From a definition's text to a stored version, and the state of what is stored.

Nothing is stored that was not read, checked and compiled before.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.compiler.catalog import compile_version, try_compile
from nova_pipelines.database.nova import Workflow, WorkflowVersion
from nova_pipelines.database.workflows import (
    catalog_revision,
    find_workflow,
    publish,
    version_at,
    versions_at,
    versions_by_id,
)
from nova_pipelines.domain.errors import DefinitionError, NotFound
from nova_pipelines.domain.text import Format, text_format
from nova_pipelines.domain.workflow import Definition, Trigger
from nova_pipelines.nodes.registry import read_definition


@dataclass(frozen=True, slots=True)
class Prepared:
    """A definition that is valid and compiles, with the text it came from."""

    definition: Definition
    text: str
    format: Format


@dataclass(frozen=True, slots=True)
class Published:
    """Where a definition was stored. `changed`: as a new version (not the same text as the newest)."""

    workflow_id: int
    name: str
    job_name: str
    version: int
    changed: bool
    #: the workflow had been removed and is offered again
    revived: bool


@dataclass(frozen=True, slots=True)
class Stored:
    """A workflow as it is stored. `problem`: why its newest version no longer compiles; None: it does."""

    workflow: Workflow
    version: int
    created_at: datetime
    trigger: str
    nodes: int
    problem: str | None


def prepare(text: str, *, source: str) -> Prepared:
    """Reads, checks and compiles. Raises DefinitionError with every problem found."""
    definition = read_definition(text, source=source)
    try_compile(definition, source=source)
    return Prepared(definition, text, text_format(text))


def store(session: Session, prepared: Prepared) -> Published:
    """Stores a definition as the newest version of its workflow. Raises Conflict (see `publish`)."""
    definition = prepared.definition
    before = session.execute(
        select(Workflow.is_active, WorkflowVersion.number)
        .join(WorkflowVersion, WorkflowVersion.workflow_id == Workflow.id)
        .where(Workflow.name == definition.name)
        .order_by(WorkflowVersion.number.desc())
        .limit(1)
    ).first()
    version = publish(
        session,
        name=definition.name,
        job_name=definition.job_name,
        description=definition.description,
        definition=definition.canonical(),
        source=prepared.text,
        source_format=prepared.format,
    )
    workflow = session.get_one(Workflow, version.workflow_id)
    return Published(
        workflow_id=workflow.id,
        name=workflow.name,
        job_name=workflow.job_name,
        version=version.number,
        changed=before is None or before.number != version.number,
        revived=before is not None and not before.is_active,
    )


def newest_version(session: Session, workflow: Workflow) -> WorkflowVersion:
    """The newest version of a workflow. Raises NotFound if it has none."""
    version = version_at(session, workflow.job_name, catalog_revision(session))
    if version is None:
        raise NotFound(f"the workflow {workflow.name!r} has no version", remedy="load its definition again")
    return version


def find_version(session: Session, key: str, number: int | None = None) -> WorkflowVersion:
    """A version of a workflow (removed ones too): the newest, or the one with a number. Raises NotFound."""
    workflow = find_workflow(session, key, include_inactive=True)
    if number is None:
        return newest_version(session, workflow)
    version = session.scalar(
        select(WorkflowVersion).where(WorkflowVersion.workflow_id == workflow.id, WorkflowVersion.number == number)
    )
    if version is None:
        newest = newest_version(session, workflow).number
        remedy = f"it has the versions 1 to {newest}" if newest > 1 else "it has version 1 only"
        raise NotFound(f"the workflow {workflow.name!r} has no version {number}", remedy=remedy)
    return version


def stored_workflows(session: Session) -> list[Stored]:
    """Every active workflow in the order of names, each newest version checked again."""
    ids = versions_at(session, catalog_revision(session))
    versions = versions_by_id(session, ids.values())
    ordered = sorted(versions.values(), key=lambda version: version.workflow.name.lower())
    return [_stored(version) for version in ordered]


def _stored(version: WorkflowVersion) -> Stored:
    problem, trigger = None, ""
    try:
        definition, _ = compile_version(
            version.definition,
            workflow_id=version.workflow_id,
            version_id=version.id,
            version=version.number,
            source=f"{version.workflow.name} version {version.number}",
        )
        trigger = trigger_text(definition.trigger)
    except DefinitionError as error:
        problem = "; ".join(str(found) for found in error.problems)
    return Stored(
        workflow=version.workflow,
        version=version.number,
        created_at=version.created_at,
        trigger=trigger,
        nodes=len(version.definition.get("nodes") or ()),
        problem=problem,
    )


def trigger_text(trigger: Trigger | None) -> str:
    """What starts a workflow, in a few words."""
    if trigger is None:
        return "by hand"
    if trigger.mailbox is not None:
        served = f" of {', '.join(trigger.mailbox.clients)}" if trigger.mailbox.clients is not None else ""
        return f"mailbox {trigger.mailbox.folder}{served}"
    return f"schedule {trigger.schedule} {trigger.timezone}"
