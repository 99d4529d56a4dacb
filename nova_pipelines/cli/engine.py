"""Runs executions in this process, through Dagster's public API and its instance, without a daemon.

Dagster is imported in here only when something is run. The code location is known by its name alone.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from nova_pipelines.cli.dagster_home import make_storages, prepare_dagster_home
from nova_pipelines.database.executions import close_unfinished
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import DefinitionError, Problem
from nova_pipelines.settings import Settings

MODULE, ATTRIBUTE = "nova_pipelines.definitions", "nova"
#: the tag by which the journal knows that a run may take what was kept for it
RUN_KEY = "dagster/run_key"


def new_run_key() -> str:
    """A key under which executions are kept for a run of this process, so that no daemon takes them."""
    return str(uuid.uuid4())


def run_here(
    settings: Settings, nova: Database, *, job_name: str, start: str, executions: Sequence[int], run_key: str
) -> None:
    """Executes the job of the newest version for these executions and waits for its end.

    Raises DefinitionError when Dagster cannot load the job. Executions that the run left unfinished are
    closed as failed.
    """
    make_storages(prepare_dagster_home(settings))
    import dagster as dg
    from dagster._core.definitions.reconstruct import ReconstructableRepository

    _quiet()
    job = ReconstructableRepository.for_module(MODULE, ATTRIBUTE).get_reconstructable_job(job_name)
    config = {
        "ops": {start: {"config": {"executions": list(executions)}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
    with dg.DagsterInstance.get() as instance:
        reason = "the run ended before this execution did"
        try:
            # a daemon of the same instance must not repeat what this command was told to end
            tags = {RUN_KEY: run_key, "dagster/max_retries": "0"}
            result = dg.execute_job(job, instance=instance, run_config=config, tags=tags)
            if _interrupted(result):
                raise KeyboardInterrupt  # Dagster keeps it for itself
            if not result.success:
                reason = f"{reason}: {_failure(result)}"
        except dg.DagsterInvariantViolationError as error:
            raise DefinitionError([Problem("", f"Dagster does not load the job: {error}")], source=job_name) from error
        finally:
            # whatever ended the run, Ctrl-C too: nobody else would ever close what it left
            runs = instance.get_run_records(dg.RunsFilter(tags={RUN_KEY: run_key}))
            keys = [run_key, *(record.dagster_run.run_id for record in runs)]
            with nova.session() as session:
                close_unfinished(session, keys, reason)


def _failure(result: Any) -> str:
    return "; ".join(event.message or "" for event in _failure_events(result))


def _interrupted(result: Any) -> bool:
    reasons = [event.job_failure_data.failure_reason for event in _failure_events(result)]
    return any(reason is not None and reason.value == "UNEXPECTED_TERMINATION" for reason in reasons)


def _failure_events(result: Any) -> list[Any]:
    return [event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE"]


def _quiet() -> None:
    """Dagster's messages stand in its event log; the console belongs to the command."""
    for name in ("dagster", "nova"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.CRITICAL)
        logger.propagate = False
