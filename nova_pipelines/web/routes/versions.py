"""`/workflows/{id}/versions`: every text that was ever live, also of archived workflows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from sqlalchemy.orm import Session

from nova_pipelines.compiler.publishing import find_version, prepare
from nova_pipelines.compiler.versions import difference, list_versions
from nova_pipelines.database.nova import WorkflowVersion
from nova_pipelines.database.workflows import find_workflow
from nova_pipelines.web.access import OPERATOR_OF_ALL, VIEWER_OF_ALL
from nova_pipelines.web.answers import as_json, refusals
from nova_pipelines.web.reads import reads
from nova_pipelines.web.routes.workflows import Context, Threads, WorkflowId, publish
from nova_pipelines.web.shapes import DifferenceShape, VersionShape, VersionSummary, WorkflowShape

router = APIRouter(prefix="/workflows/{workflow_id}", tags=["versions"])

#: versions are numbered 1, 2, 3 …
Number = Annotated[int, Path(ge=1, le=2**31 - 1)]


def _version(session: Session, workflow_id: int, number: int | None) -> WorkflowVersion:
    # by its number alone: a name may look like one
    workflow = find_workflow(session, workflow_id, include_inactive=True)
    return find_version(session, workflow.name, number)


def _shown(version: WorkflowVersion) -> dict[str, object]:
    return {
        "number": version.number,
        "created_at": version.created_at,
        "sha256": version.sha256,
        "format": version.source_format,
        "definition": version.definition,
        "source": version.source,
    }


@router.get(
    "/versions",
    response_model=list[VersionSummary],
    responses=refusals(404),
    dependencies=[Depends(VIEWER_OF_ALL)],
    summary="List the versions of a workflow, the newest first",
)
@reads
def list_all(workflow_id: WorkflowId, context: Context) -> Response:
    with context.services.databases.nova.look() as session:
        return as_json(list_versions(session, find_workflow(session, workflow_id, include_inactive=True)))


@router.get(
    "/versions/{number}",
    response_model=VersionShape,
    responses=refusals(404),
    dependencies=[Depends(VIEWER_OF_ALL)],
    summary="One version: its canonical form, and the text as it was written",
)
@reads
def show(workflow_id: WorkflowId, number: Number, context: Context) -> Response:
    with context.services.databases.nova.read() as session:
        return as_json(_shown(_version(session, workflow_id, number)))


@router.get(
    "/compare",
    response_model=DifferenceShape,
    responses=refusals(404),
    dependencies=[Depends(VIEWER_OF_ALL)],
    summary="Compare two versions. [default: the last two]",
)
@reads
def compare(
    workflow_id: WorkflowId,
    context: Context,
    old: Annotated[int | None, Query(alias="from", ge=1, le=2**31 - 1)] = None,
    new: Annotated[int | None, Query(alias="to", ge=1, le=2**31 - 1)] = None,
) -> Response:
    with context.services.databases.nova.read() as session:
        later = _version(session, workflow_id, new)
        earlier = _version(session, workflow_id, old if old is not None else max(1, later.number - 1))
        names = [f"{version.workflow.name} version {version.number}" for version in (earlier, later)]
        found = difference(names[0], earlier.definition, names[1], later.definition)
    return as_json({"from": found.old, "to": found.new, "equal": not found.text, "diff": found.text})


@router.post(
    "/versions/{number}/restore",
    response_model=WorkflowShape,
    responses=refusals(404, 409),
    dependencies=[Depends(OPERATOR_OF_ALL)],
    summary="Publish an old text as the newest version",
)
def restore(workflow_id: WorkflowId, number: Number, context: Context, threads: Threads) -> Response:
    with context.services.databases.nova.read() as session:
        version = _version(session, workflow_id, number)
        source, text = f"{version.workflow.name} version {number}", version.source
    return as_json(publish(context, threads, prepare(text, source=source))[0])
