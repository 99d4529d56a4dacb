"""Which runs to ask for: pending executions in batches, each under a run key that is committed first.

So a tick that dies loses nothing: its executions carry the key, and the next tick asks again for the same run.
"""

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import dagster as dg
from sqlalchemy import select, update

from nova_pipelines.compiler.job import TAG_BATCH, TAG_CLIENT
from nova_pipelines.database.executions import due
from nova_pipelines.database.nova import Client, Execution
from nova_pipelines.database.session import Database
from nova_pipelines.orchestration.loaded import Loaded

#: begins the keys that this module makes; others are of runs by hand (`nova run --wait`)
REQUESTED = "req-"
#: after this long without a claim a run by hand is taken for dead, and asked for here under its key
PATIENCE = timedelta(minutes=2)


def request_runs(nova: Database, loaded: Mapping[str, Loaded], *, max_batch: int) -> list[dg.RunRequest]:
    """Run requests for all pending executions of the loaded workflows, `max_batch` at most in each."""
    requests: list[dg.RunRequest] = []
    for job_name, workflow in loaded.items():
        for batch, slug in _batches(nova, workflow.compiled.workflow_id, max_batch):
            key = f"{REQUESTED}{uuid.uuid4().hex}"
            with nova.session() as session:
                session.execute(
                    update(Execution)
                    .where(Execution.id.in_(batch), Execution.run_id.is_(None), Execution.status == "pending")
                    .values(run_id=key, requested_at=datetime.now(UTC))
                )
                # somebody else (a run by hand) may have taken some of them since the look
                taken = list(
                    session.scalars(select(Execution.id).where(Execution.run_id == key).order_by(Execution.id))
                )
            if taken:
                requests.append(_request(job_name, workflow.start, key, taken, slug))
    return requests


def repeat_requests(
    nova: Database, loaded: Mapping[str, Loaded], run_exists: Callable[[str], bool]
) -> list[dg.RunRequest]:
    """Requests whose run never came to be: the same executions, the same key, which Dagster runs once.

    Ticks come one after the other, and a tick ends when its runs are made: what an earlier one asked for and is
    not there was lost with it. Only a run by hand may still be on its way.
    """
    names = {workflow.compiled.workflow_id: name for name, workflow in loaded.items()}
    query = (
        select(Execution.run_id, Execution.workflow_id, Execution.id, Client.slug)
        .outerjoin(Client, Client.id == Execution.client_id)
        .where(
            Execution.status == "pending",
            Execution.run_id.is_not(None),
            Execution.run_id.startswith(REQUESTED, autoescape=True)
            | (Execution.requested_at < datetime.now(UTC) - PATIENCE),
        )
        .order_by(Execution.id)
    )
    groups: dict[tuple[str, int], list[tuple[int, str | None]]] = {}
    with nova.read() as session:
        for run_key, workflow_id, execution_id, slug in session.execute(query):
            groups.setdefault((str(run_key), workflow_id), []).append((execution_id, slug))
    requests: list[dg.RunRequest] = []
    for (run_key, workflow_id), group in groups.items():
        if workflow_id in names and not run_exists(run_key):
            name, batch = names[workflow_id], [number for number, _ in group]
            requests.append(_request(name, loaded[name].start, run_key, batch, group[0][1]))
    return requests


def _batches(nova: Database, workflow_id: int, max_batch: int) -> list[tuple[list[int], str | None]]:
    query = (
        select(Execution.id, Client.slug)
        .outerjoin(Client, Client.id == Execution.client_id)
        .where(
            Execution.workflow_id == workflow_id,
            Execution.status == "pending",
            Execution.run_id.is_(None),
            due(),
        )
        .order_by(Execution.id)
        .limit(max_batch * 20)
    )
    by_client: dict[str | None, list[int]] = {}
    with nova.read() as session:
        for execution_id, slug in session.execute(query):
            by_client.setdefault(slug, []).append(execution_id)
    return [
        (ids[begin : begin + max_batch], slug)
        for slug, ids in by_client.items()
        for begin in range(0, len(ids), max_batch)
    ]


def _request(job_name: str, start: str, key: str, batch: list[int], slug: str | None) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=key,
        job_name=job_name,
        run_config={"ops": {start: {"config": {"executions": batch}}}},
        tags={TAG_BATCH: str(len(batch)), TAG_CLIENT: slug or "none"},
    )
