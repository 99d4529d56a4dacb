"""The sensor that ends cloud sandboxes which nobody works in any more; there only with the E2B backend."""

from collections.abc import Callable, Collection

import dagster as dg

from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.nodes.reaping import reap
from nova_pipelines.nodes.services import Services
from nova_pipelines.orchestration.findings import chunks

#: an orphan lives five minutes by itself
INTERVAL_SECONDS = 300


def sandbox_reaper_sensor(services: Callable[[], Services]) -> dg.SensorDefinition:
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        backend = services().backend()
        if not isinstance(backend, E2BSandbox):
            return dg.SkipReason(f"the sandbox is {backend.name}")

        def ended(runs: Collection[str]) -> Collection[str]:
            return ended_run_ids(context.instance, runs)

        verdicts = reap(services().databases.nova, backend, ended_runs=ended)
        for verdict in verdicts:
            if verdict.error:
                context.log.error(f"sandbox {verdict.sandbox_id} ({verdict.reason}) goes on billing: {verdict.error}")
            elif verdict.reason:
                context.log.warning(f"sandbox {verdict.sandbox_id} was ended: {verdict.reason}")
        count = sum(verdict.action == "ended" for verdict in verdicts)
        return dg.SkipReason(f"{len(verdicts)} sandboxes of this installation were running, {count} were ended")

    return dg.SensorDefinition(
        name="sandbox_reaper_sensor",
        evaluation_fn=evaluate,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="Ends E2B sandboxes that no session works in any more: they would bill until their life ends.",
        default_status=dg.DefaultSensorStatus.RUNNING,
    )


def ended_run_ids(instance: dg.DagsterInstance, runs: Collection[str]) -> list[str]:
    """Which of these runs have ended, well or not. A run that Dagster does not know may be another program's."""
    found = [run for piece in chunks(list(runs)) for run in instance.get_runs(dg.RunsFilter(run_ids=list(piece)))]
    return [run.run_id for run in found if run.is_finished]
