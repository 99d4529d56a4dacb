"""How Dagster's runs ended, for the audit of executions."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import dagster as dg

from nova_pipelines.orchestration.findings import chunks
from nova_pipelines.orchestration.ledger_audit import UNKNOWN_RUN

#: before an execution of an ended run is a finding: the sensors that close it need some ticks
GRACE = timedelta(minutes=5)
#: in which Dagster retries a run, if it does; one that comes later finds nothing left to do
TO_RETRY = timedelta(minutes=1)
RUN_KEY, RETRY = "dagster/run_key", "dagster/auto_retry_run_id"


def ended_runs(
    instance: dg.DagsterInstance, names: Sequence[str], now: datetime, grace: timedelta = GRACE
) -> dict[str, str]:
    """How the runs of these ids or run keys ended, by name; UNKNOWN_RUN for those that never came to be.

    A run that ended less than `grace` ago, or that an automatic retry goes on with, counts as alive.
    """
    alive: set[str] = set()
    over: dict[str, str] = {}
    for piece in chunks(names):
        for name, record in _records(instance, piece):
            if _is_over(instance, record, now - grace):
                over[name] = record.dagster_run.status.value.lower()
            else:
                alive.add(name)
    return {name: over.get(name, UNKNOWN_RUN) for name in names if name not in alive}


def _records(instance: dg.DagsterInstance, names: Sequence[str]) -> list[tuple[str, dg.RunRecord]]:
    records = instance.get_run_records(dg.RunsFilter(run_ids=list(names)))
    found = [(record.dagster_run.run_id, record) for record in records]
    rest = sorted(set(names) - {name for name, _ in found})
    if rest:
        records = instance.get_run_records(dg.RunsFilter(tags={RUN_KEY: rest}))
        found += [(record.dagster_run.tags[RUN_KEY], record) for record in records]
    return found


def _is_over(instance: dg.DagsterInstance, record: dg.RunRecord, until: datetime) -> bool:
    run = record.dagster_run
    if not run.is_finished:
        return False
    if record.end_time is not None and record.end_time > until.timestamp():
        return False
    retry = instance.get_run_record_by_id(run.tags[RETRY]) if RETRY in run.tags else None
    return retry is None or _is_over(instance, retry, until)
