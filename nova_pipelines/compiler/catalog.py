"""From a stored version to a Dagster job. What does not compile is said by name and breaks nothing else."""

from __future__ import annotations

from typing import Any

import dagster as dg
from dagster._utils.schedules import is_valid_cron_schedule

from nova_pipelines.compiler.job import Compiled, RunPolicy, build_job
from nova_pipelines.compiler.plan import make_plan
from nova_pipelines.domain.errors import DefinitionError, Problem
from nova_pipelines.domain.workflow import Definition
from nova_pipelines.nodes.mail_fetch import MailFetchNode
from nova_pipelines.nodes.registry import definition_from


def compile_version(
    data: Any, *, workflow_id: int, version_id: int, version: int, source: str
) -> tuple[Definition, Compiled]:
    """A stored definition, checked again and planned. Raises DefinitionError if it no longer is valid."""
    definition = definition_from(data, source=source)
    check_schedule(definition, source=source)
    trigger = definition.trigger.mailbox if definition.trigger else None
    fetches = [node for node in definition.nodes if isinstance(node, MailFetchNode)]
    compiled = Compiled(
        plan=make_plan(definition),
        workflow_id=workflow_id,
        version_id=version_id,
        version=version,
        folder=trigger.folder if trigger else fetches[0].folder if fetches else None,
        then=trigger.then if trigger else "mark_as_read",
        client_slugs=tuple(trigger.clients) if trigger and trigger.clients is not None else None,
    )
    return definition, compiled


def check_schedule(definition: Definition, *, source: str) -> None:
    """Raises DefinitionError for a schedule or time zone that Dagster does not know."""
    if definition.trigger is None or definition.trigger.schedule is None:
        return
    cron = definition.trigger.schedule
    if not is_valid_cron_schedule(cron):
        reason = f"{cron!r} is no cron expression: five fields, such as '0 8 * * 1-5'"
        raise DefinitionError([Problem("trigger.schedule", reason)], source=source)
    try:
        dg.ScheduleDefinition(
            name="check", job_name="check", cron_schedule=cron, execution_timezone=definition.trigger.timezone
        )
    except dg.DagsterInvalidDefinitionError as error:
        raise DefinitionError([Problem("trigger.timezone", str(error))], source=source) from None


def try_compile(definition: Definition, *, source: str) -> None:
    """Builds the job of a definition and throws it away: what cannot become a job is not stored.

    Raises DefinitionError with Dagster's reason.
    """
    _, compiled = compile_version(definition.canonical(), workflow_id=0, version_id=0, version=0, source=source)
    try:
        build_job(compiled, services=dg.ResourceDefinition.none_resource(), policy=RunPolicy())
    except dg.DagsterError as error:
        raise DefinitionError([Problem("", f"Dagster refuses the job: {error}")], source=source) from error
