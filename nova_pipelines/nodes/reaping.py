"""Ends cloud sandboxes that nobody works in any more: the orphans of killed workers and of lost answers. Goes by the
record of sessions in nova-db; other installations' sandboxes are not even looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.adapters.sandbox.e2b_cloud import INSTALLATION, SESSION, Found
from nova_pipelines.database import sandboxes
from nova_pipelines.database.sandbox_tables import SandboxRow
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import NovaError

#: clocks of two machines differ, and an extension takes a moment
GRACE = timedelta(seconds=60)
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A running sandbox of this installation. `reason` why it is to be ended (None: somebody works in it), `error`
    why that did not succeed."""

    sandbox_id: str
    started_at: datetime
    run_id: str | None
    reason: str | None
    error: str | None = None

    @property
    def action(self) -> str:
        return "kept" if self.reason is None else "failed" if self.error else "ended"


def reap(
    nova: Database,
    cloud: E2BSandbox,
    *,
    ended_runs: Callable[[Collection[str]], Collection[str]] = lambda runs: (),
    dry_run: bool = False,
    now: Callable[[], datetime] = utc_now,
) -> list[Verdict]:
    """Looks at every running sandbox of this installation and ends those that are unknown, given up, over their time
    or of an ended run. `ended_runs` tells which of some runs are over.

    One that cannot be ended keeps no other from it. Raises what E2B answers when it gives no list.
    """
    with nova.read() as session:
        metadata = {INSTALLATION: sandboxes.installation(session)}
    found = cloud.find(metadata)
    with nova.read() as session:  # after the list: the row of a sandbox is older than the sandbox
        rows = sandboxes.rows_by_mark(session, [one.metadata.get(SESSION, "") for one in found])
    over = set(ended_runs(sorted({row.run_id for row in rows.values() if row.run_id})))
    verdicts = [_judge(one, rows.get(one.metadata.get(SESSION, "")), over, now()) for one in found]
    if not dry_run:
        verdicts = [_end(cloud, verdict) if verdict.reason else verdict for verdict in verdicts]
        gone = [one.metadata[SESSION] for one, v in zip(found, verdicts, strict=True) if v.action == "ended"]
        with nova.session() as session:
            sandboxes.mark_ended(session, gone, now())
            sandboxes.forget_old(session, now())
    return verdicts


def _judge(one: Found, row: SandboxRow | None, over: set[str], now: datetime) -> Verdict:
    reason = None
    if row is None:
        reason = "no session knows it"
    elif row.released_at is not None:
        reason = "its session gave it up"
    elif row.alive_until + GRACE < now:
        reason = "it is over its time"
    elif row.run_id in over:
        reason = "its run is over"
    return Verdict(one.sandbox_id, one.started_at, row.run_id if row else None, reason)


def _end(cloud: E2BSandbox, verdict: Verdict) -> Verdict:
    try:
        cloud.kill(verdict.sandbox_id)
    except NovaError as error:
        log.warning("sandbox %s (%s) could not be ended: %s", verdict.sandbox_id, verdict.reason, error)
        return Verdict(verdict.sandbox_id, verdict.started_at, verdict.run_id, verdict.reason, str(error))
    return verdict
