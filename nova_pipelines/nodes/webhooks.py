"""Tells webhooks what they have to be told: signed, each delivery under one name, tried again until it is taken.

The web service does it all the time (`Courier.start`); the sensor takes what is left over when that is not there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from nova_pipelines.adapters.targets import check_target, connect_public
from nova_pipelines.adapters.webhook import WebhookConfig, post
from nova_pipelines.database.nova import Webhook
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.webhooks import (
    Told,
    claim_deliveries,
    due_webhooks,
    put_back,
    retry_after,
    settle_delivery,
)
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.services import Services
from nova_pipelines.settings import Settings

log = logging.getLogger("nova.webhooks")
EVENT = "X-Nova-Event"
#: seconds that a receiver may take, and between looks whether there is something to tell
SECONDS, LOOK_SECONDS = 10.0, 1.0
#: receivers that are called at the same time, and deliveries that one of them gets in a row
AT_ONCE, IN_A_ROW = 4, 10
#: the sensor leaves a delivery to the web service for so long
PATIENCE = timedelta(minutes=1)


@dataclass(slots=True)
class Round:
    """What one look told. `errors`: receivers that did not take it."""

    sent: int = 0
    errors: list[str] = field(default_factory=list)


class Courier:
    """Sends deliveries. Several of them, in any processes, share the work."""

    def __init__(self, services: Services, settings: Settings, *, now: Callable[[], datetime] = utc_now) -> None:
        self._services, self._now = services, now
        self._private = settings.nova_webhook_private
        self._give_up = timedelta(hours=settings.nova_webhook_give_up_hours)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Looks and tells in a thread of its own, until `stop`."""
        # a daemon thread: a receiver that hangs must not keep the process
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self, seconds: float = 1.0) -> None:
        """What is being sent then is sent again later, under the same name."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        well = True
        while not self._stop.wait(LOOK_SECONDS):
            try:
                report = self.round()
                for error in report.errors:
                    log.warning("a webhook was not told: %s", error)
                well = True
            except NovaError as error:
                if well:  # said once, not every second
                    log.error("webhooks wait: %s", error)
                well = False
            except Exception:
                log.exception("unexpected error in the webhooks' thread")
                well = False

    def round(self, *, patience: timedelta = timedelta(0)) -> Round:
        """Tells everything that has waited for `patience` at least. Raises TransientError or ConfigurationError when
        the database is away."""
        report = Round()
        before = self._now() - patience
        with self._services.databases.nova.read() as session:
            numbers = due_webhooks(session, now=before)
        if not numbers:
            return report
        with ThreadPoolExecutor(min(AT_ONCE, len(numbers)), "webhook") as pool:
            for sent, error in pool.map(lambda number: self._tell(number, before), numbers):
                report.sent += sent
                report.errors += [error] if error else []
        return report

    def _tell(self, webhook_id: int, before: datetime) -> tuple[int, str | None]:
        """One receiver's deliveries, in order; after a failure the others wait with it."""
        nova = self._services.databases.nova
        with nova.session() as session:
            claimed = claim_deliveries(session, webhook_id, now=before, limit=IN_A_ROW)
            webhook = session.get(Webhook, webhook_id)
        if webhook is None:  # removed, and its deliveries with it
            return 0, None
        for place, told in enumerate(claimed):
            rest = [other.delivery for other in claimed[place:]]
            if self._stop.is_set():  # whoever comes next takes them at once
                with nova.session() as session:
                    put_back(session, rest, until=self._now())
                return place, None
            error = self._send(webhook, told)
            now = self._now()
            with nova.session() as session:
                settle_delivery(session, told.delivery, now=now, error=error, give_up=self._give_up)
                if error is not None:
                    put_back(session, rest[1:], until=now + retry_after(told.delivery.attempts + 1))
                    return place, f"{webhook.target}: {error}"
        return len(claimed), None

    def _send(self, webhook: Webhook, told: Told) -> str | None:
        try:
            secret = self._services.box().decrypt(webhook.secret)
            check_target(str(secret["url"]), private=self._private)
            config = WebhookConfig(
                str(secret["url"]),
                str(secret["key"]),
                seconds=SECONDS,
                connect=None if self._private else connect_public,
                setting=f"webhook {webhook.id}",
            )
            headers = {EVENT: event_name(told)}
            post(config, payload(told), moment=int(self._now().timestamp()), delivery=told.name, headers=headers)
        except NovaError as error:
            return str(error)
        return None


def event_name(told: Told) -> str:
    return "test" if told.execution is None else f"execution.{told.delivery.event}"


def payload(told: Told) -> dict[str, Any]:
    """What is posted: the same for each try. Nothing of the context: the API has it, for those who may see it."""
    row, execution = told.delivery, told.execution
    data: dict[str, Any] = {
        "id": told.name,
        "event": event_name(told),
        "occurred_at": row.created_at.isoformat(),
        "execution": None,
    }
    if execution is not None:
        data["execution"] = {
            "id": execution.id,
            "task_id": execution.task_id,
            "workflow_id": execution.workflow_id,
            "workflow_name": told.workflow,
            "client_slug": told.client,
            "status": row.event,
            "error": row.error,
            "number": row.number,
            "created_at": execution.created_at.isoformat(),
        }
    return data
