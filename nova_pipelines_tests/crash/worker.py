"""A run worker for crash tests: executes a Dagster run as its code server would, and kills itself where it is told.

The hooks are put in here, from outside: no production code knows of them.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Kill:
    """Where a worker ends itself by SIGKILL.

    `place`: "node" (its work, after the journal was read), "record" (the commit of its chain rows), or a function
    as `module:name`. `node`: its id, for the first two. `nth`: at which call.
    """

    place: str
    when: Literal["before", "after"]
    node: str | None = None
    nth: int = 1

    def __str__(self) -> str:
        what = f"{self.place}-{self.node}" if self.node else self.place.rpartition(".")[2].replace(":", "-")
        return f"{self.when}-{what}" + (f"-{self.nth}" if self.nth > 1 else "")


def work(ref: Any, run_id: str, environment: dict[str, str], log: Path, kills: Sequence[Kill]) -> None:
    """The body of the worker process: what `dagster api execute_run` and the code server's child do."""
    os.environ.clear()
    os.environ.update(environment)
    output = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    from dagster import DagsterInstance
    from dagster._core.origin import JobPythonOrigin
    from dagster._grpc.impl import core_execute_run
    from dagster._utils.hosted_user_process import recon_job_from_origin

    for kill in kills:
        arm(kill)
    with DagsterInstance.from_ref(ref) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        assert isinstance(run.job_code_origin, JobPythonOrigin)
        job = recon_job_from_origin(run.job_code_origin)
        for _ in core_execute_run(job, run, instance, inject_env_vars=False):
            pass


def arm(kill: Kill) -> None:
    """Wraps the function of a kill point."""
    from nova_pipelines.compiler.journal import Journal
    from nova_pipelines.nodes.registry import KINDS

    if kill.place == "node":
        deadly = _deadly(kill, lambda node, *_: node.id == kill.node)
        for name, kind in KINDS.items():
            KINDS[name] = dataclasses.replace(kind, run=deadly(kind.run))
    elif kill.place == "record":
        deadly = _deadly(kill, lambda _journal, records: any(record.node_id == kill.node for record in records))
        Journal.record = deadly(Journal.record)  # type: ignore[method-assign]
    else:
        module_name, _, path = kill.place.partition(":")
        owner: Any = importlib.import_module(module_name)
        *owners, name = path.split(".")
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, name, _deadly(kill, lambda *_: True)(getattr(owner, name)))


def _deadly(kill: Kill, matches: Callable[..., bool]) -> Callable[[Any], Any]:
    calls = 0

    def wrap(function: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            if not matches(*args):
                return function(*args, **kwargs)
            calls += 1
            if calls == kill.nth and kill.when == "before":
                _die()
            result = function(*args, **kwargs)
            if calls == kill.nth:
                _die()
            return result

        return wrapped

    return wrap


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
