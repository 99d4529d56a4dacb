"""The sensor that tells webhooks what the web service has left over: it was away, or its thread died."""

from collections.abc import Callable

import dagster as dg

from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.webhooks import PATIENCE, Courier
from nova_pipelines.settings import Settings

INTERVAL_SECONDS = 30


def webhook_sensor(services: Callable[[], Services], settings: Settings) -> dg.SensorDefinition:
    """A tick tells a few deliveries of each receiver that have waited for a minute: the rest is of the next ones."""

    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        report = Courier(services(), settings).round(patience=PATIENCE)
        for error in report.errors:
            context.log.warning(f"a webhook was not told: {error}")
        return dg.SkipReason(f"{report.sent} deliveries made, {len(report.errors)} receivers did not take theirs")

    return dg.SensorDefinition(
        name="webhook_sensor",
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="Tells webhooks that executions ended, where the web service has not done it.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
