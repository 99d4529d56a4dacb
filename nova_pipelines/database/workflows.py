"""Queries of workflow definitions: publishing, looking up, and "the versions as of a revision".

Takes definitions that are valid already; knows nothing of what they mean.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, joinedload

from nova_pipelines.database.failures import MIGRATE
from nova_pipelines.database.nova import Catalog, Workflow, WorkflowVersion
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import ConfigurationError, Conflict, NotFound

_CHUNK = 500  # ids in one IN list


def publish(
    session: Session,
    *,
    name: str,
    job_name: str,
    description: str | None,
    definition: dict[str, Any],
    source: str,
    source_format: str,
) -> WorkflowVersion:
    """Stores a definition as the newest version of the workflow `name`, which is made or made active again.

    A definition that equals the newest version (as canonical JSON) gives that version back unchanged. A
    workflow keeps the `job_name` it was first published with. Publishers queue up until the commit.
    Raises Conflict when another workflow has the `job_name`.
    """
    catalog = _locked_catalog(session)
    digest = hashlib.sha256(canonical_json(definition).encode("utf-8", "surrogatepass")).hexdigest()
    workflow = session.scalar(select(Workflow).where(Workflow.name == name))
    if workflow is None:
        workflow = _new_workflow(session, name, job_name, definition)
    newest = _newest_version(session, workflow)
    if newest is not None and newest.sha256 == digest:
        if not workflow.is_active:
            workflow.is_active = True
            catalog.revision += 1
            session.flush()
        return newest
    catalog.revision += 1
    workflow.is_active = True
    workflow.description = description
    workflow.graph_definition = definition
    version = WorkflowVersion(
        workflow_id=workflow.id,
        number=newest.number + 1 if newest else 1,
        revision=catalog.revision,
        definition=definition,
        source=source,
        source_format=source_format,
        sha256=digest,
    )
    session.add(version)
    session.flush()
    return version


def _locked_catalog(session: Session) -> Catalog:
    # on SQLite the transaction itself is the lock (BEGIN IMMEDIATE)
    query = select(Catalog).where(Catalog.id == 1).with_for_update()
    catalog = session.scalar(query, execution_options={"populate_existing": True})
    if catalog is None:
        raise ConfigurationError("the catalog of workflows has no row", remedy=MIGRATE)
    return catalog


def _new_workflow(session: Session, name: str, job_name: str, definition: dict[str, Any]) -> Workflow:
    other = session.scalar(select(Workflow).where(Workflow.job_name == job_name))
    if other is not None:
        raise Conflict(
            f"the job name {job_name} of the workflow {name!r} is taken by the workflow {other.name!r}",
            remedy="give it a name that differs in more than case, blanks or punctuation",
        )
    workflow = Workflow(name=name, job_name=job_name, graph_definition=definition)
    session.add(workflow)
    session.flush()
    return workflow


def _newest_version(session: Session, workflow: Workflow) -> WorkflowVersion | None:
    query = select(WorkflowVersion).where(WorkflowVersion.workflow_id == workflow.id)
    return session.scalar(query.order_by(WorkflowVersion.number.desc()).limit(1))


def catalog_revision(session: Session) -> int:
    """The revision of the whole set of workflows: every publish and every deactivation raises it by one.

    Raises ConfigurationError when the databases are not migrated.
    """
    revision = session.scalar(select(Catalog.revision).where(Catalog.id == 1))
    if revision is None:
        raise ConfigurationError("the catalog of workflows has no row", remedy=MIGRATE)
    return revision


def versions_at(session: Session, revision: int) -> dict[str, int]:
    """Job name → id of its newest version up to `revision`, for every workflow that is active now."""
    newest = (
        select(WorkflowVersion.workflow_id, func.max(WorkflowVersion.number).label("number"))
        .where(WorkflowVersion.revision <= revision)
        .group_by(WorkflowVersion.workflow_id)
        .subquery()
    )
    query = (
        select(Workflow.job_name, WorkflowVersion.id)
        .join(newest, newest.c.workflow_id == Workflow.id)
        .join(
            WorkflowVersion,
            (WorkflowVersion.workflow_id == Workflow.id) & (WorkflowVersion.number == newest.c.number),
        )
        .where(Workflow.is_active)
        .order_by(Workflow.job_name)
    )
    return {row.job_name: row.id for row in session.execute(query)}


def version_at(session: Session, job_name: str, revision: int) -> WorkflowVersion | None:
    """The newest version of one job up to `revision`, with its workflow; None if there was none yet.

    Also of a workflow that was deactivated since: a run that was queued before still finds what it needs.
    """
    query = (
        select(WorkflowVersion)
        .join(WorkflowVersion.workflow)
        .where(Workflow.job_name == job_name, WorkflowVersion.revision <= revision)
        .order_by(WorkflowVersion.number.desc())
        .options(joinedload(WorkflowVersion.workflow))
        .limit(1)
    )
    return session.scalar(query)


def versions_by_id(session: Session, ids: Iterable[int]) -> dict[int, WorkflowVersion]:
    """Many versions with their workflows, in few queries. Ids that do not exist are left out."""
    wanted, found = sorted(set(ids)), {}
    for start in range(0, len(wanted), _CHUNK):
        query = (
            select(WorkflowVersion)
            .where(WorkflowVersion.id.in_(wanted[start : start + _CHUNK]))
            .options(joinedload(WorkflowVersion.workflow))
        )
        found |= {version.id: version for version in session.scalars(query)}
    return found


def find_workflow(session: Session, key: str | int, *, include_inactive: bool = False) -> Workflow:
    """A workflow by its name, its job name or its number, in this order; case counts only if it must.

    Raises NotFound that names close matches.
    """
    text = str(key).strip()
    query = select(Workflow) if include_inactive else select(Workflow).where(Workflow.is_active)
    by_text = or_(
        Workflow.name == text,
        Workflow.job_name == text,
        func.lower(Workflow.name) == text.lower(),
        Workflow.job_name == text.lower(),
    )
    matches = [] if isinstance(key, int) else session.scalars(query.where(by_text)).all()
    if matches:
        return min(matches, key=lambda found: (found.name != text, found.job_name != text, found.id))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
    workflow = session.scalar(query.where(Workflow.id == number)) if number is not None else None
    if workflow is None:
        raise _unknown_workflow(session, text)
    return workflow


def _unknown_workflow(session: Session, text: str) -> NotFound:
    names = session.execute(select(Workflow.name, Workflow.job_name).where(Workflow.is_active)).all()
    known = {spelling.lower(): name for name, job_name in names for spelling in (name, job_name)}
    close = dict.fromkeys(known[match] for match in difflib.get_close_matches(text.lower(), known, n=5))
    remedy = f"did you mean {', '.join(close)}?" if close else "`nova workflow list` shows all of them"
    return NotFound(f"there is no workflow {text!r}", remedy=remedy)


def deactivate(session: Session, workflow: Workflow) -> None:
    """What deleting a workflow means: it is not offered any more; versions and executions stay.

    Publishing under its name makes it active again.
    """
    catalog = _locked_catalog(session)
    session.refresh(workflow)
    if workflow.is_active:
        workflow.is_active = False
        catalog.revision += 1
        session.flush()
