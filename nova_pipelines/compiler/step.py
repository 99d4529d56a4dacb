"""One step of a plan over its items, without any engine: journal, node, journal.

The class of an error decides what becomes of an item. Other items go on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from nova_pipelines.compiler.chain_rows import CLOSED, Record
from nova_pipelines.compiler.journal import Entry, Journal, PutOff
from nova_pipelines.compiler.plan import ONLY, Plan, Step
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import (
    AwaitsDecision,
    CodeError,
    NeedsPerson,
    NovaError,
    OutcomeUnknown,
    TransientError,
    Unavailable,
)
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.registry import KINDS
from nova_pipelines.nodes.services import Services, Usage

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that does not go on. `status` as in the chain of work."""

    execution_id: int
    status: str
    error: str


@dataclass(slots=True)
class StepResult:
    """What a step did: the items of each output, those that stopped here, and facts for the run's page."""

    outputs: dict[str, list[int]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    #: items to try again: nothing was recorded for them yet
    transient: list[Failure] = field(default_factory=list)
    #: items that were given back, since a service is down or a person decides: they are taken up later
    put_off: list[PutOff] = field(default_factory=list)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    worked: int = 0
    already_done: int = 0

    @property
    def passed_on(self) -> int:
        return sum(len(ids) for ids in self.outputs.values())


@dataclass(frozen=True, slots=True)
class Work:
    """What all steps of a run share."""

    plan: Plan
    workflow_id: int
    journal: Journal
    services: Services
    #: items that failed in an earlier run are tried again (a person asked for it); what failed in this run is not
    retry_failed: bool = True


def run_step(
    work: Work,
    step: Step,
    execution_ids: Sequence[int],
    *,
    last_try: bool,
    progress: Callable[[str], None] = log.debug,
) -> StepResult:
    """Takes items through one node. With `last_try` a transient failure becomes a failure.

    Raises only errors of NOVA's own databases; what happens to items stands in the result.
    """
    result = StepResult()
    records: list[Record] = []
    kind = KINDS[step.node.kind]
    for entry in work.journal.open(step.node.id, execution_ids):
        if entry.done and step.ways and entry.path not in step.ways:
            reason = f"it went the way {entry.path!r} before, which node {step.node.id!r} no longer has"
            result.failures.append(Failure(entry.execution_id, "failed", f"{reason}: load a version that has it"))
        elif entry.done:
            result.already_done += 1
            _pass_on(result, step, entry.execution_id, entry.path)
        elif entry.cancelled_by is not None and entry.status == "running" and step.node.kind != "end":
            records.append(_cancelled(step, entry, result))
        elif _to_be_done(work, entry):
            progress(f"{step.node.id}: execution {entry.execution_id}")
            record = _work_on(work, step, kind, entry, result, last_try)
            if record is not None:
                records.append(record)
    work.journal.record(records)
    if result.put_off:
        work.journal.put_off(result.put_off)
    return result


def _to_be_done(work: Work, entry: Entry) -> bool:
    # what a run works on is running: a pending one was put off by an earlier try of this very op
    if entry.status in CLOSED or entry.status in ("completed", "pending"):
        return False
    failed_here = entry.last_run == work.journal.run_id
    return entry.status != "failed" or (work.retry_failed and not failed_here)


def _pass_on(result: StepResult, step: Step, execution_id: int, path: str | None) -> None:
    way = step.ways.get(path) if path is not None else None
    output = way[0] if way is not None else ONLY
    result.outputs.setdefault(output, []).append(execution_id)


def _work_on(work: Work, step: Step, kind: NodeKind, entry: Entry, result: StepResult, last_try: bool) -> Record | None:
    item = Item(
        execution_id=entry.execution_id,
        workflow_id=work.workflow_id,
        workflow_name=work.plan.name,
        client=entry.client,
        context=dict(entry.context),
        ways=frozenset(step.ways),
    )
    work.services.take_usage()
    began = time.perf_counter()
    try:
        done = _checked(_run(work, step, kind, entry, item), step)
    except NovaError as error:
        if _comes_again(step.node.id, entry, error, result, last_try):
            if not kind.repeatable(step.node, item):
                work.journal.withdraw(entry.execution_id)  # such an error means that nothing was done
            return None
        failure = Failure(entry.execution_id, _status(error), f"{error.word}: {error}")
        result.failures.append(failure)
        after = error.context if isinstance(error, NeedsPerson) else None
        spent = Spent(time.perf_counter() - began, work.services.take_usage())
        return _record(step, entry, failure.status, spent, after=after, error=failure.error)
    result.worked += 1
    spent = Spent(time.perf_counter() - began, work.services.take_usage())
    if done.metadata:
        result.facts[entry.execution_id] = done.metadata
    if done.stop:
        return _record(step, entry, "stopped", spent, after=done.context, final=True)
    _pass_on(result, step, entry.execution_id, done.path)
    return _record(
        step,
        entry,
        "success",
        spent,
        after=done.context,
        code=done.code,
        decision=done.decision,
        path=_path_taken(step, done),
        final=step.node.kind == "end",
    )


def _run(work: Work, step: Step, kind: NodeKind, entry: Entry, item: Item) -> Result:
    """The node itself. One that may have outside effects leaves a mark first, and is not begun where one is left."""
    if kind.repeatable(step.node, item):
        return kind.run(step.node, item, work.services)
    if entry.begun == step.node.id:
        raise OutcomeUnknown(
            f"a crash interrupted node {step.node.id!r} when it had begun, and its code has the network: what it did "
            "outside is not known",
            remedy="look at what it sends and stores, then: nova executions retry N --force",
        )
    work.journal.begin(entry.execution_id, step.node.id)
    return kind.run(step.node, item, work.services)


def _comes_again(node_id: str, entry: Entry, error: NovaError, result: StepResult, last_try: bool) -> bool:
    """Whether an item is tried again, later or at once: nothing is recorded for it then."""
    if isinstance(error, AwaitsDecision):
        result.put_off.append(PutOff(entry.execution_id, error.until, f"{error.word}: {error}", decided_at=node_id))
        return True
    if not isinstance(error, TransientError):
        return False
    if isinstance(error, Unavailable):
        until = datetime.now(UTC) + timedelta(seconds=error.after_seconds)
        result.put_off.append(PutOff(entry.execution_id, until, f"{error.word}: {error}"))
        return True
    if last_try:
        return False
    result.transient.append(Failure(entry.execution_id, _status(error), f"{error.word}: {error}"))
    return True


def _cancelled(step: Step, entry: Entry, result: StepResult) -> Record:
    """Somebody cancelled it while an earlier node worked on it: this one is not begun. (At its end it is through.)"""
    failure = Failure(entry.execution_id, "failed", f"cancelled by {entry.cancelled_by}")
    result.failures.append(failure)
    return _record(step, entry, failure.status, Spent(0.0, Usage()), after=None, error=failure.error)


def _path_taken(step: Step, done: Result) -> str | None:
    return done.path if done.path in step.ways else step.following


def _checked(done: Result, step: Step) -> Result:
    """Refuses a result that could not be stored. Raises CodeError."""
    if step.ways and not done.stop and done.path not in step.ways:
        raise CodeError(
            f"node {step.node.id!r} chose {done.path!r}, but its ways are {', '.join(step.ways)}",
            remedy="add an edge with this condition, or correct the decision",
        )
    try:
        canonical_json(done.context).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CodeError(f"the context after {step.node.id!r} is not plain JSON: {error}") from None
    return done


def _status(error: NovaError) -> str:
    if isinstance(error, NeedsPerson):
        return "needs_review"
    return "unknown" if isinstance(error, OutcomeUnknown) else "failed"


@dataclass(frozen=True, slots=True)
class Spent:
    """What a node took: its own seconds, and what its sandbox cost."""

    seconds: float
    usage: Usage


def _record(
    step: Step,
    entry: Entry,
    status: str,
    spent: Spent,
    *,
    after: dict[str, Any] | None,
    code: str | None = None,
    decision: str | None = None,
    path: str | None = None,
    error: str | None = None,
    final: bool = False,
) -> Record:
    return Record(
        execution_id=entry.execution_id,
        node_id=step.node.id,
        node_type=step.node.kind,
        status=status,
        before=entry.context,
        after=after,
        seconds=spent.seconds,
        sandbox_seconds=spent.usage.seconds if spent.usage.jobs else None,
        cost_nano_usd=spent.usage.cost_nano_usd if spent.usage.jobs else None,
        code=code if code is not None else getattr(step.node, "code", None),
        decision=decision,
        path=path,
        error=error,
        final=final,
    )


def walk(work: Work, execution_ids: Sequence[int]) -> dict[str, StepResult]:
    """The whole plan over items, in this process and without an engine; every failure is final.

    What `make bench` calls "not Dagster's part", and the reference for the tests of compiled jobs.
    """
    arrived: dict[str, list[int]] = {step.name: [] for step in work.plan.steps}
    arrived[work.plan.steps[0].name] = list(execution_ids)
    targets = {(source.step, source.output): step.name for step in work.plan.steps for source in step.sources}
    results: dict[str, StepResult] = {}
    for step in work.plan.steps:
        if not arrived[step.name]:
            continue
        result = run_step(work, step, sorted(arrived[step.name]), last_try=True)
        results[step.node.id] = result
        for output, ids in result.outputs.items():
            if (step.name, output) in targets:
                arrived[targets[step.name, output]] += ids
    return results
