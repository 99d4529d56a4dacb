"""From a plan to a Dagster job: shared ops for each kind, optional outputs, fan-in merges.

An op knows its node by its alias; everything it does is `step.run_step`. Outputs between ops are lists of
execution numbers, and even those are read back from the journal when a run goes on elsewhere.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import dagster as dg
from dagster import DependencyDefinition, In, MultiDependencyDefinition, NodeInvocation, OpDefinition, Out

from nova_pipelines.compiler import report
from nova_pipelines.compiler.collect import collect
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.compiler.plan import ONLY, OUTCOME, Plan, Step
from nova_pipelines.compiler.step import StepResult, Work, run_step
from nova_pipelines.compiler.tags import TAG_BATCH, TAG_CLIENT, TAG_VERSION, TAG_WORKFLOW
from nova_pipelines.database.approvals import IN_APPROVAL
from nova_pipelines.domain.errors import NovaError, TransientError
from nova_pipelines.nodes.registry import KINDS
from nova_pipelines.nodes.services import Services, ServicesFactory

INPUT = "items"

START_CONFIG = {
    "executions": dg.Field([int], is_required=False, description="Numbers of the executions this run carries."),
    "client": dg.Field(str, is_required=False, description="Slug of the client, when no executions are given."),
    "context": dg.Field(
        dg.Permissive(), is_required=False, description="Initial context of one new execution (JSON object)."
    ),
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """A version of a workflow, ready to become a job."""

    plan: Plan
    workflow_id: int
    version_id: int
    version: int
    #: folder of the mailbox that feeds it, or None; and what is done with a finished mail
    folder: str | None
    then: str
    client_slugs: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RunPolicy:
    """How runs behave, from the settings."""

    max_batch: int = 50
    max_retries: int = 3
    retry_delay_seconds: float = 10.0
    run_max_seconds: int = 3_600


def build_job(
    compiled: Compiled,
    *,
    services: dg.ResourceDefinition,
    policy: RunPolicy,
    pool: str | None = None,
    description: str | None = None,
) -> dg.JobDefinition:
    """The Dagster job of a version. `services` yields a ServicesFactory; `pool` limits ops of sandboxes."""
    plan = compiled.plan
    dependencies: dict[NodeInvocation, Mapping[str, Any]] = {}
    ops: dict[str, OpDefinition] = {}
    for step in plan.steps:
        op = _shared_op(step.node.kind, step.outputs, pool if KINDS[step.node.kind].uses_sandbox else None)
        ops[op.name] = op
        dependencies[NodeInvocation(op.name, alias=step.name)] = _fan_in(
            (source.step, source.output) for source in step.sources
        )
    outcome = _outcome_op()
    start = plan.steps[0]
    dependencies[NodeInvocation(outcome.name, alias=OUTCOME)] = _fan_in(
        [(start.name, ONLY), *((end.name, ONLY) for end in plan.ends)]
    )
    graph = dg.GraphDefinition(
        name=plan.job_name,
        node_defs=[*ops.values(), outcome],
        dependencies=dependencies,
        description=description,
    )
    return graph.to_job(  # pyright: ignore[reportUnknownMemberType] - Dagster's annotations are incomplete here
        name=plan.job_name,
        description=description,
        executor_def=dg.in_process_executor,
        resource_defs={
            "services": services,
            "workflow": dg.ResourceDefinition.hardcoded_resource(compiled),
            "policy": dg.ResourceDefinition.hardcoded_resource(policy),
            "io_manager": dg.IOManagerDefinition(
                resource_fn=_journal_io_manager, required_resource_keys={"services", "workflow"}
            ),
        },
        tags={
            TAG_WORKFLOW: plan.name[:60],
            TAG_VERSION: str(compiled.version),
            "dagster/max_runtime": str(policy.run_max_seconds),
        },
    )


def _fan_in(sources: Any) -> dict[str, Any]:
    """A merge runs if at least one source ran; two inputs in place of the list would be skipped."""
    found = [DependencyDefinition(step, output) for step, output in sources]
    return {INPUT: MultiDependencyDefinition(found)} if found else {}


@cache
def _shared_op(kind: str, outputs: tuple[str, ...], pool: str | None) -> OpDefinition:
    """One OpDefinition for all nodes of a kind with the same ways: op names are unique in a code location,
    and sharing halves the time to build 1,000 jobs."""
    return OpDefinition(
        compute_fn=_start if kind == "start" else _node,
        name=op_name(kind, outputs),
        description=(KINDS[kind].model.__doc__ or "").strip(),
        ins={} if kind == "start" else {INPUT: In()},
        outs={output: Out(is_required=False) for output in outputs},
        config_schema=START_CONFIG if kind == "start" else None,
        required_resource_keys={"services", "workflow", "policy"},
        pool=pool,
    )


def op_name(kind: str, outputs: tuple[str, ...]) -> str:
    """The name of the shared op: readable where that is short and unmistakable, never the same for two.

    With capitals (`MailFetch`), which the names of jobs never have: a workflow may be called "Mail fetch".
    """
    kind = "".join(word.capitalize() for word in kind.split("_"))
    if outputs == (ONLY,):
        return kind
    readable = "__".join((kind, *outputs))
    if len(readable) <= 80 and not any("__" in output for output in outputs):
        return readable
    digest = hashlib.sha256("\0".join(outputs).encode()).hexdigest()[:16]
    return f"{kind}__{len(outputs)}_ways_{digest}"


@lru_cache(maxsize=1)
def _outcome_op() -> OpDefinition:
    return OpDefinition(
        compute_fn=_outcome,
        name="RunOutcome",
        description="Tells how the run went: a table of its executions. Fails if any of them failed.",
        ins={INPUT: In()},
        outs={ONLY: Out(is_required=False)},
        required_resource_keys={"services", "workflow", "policy"},
    )


# ---------------------------------------------------------------- inside a run


def _work(context: dg.OpExecutionContext) -> Work:
    compiled: Compiled = context.resources.workflow
    factory: ServicesFactory = context.resources.services
    run = context.run
    return Work(
        plan=compiled.plan,
        workflow_id=compiled.workflow_id,
        journal=Journal(
            factory.services.databases.nova,
            run.run_id,
            _ancestors(context.instance, run),
            run_key=run.tags.get("dagster/run_key"),
        ),
        services=factory.services,
        # an automatic retry (of a crash) takes up what was interrupted, not what failed for a reason
        retry_failed="dagster/retry_number" not in run.tags,
    )


def _ancestors(instance: Any, run: Any) -> frozenset[str]:
    """The runs that this one repeats, up to the first."""
    found = {run.root_run_id} if run.root_run_id else set[str]()
    parent = run.parent_run_id
    while parent and parent not in found:
        found.add(parent)
        row = instance.get_run_by_id(parent)
        parent = row.parent_run_id if row else None
    return frozenset(found)


def _start(context: dg.OpExecutionContext, inputs: dict[str, Any]) -> Iterator[Any]:
    work, compiled = _work(context), context.resources.workflow
    with _readable_errors(context):
        ids = collect(
            work,
            compiled,
            execution_ids=context.op_config.get("executions"),
            client_slug=context.op_config.get("client"),
            context=context.op_config.get("context"),
            max_batch=context.resources.policy.max_batch,
        )
    if not ids:
        context.log.info("Nothing to do: no mail is waiting and no execution was given.")
        return
    for reason in work.journal.left_alone(context.op_config.get("executions") or []):
        context.log.warning(f"left alone: {reason}")
    clients = report.client_slugs(work.services, ids)
    context.instance.add_run_tags(
        context.run_id, {TAG_BATCH: str(len(ids)), TAG_CLIENT: ",".join(clients)[:200] or "none"}
    )
    yield from _run(context, work, ids)


def _node(context: dg.OpExecutionContext, inputs: dict[str, Any]) -> Iterator[Any]:
    work = _work(context)
    ids = sorted({execution_id for part in inputs[INPUT] for execution_id in part})
    if work.journal.ancestors:
        with _readable_errors(context):
            ids = work.journal.claim(ids, context.resources.workflow.version_id)
    yield from _run(context, work, ids)


def _run(context: dg.OpExecutionContext, work: Work, ids: list[int]) -> Iterator[Any]:
    step = _step_of(context, work.plan)
    policy: RunPolicy = context.resources.policy
    last_try = context.retry_number >= policy.max_retries
    with _readable_errors(context):
        result = run_step(work, step, ids, last_try=last_try)
    for failure in result.failures:
        context.log.error(f"execution {failure.execution_id} at {step.node.id!r}: {failure.error}")
    for item in result.put_off:
        when = f"{item.until:%Y-%m-%d %H:%M:%S} UTC"
        context.log.warning(f"execution {item.execution_id} waits until {when}: {item.reason}")
    if result.transient:
        seconds = backoff(policy.retry_delay_seconds, context.retry_number)
        for failure in result.transient:
            context.log.warning(
                f"execution {failure.execution_id} at {step.node.id!r}: {failure.error}; again in {seconds:.0f} s"
            )
        raise dg.RetryRequested(max_retries=policy.max_retries, seconds_to_wait=seconds)
    _log_asset(context, work.services, step, result)
    failed = [failure for failure in result.failures if failure.status != "needs_review"]
    if failed and not result.passed_on and not work.journal.goes_on():
        # not while others are on another way: a failed op would keep the merge after it from running for them
        raise dg.Failure(
            description=report.failure_text(step, failed), metadata=report.failure_metadata(work.services, failed)
        )
    for output, execution_ids in sorted(result.outputs.items()):
        yield dg.Output(execution_ids, output, metadata=report.step_metadata(result, execution_ids))


def backoff(delay: float, retry_number: int) -> float:
    """Seconds to wait before try `retry_number` + 1: doubled each time, up to 10 minutes, with jitter."""
    return min(delay * 2**retry_number, 600.0) * random.uniform(0.8, 1.2)  # noqa: S311 - no secret


def _step_of(context: dg.OpExecutionContext, plan: Plan) -> Step:
    name = context.op_handle.name
    return next(step for step in plan.steps if step.name == name)


def _log_asset(context: dg.OpExecutionContext, services: Services, step: Step, result: StepResult) -> None:
    key = KINDS[step.node.kind].asset
    # also for rows of a run that died before it could tell
    if key is not None and (result.worked or result.already_done):
        context.log_event(dg.AssetMaterialization(asset_key=key, metadata=report.invoice_table(services, result.facts)))


def _outcome(context: dg.OpExecutionContext, inputs: dict[str, Any]) -> Iterator[Any]:
    work, compiled = _work(context), context.resources.workflow
    with _readable_errors(context):
        rows = report.run_rows(work.services, work.journal.held())
    if compiled.folder is not None:
        try:
            report.settle(work.services, compiled.workflow_id, compiled.then, rows)
        except NovaError as error:
            # the mailbox sensor repeats what could not be flagged now: the work itself is done
            context.log.warning(f"mails could not be marked on the server yet: {error}")
    waiting, deciding = work.journal.waiting(), work.journal.waiting(IN_APPROVAL)
    metadata = report.outcome_metadata(rows)
    numbers = {row.execution_id for row in rows} | waiting.keys() | deciding.keys()
    metadata |= report.page_links(sorted(numbers), work.services.public_url)
    metadata |= {name: len(found) for name, found in (("waiting", waiting), (IN_APPROVAL, deciding)) if found}
    text = report.outcome_text(rows, waiting, deciding)
    failed = [row for row in rows if row.status in ("failed", "unknown")]
    if failed:
        raise dg.Failure(description=text, metadata=metadata, allow_retries=False)
    context.log.info(text)
    yield dg.Output([row.execution_id for row in rows], ONLY, metadata=metadata)


class _readable_errors:  # noqa: N801 - reads as a statement
    """Errors of NOVA's own databases, and of a mailbox that is to be read first, end the op with their text, not
    with a traceback of the driver; those that may pass are tried again."""

    def __init__(self, context: dg.OpExecutionContext) -> None:
        self._policy: RunPolicy = context.resources.policy
        self._tries = context.retry_number

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        policy = self._policy
        if isinstance(error, TransientError) and self._tries < policy.max_retries:
            seconds = backoff(policy.retry_delay_seconds, self._tries)
            raise dg.RetryRequested(max_retries=policy.max_retries, seconds_to_wait=seconds) from error
        if isinstance(error, NovaError):
            raise dg.Failure(description=str(error)) from error


class JournalIOManager(dg.IOManager):
    """Carries execution numbers between ops; in another process they are read back from the journal."""

    def __init__(self, compiled: Compiled, factory: ServicesFactory) -> None:
        self._compiled, self._factory = compiled, factory
        self._carried: dict[tuple[str, str, str], list[int]] = {}

    def handle_output(self, context: Any, obj: list[int]) -> None:
        self._carried[context.run_id, context.step_key, context.name] = obj

    def load_input(self, context: Any) -> list[int]:
        output = context.upstream_output
        key = (output.run_id, output.step_key, output.name)
        if key in self._carried:
            return self._carried[key]
        step = next(step for step in self._compiled.plan.steps if step.name == output.step_key)
        condition = next((way for way, (name, _) in step.ways.items() if name == output.name), None)
        run = context.step_context.dagster_run
        journal = Journal(
            self._factory.services.databases.nova,
            run.run_id,
            _ancestors(context.step_context.instance, run) | {output.run_id},
        )
        return journal.passed(step.node.id, condition)


def _journal_io_manager(context: Any) -> JournalIOManager:
    return JournalIOManager(context.resources.workflow, context.resources.services)
