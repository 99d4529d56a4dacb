"""Sensors: one scans all mailboxes and requests runs; others close the executions of dead runs."""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import dagster as dg
from dagster._core.definitions.target import AutomationTarget
from sqlalchemy import func, select

from nova_pipelines.database.approvals import apply_deadlines
from nova_pipelines.database.clients import mailboxes
from nova_pipelines.database.executions import close_unfinished
from nova_pipelines.database.mail_places import Reader
from nova_pipelines.database.mail_places import places as mail_places
from nova_pipelines.database.mailboxes import due
from nova_pipelines.database.nova import Execution
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.assignment import make_executions
from nova_pipelines.nodes.intake import ScanReport, scan_mailbox
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.settling import settle_messages
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.orchestration.dispatch import repeat_requests, request_runs
from nova_pipelines.orchestration.ledger_audit import UNKNOWN_RUN
from nova_pipelines.orchestration.loaded import Loaded
from nova_pipelines.orchestration.mailbox_health import mailbox_health_sensor
from nova_pipelines.orchestration.reaper import sandbox_reaper_sensor
from nova_pipelines.orchestration.runs import TO_RETRY, ended_runs
from nova_pipelines.orchestration.webhooks import webhook_sensor
from nova_pipelines.orchestration.workers import fail_runs_without_worker
from nova_pipelines.settings import Settings, load_settings

#: seconds of one tick that go into mailboxes; Dagster ends a tick at 60
SCAN_SECONDS = 20.0
#: runs that one tick looks up in Dagster's storage
MAX_RUNS = 200


@lru_cache(maxsize=1)
def _services() -> Services:
    """One set of services (and connections) for all ticks of this code server."""
    return build_services(load_settings())


def build_sensors(loaded: Mapping[str, Loaded], settings: Settings) -> list[dg.SensorDefinition]:
    return [
        mailbox_sensor(loaded, settings),
        mailbox_health_sensor(_services, settings),
        webhook_sensor(_services, settings),
        dead_run_sensor(dg.DagsterRunStatus.FAILURE, "failed_run_sensor"),
        dead_run_sensor(dg.DagsterRunStatus.CANCELED, "canceled_run_sensor"),
        *([sandbox_reaper_sensor(_services)] if settings.sandbox == "e2b" else []),
    ]


def mailbox_sensor(loaded: Mapping[str, Loaded], settings: Settings) -> dg.SensorDefinition:
    """Scans every mailbox with bounded work and asks for runs of what is pending."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        services = _services()
        nova = services.databases.nova
        requests = repeat_requests(nova, loaded, lambda key: _run_exists(context.instance, key))
        for run_id in fail_runs_without_worker(context.instance):
            context.log.error(f"run {run_id} had lost its worker and is now failed")
        close_orphans(services, context.instance, datetime.now(UTC))
        cursor, errors = scan_all(services, loaded, context.cursor)
        errors += _settle_all(services, loaded)
        with nova.session() as session:
            for done in apply_deadlines(session):
                context.log.info(f"the deadline of approval {done.approval_id} has passed: {done.status}")
        requests += request_runs(nova, loaded, max_batch=settings.nova_max_batch, max_waiting=settings.nova_max_waiting)
        for error in errors:
            context.log.error(error)
        if not requests:
            reason = "; ".join(errors) if errors else "no new mail and nothing pending"
            context.update_cursor(cursor)
            return dg.SkipReason(reason)
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    sensor = dg.SensorDefinition(
        name="mailbox_sensor",
        evaluation_fn=evaluate,
        minimum_interval_seconds=5,
        description="Scans all mailboxes, fills the ledger and requests runs of what is waiting.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    # targets by name: a sensor that took the job definitions would have all of them built in every process
    sensor._targets = [AutomationTarget(resolvable_to_job=name) for name in loaded]
    return sensor


def scan_all(services: Services, loaded: Mapping[str, Loaded], cursor: str | None) -> tuple[str, list[str]]:
    """Scans mailbox after mailbox, going on after the one where the last tick ended.

    Returns the new cursor (the credential to go on after) and what went wrong; a mailbox that fails keeps
    no other from being read, and is left alone until its next attempt is due.
    """
    deadline = time.monotonic() + SCAN_SECONDS
    triggers = [workflow for workflow in loaded.values() if _trigger(workflow)]
    with services.databases.nova.read() as session:
        places = mail_places(session, [Reader(w.compiled.folder or "INBOX", w.compiled.client_slugs) for w in triggers])
        at = [place for place in places if due(session, place.credential_id, place.folder)]
    begin = next((i + 1 for i, place in enumerate(places) if f"{place.credential_id}:{place.folder}" == cursor), 0)
    errors: list[str] = []
    last = cursor or ""
    for place in places[begin:] + places[:begin]:
        if place not in at:
            continue  # it failed a short while ago: a wrong password at every tick would lock the account
        if time.monotonic() > deadline:
            break
        last = f"{place.credential_id}:{place.folder}"
        try:
            report: ScanReport = scan_mailbox(services, place.credential_id, place.folder, deadline=deadline)
            errors += [f"mailbox of {place.name}: {error}" for error in report.errors]
        except NovaError as error:
            errors.append(f"mailbox of {place.name}: {error}")
    for workflow in triggers:
        _make(services, workflow)
    return last, errors


def _trigger(workflow: Loaded) -> bool:
    return workflow.definition.trigger is not None and workflow.definition.trigger.mailbox is not None


def _make(services: Services, workflow: Loaded) -> None:
    compiled = workflow.compiled
    with services.databases.nova.read() as session:
        clients = [
            client.id
            for client, _ in mailboxes(session)
            if compiled.client_slugs is None or client.slug in compiled.client_slugs
        ]
    make_executions(
        services,
        workflow_id=compiled.workflow_id,
        version_id=compiled.version_id,
        for_all=True,
        folder=compiled.folder or "INBOX",
        client_ids=sorted(set(clients)),
    )


def _settle_all(services: Services, loaded: Mapping[str, Loaded]) -> list[str]:
    """Repeats "done but not flagged" on the servers, for every workflow that reads mail."""
    errors: list[str] = []
    for workflow in loaded.values():
        compiled = workflow.compiled
        if compiled.folder is None:
            continue
        try:
            settle_messages(services, workflow_id=compiled.workflow_id, then=compiled.then)
        except NovaError as error:
            errors.append(f"finished mails could not be flagged yet: {error}")
    return errors


def _run_exists(instance: dg.DagsterInstance, run_key: str) -> bool:
    filters = dg.RunsFilter(tags={"dagster/run_key": run_key})
    return bool(instance.get_run_records(filters, limit=1))


def dead_run_sensor(status: dg.DagsterRunStatus, name: str) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=status,
        name=name,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Closes the executions of runs that ended before their work did.",
    )
    def close(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        # Dagster sets the tag a moment after the status; what nobody retries after all is left to close_orphans
        may_retry = status is dg.DagsterRunStatus.FAILURE and context.instance.run_retries_enabled
        if run.tags.get("dagster/will_retry", str(may_retry).lower()) == "true":
            return dg.SkipReason(f"run {run.run_id} is retried: its executions go on there")
        reason = (context.dagster_event.message or "") if context.dagster_event else ""
        left = close_executions(_services(), run.run_id, run.tags.get("dagster/run_key"), status.value, reason)
        return dg.SkipReason(f"run {run.run_id} left {left} executions, which wait for another run or are closed")

    return close


def close_orphans(services: Services, instance: dg.DagsterInstance, now: datetime) -> int:
    """Takes executions from runs that ended a minute ago and that no retry goes on with; returns how many.

    Such are left where a retry died before it took them over, or could not be launched at all.
    """
    unfinished = Execution.status.in_(["pending", "running"]) & Execution.run_id.is_not(None)
    query = select(Execution.run_id).where(unfinished).group_by(Execution.run_id)
    with services.databases.nova.read() as session:
        oldest = session.scalars(query.order_by(func.min(Execution.id)).limit(MAX_RUNS))
        names = [name for name in oldest if name]
    return sum(
        close_executions(services, name, None, how, "and no other run went on with it")
        for name, how in ended_runs(instance, names, now, TO_RETRY).items()
        if how != UNKNOWN_RUN
    )


def close_executions(services: Services, run_id: str, run_key: str | None, status: str, reason: str) -> int:
    """Takes the unfinished executions from an ended run; returns how many. What a person cancelled stays closed;
    of other ends they are asked for again, some times."""
    text = f"the run ended ({status.lower()}) before this execution did: {reason}"
    again = status.upper() == dg.DagsterRunStatus.FAILURE.value
    with services.databases.nova.session() as session:
        return close_unfinished(session, [run_id, *([run_key] if run_key else [])], text, again=again)
