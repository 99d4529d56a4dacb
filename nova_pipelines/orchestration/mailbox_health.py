"""The health of mailboxes in Dagster: an asset for each client's mail, observed when something changed, and alerts."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from nova_pipelines.database.clients import mailboxes
from nova_pipelines.database.mail_places import places
from nova_pipelines.database.mailbox_views import MailboxView, view_mailboxes
from nova_pipelines.database.nova import Client
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.nodes.alerts import Limits, evaluate_alerts
from nova_pipelines.nodes.services import Services
from nova_pipelines.settings import Settings

INTERVAL_SECONDS = 60
#: an observation is repeated after this long even if nothing changed
OBSERVE_EVERY = timedelta(minutes=10)
GROUP = "mail"

Cursor = dict[str, tuple[str, float]]  # slug → digest and time of its last observation


def mail_key(slug: str) -> dg.AssetKey:
    return dg.AssetKey([GROUP, slug])


def mail_assets(nova: Database) -> list[dg.AssetSpec]:
    """The mail of each active client that has a mailbox: what the invoice table is made of."""
    with nova.read() as session:
        clients: dict[str, Client] = {client.slug: client for client, _ in mailboxes(session)}
    return [
        dg.AssetSpec(
            mail_key(client.slug),
            description=f"The mailboxes of {client.name}, as the sensor sees them: last success, what waits, what was "
            "set aside. `nova mailbox status` shows the same.",
            group_name=GROUP,
            kinds={"email"},
        )
        for client in clients.values()
    ]


def mailbox_health_sensor(
    services: Callable[[], Services], settings: Settings, now: Callable[[], datetime] = utc_now
) -> dg.SensorDefinition:
    """Alerts and observations, once a minute. Apart from the sensor that reads: it tells when that one stops."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        moment = now()
        report = evaluate_alerts(services(), settings, now=moment)
        for trouble in report.troubles:
            context.log.warning(f"{trouble.kind}: {trouble.message} → {trouble.remedy}")
        for error in report.errors:
            context.log.error(error)
        observed, cursor = observations(services().databases.nova, settings, context.cursor, moment)
        if observed:
            return dg.SensorResult(asset_events=observed, cursor=cursor)
        troubles = f"{len(report.troubles)} troubles" if report.troubles else "all mailboxes are well"
        return dg.SkipReason(f"{troubles}, {report.told} alerts told, nothing new to observe")

    return dg.SensorDefinition(
        name="mailbox_health_sensor",
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="Observes every mailbox, and alerts people when one is silent, refused or behind.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def observations(
    nova: Database, settings: Settings, cursor: str | None, now: datetime
) -> tuple[list[dg.AssetObservation], str]:
    """An observation for each client whose mail changed, or was not observed for a while; and the new cursor."""
    limits, known = Limits.of(settings), _read(cursor)
    with nova.read() as session:
        views = view_mailboxes(session, places(session))
    by_client: dict[str, list[MailboxView]] = {}
    for view in views:
        by_client.setdefault(view.place.client, []).append(view)
    found: list[dg.AssetObservation] = []
    fresh: Cursor = {}
    for slug, own in by_client.items():
        digest = _digest(own, limits, now)
        seen, at = known.get(slug, ("", 0.0))
        if seen == digest and now.timestamp() - at < OBSERVE_EVERY.total_seconds():
            fresh[slug] = (seen, at)
            continue
        fresh[slug] = (digest, now.timestamp())
        found.append(dg.AssetObservation(mail_key(slug), metadata=_metadata(own, limits, now)))
    return found, json.dumps(fresh)


def _read(cursor: str | None) -> Cursor:
    try:
        data: Any = json.loads(cursor or "{}")
        return {str(slug): (str(seen), float(at)) for slug, (seen, at) in data.items()}
    except (ValueError, TypeError, AttributeError):  # of another version: everything is observed once more
        return {}


def _digest(views: Iterable[MailboxView], limits: Limits, now: datetime) -> str:
    """What counts as a change: not the time of each success, nor how long something waits."""
    facts = [
        (view.place.name, view.error_kind, view.backlog, view.quarantined, view.silent_for(now) > limits.silent)
        for view in views
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _metadata(views: Sequence[MailboxView], limits: Limits, now: datetime) -> dict[str, Any]:
    lags = [view.lag_seconds for view in views if view.lag_seconds is not None]
    successes = [view.last_success_at for view in views if view.last_success_at is not None]
    errors = "; ".join(f"{view.place.name}: {view.error}" for view in views if view.error)
    metadata: dict[str, Any] = {
        "backlog": sum(view.backlog for view in views),
        "quarantined": sum(view.quarantined for view in views),
        "oldest waits (minutes)": round(max(view.waits_for(now) for view in views).total_seconds() / 60, 1),
        "silent": any(view.silent_for(now) > limits.silent for view in views),
    }
    if len(successes) == len(views):  # of several folders the one that is worst off
        metadata["last success"] = dg.MetadataValue.timestamp(min(successes))
    if lags:
        metadata["lag (seconds)"] = max(lags)
    if errors:
        metadata["error"] = errors
    return metadata
