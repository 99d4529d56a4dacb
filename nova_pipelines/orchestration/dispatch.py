"""Which runs the sensor asks for: pending executions in batches, and what was asked for before and got lost."""

from collections.abc import Callable, Mapping

import dagster as dg

from nova_pipelines.compiler.tags import run_config, run_tags
from nova_pipelines.database.run_requests import PATIENCE, Batch, reserve, unclaimed
from nova_pipelines.database.session import Database
from nova_pipelines.orchestration.loaded import Loaded

__all__ = ["PATIENCE", "repeat_requests", "request_runs"]


def request_runs(
    nova: Database, loaded: Mapping[str, Loaded], *, max_batch: int, max_waiting: int = 200
) -> list[dg.RunRequest]:
    """Run requests for the pending executions of the loaded workflows, `max_batch` at most in each.

    `max_waiting`: so many executions of a workflow and client may be asked for and not begun.
    """
    return [
        _request(job_name, workflow.start, batch)
        for job_name, workflow in loaded.items()
        for batch in reserve(
            nova,
            workflow.compiled.workflow_id,
            max_batch=max_batch,
            max_waiting=max_waiting,
            # an execution of a version that is not loaded yet waits for the reload: it is not run under an older one
            up_to_version=workflow.compiled.version_id,
        )
    ]


def repeat_requests(
    nova: Database, loaded: Mapping[str, Loaded], run_exists: Callable[[str], bool]
) -> list[dg.RunRequest]:
    """Requests whose run never came to be: the same executions, the same key, which Dagster runs once."""
    names = {workflow.compiled.workflow_id: name for name, workflow in loaded.items()}
    lost = [batch for batch in unclaimed(nova) if batch.workflow_id in names]
    return [
        _request(name, loaded[name].start, batch)
        for batch in lost
        if batch.version_id <= loaded[name := names[batch.workflow_id]].compiled.version_id
        and not run_exists(batch.key)
    ]


def _request(job_name: str, start: str, batch: Batch) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=batch.key,
        job_name=job_name,
        run_config=run_config(start, batch.executions),
        tags=run_tags(batch.executions, batch.slug),
    )
