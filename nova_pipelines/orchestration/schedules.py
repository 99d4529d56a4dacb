"""Schedules from the triggers of definitions."""

import dagster as dg

from nova_pipelines.domain.workflow import Definition


def schedule_for(job_name: str, definition: Definition) -> dg.ScheduleDefinition | None:
    """The schedule of a workflow, or None. Each tick requests one run, which collects what is waiting."""
    trigger = definition.trigger
    if trigger is None or trigger.schedule is None:
        return None
    return dg.ScheduleDefinition(
        name=f"{job_name}_schedule",
        job_name=job_name,
        cron_schedule=trigger.schedule,
        execution_timezone=trigger.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
