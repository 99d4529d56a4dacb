"""Webhooks and what they have to tell: made, claimed, settled, given up. All processes share it; one sends each.

Deliveries come from triggers (`webhook_tables`). A claim that died with its process runs out, and then the same
delivery is sent again under the same name: receivers must expect that.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import Client, Execution, Webhook, WebhookDelivery, Workflow
from nova_pipelines.database.secrets import SecretBox, lock_credentials
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import NotFound, PermanentError

#: the statuses that are told; `test` is of `nova webhooks test`
EVENTS = ("completed", "failed", "needs_review", "unknown")
TEST = "test"
#: after this long a delivery that somebody was sending counts as not sent
LEASE = timedelta(minutes=3)
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=10), timedelta(hours=6)
_MAX_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Told:
    """One delivery with what it says of its execution."""

    delivery: WebhookDelivery
    execution: Execution | None
    workflow: str | None
    client: str | None

    @property
    def name(self) -> str:
        """The same for each try, and of no other delivery of this installation."""
        row = self.delivery
        return f"wh-{row.webhook_id}-{row.execution_id or TEST}-{row.number}"


def add_webhook(
    session: Session,
    box: SecretBox,
    *,
    url: str,
    target: str,
    key: str,
    client: Client | None,
    events: Collection[str] = EVENTS,
    by: str,
) -> Webhook:
    """Stores a webhook. `target`: what is shown of `url`. Raises PermanentError for unknown events."""
    unknown = sorted(set(events) - set(EVENTS))
    if unknown or not events:
        raise PermanentError(
            f"there are no such events: {', '.join(unknown)}" if unknown else "no event is named",
            remedy=f"choose from {', '.join(EVENTS)}",
        )
    lock_credentials(session)  # no key is dropped between the encrypting and the commit
    row = Webhook(
        client_id=client.id if client else None,
        target=target,
        secret=box.encrypt({"url": url, "key": key}),
        events=f",{','.join(event for event in EVENTS if event in events)},",
        created_by=by[:200],
    )
    session.add(row)
    session.flush()
    return row


def find_webhook(session: Session, number: int) -> Webhook:
    """One webhook by its number. Raises NotFound."""
    row = session.get(Webhook, number) if 0 < number <= _MAX_ID else None
    if row is None:
        raise NotFound(f"there is no webhook {number}", remedy="`nova webhooks list` shows them")
    return row


def list_webhooks(session: Session) -> list[tuple[Webhook, str | None]]:
    """All webhooks, each with the slug of its client (None: of all)."""
    query = select(Webhook, Client.slug).outerjoin(Client, Client.id == Webhook.client_id).order_by(Webhook.id)
    return [(row[0], row[1]) for row in session.execute(query)]


def count_deliveries(session: Session) -> dict[int, dict[str, int]]:
    """Webhook → status → deliveries."""
    query = select(WebhookDelivery.webhook_id, WebhookDelivery.status, func.count()).group_by(
        WebhookDelivery.webhook_id, WebhookDelivery.status
    )
    found: dict[int, dict[str, int]] = {}
    for number, status, count in session.execute(query):
        found.setdefault(number, {})[status] = count
    return found


def add_test(session: Session, webhook: Webhook) -> WebhookDelivery:
    """A delivery that tells of no execution."""
    query = select(func.count()).where(WebhookDelivery.webhook_id == webhook.id, WebhookDelivery.execution_id.is_(None))
    number = (session.scalar(query) or 0) + 1
    row = WebhookDelivery(webhook_id=webhook.id, number=number, event=TEST, next_attempt_at=utc_now())
    session.add(row)
    session.flush()
    return row


def due_webhooks(session: Session, *, now: datetime) -> list[int]:
    """The webhooks that have something to tell now."""
    query = (
        select(WebhookDelivery.webhook_id)
        .where(WebhookDelivery.status == "pending", WebhookDelivery.next_attempt_at <= now)
        .distinct()
    )
    return list(session.scalars(query))


def claim_deliveries(session: Session, webhook_id: int, *, now: datetime, limit: int) -> list[Told]:
    """Takes the oldest deliveries of a webhook whose time has come: nobody else gets them until LEASE is over or they
    are settled."""
    claim = str(uuid.uuid4())
    is_due = (
        (WebhookDelivery.webhook_id == webhook_id)
        & (WebhookDelivery.status == "pending")
        & (WebhookDelivery.next_attempt_at <= now)
    )
    oldest = select(WebhookDelivery.id).where(is_due).order_by(WebhookDelivery.id).limit(limit)
    # the condition again: of two that ask at the same time the second one waits and finds them taken
    session.execute(
        update(WebhookDelivery)
        .where(WebhookDelivery.id.in_(oldest.scalar_subquery()), is_due)
        .values(claim=claim, next_attempt_at=now + LEASE)
        .execution_options(synchronize_session=False)
    )
    query = (
        select(WebhookDelivery, Execution, Workflow.name, Client.slug)
        .outerjoin(Execution, Execution.id == WebhookDelivery.execution_id)
        .outerjoin(Workflow, Workflow.id == Execution.workflow_id)
        .outerjoin(Client, Client.id == Execution.client_id)
        .where(WebhookDelivery.claim == claim)
        .order_by(WebhookDelivery.id)
    )
    return [Told(*row) for row in session.execute(query)]


def settle_delivery(
    session: Session, claimed: WebhookDelivery, *, now: datetime, error: str | None, give_up: timedelta
) -> None:
    """Notes that a claimed delivery was taken, or (`error`) why not: it is tried again, until it is `give_up` old."""
    row = _mine(session, claimed)
    if row is None:
        return
    row.attempts += 1
    row.last_error, row.claim = error[:1_000] if error else None, None
    if error is None:
        row.status, row.sent_at = "sent", now
    elif now - row.created_at >= give_up or row.event == TEST:
        row.status = "failed"
    else:
        row.next_attempt_at = now + retry_after(row.attempts)


def put_back(session: Session, claimed: Sequence[WebhookDelivery], *, until: datetime) -> None:
    """Gives back what was not tried, as its receiver is away."""
    for delivery in claimed:
        row = _mine(session, delivery)
        if row is not None:
            row.claim, row.next_attempt_at = None, until


def _mine(session: Session, claimed: WebhookDelivery) -> WebhookDelivery | None:
    row = session.get(WebhookDelivery, claimed.id, with_for_update=True)
    # the claim ran out, and somebody else has it now
    return row if row is not None and row.claim == claimed.claim else None


def retry_after(attempts: int) -> timedelta:
    """Doubled each time, with a tenth of jitter: many that failed together do not come back together."""
    wait = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(attempts - 1, 20))
    return wait * random.uniform(1.0, 1.1)  # noqa: S311 - no secret


def release_failed(session: Session, webhook_id: int) -> int:
    """Has everything that was given up tried once more, from the beginning; returns how much."""
    query = select(WebhookDelivery).where(
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.status == "failed",
        WebhookDelivery.event != TEST,
    )
    rows = session.scalars(query.with_for_update()).all()
    for row in rows:
        row.status, row.attempts, row.next_attempt_at, row.created_at = "pending", 0, utc_now(), utc_now()
    return len(rows)


def troubled(session: Session) -> list[tuple[int, str, int, int, str | None]]:
    """Of each webhook whose calls fail: number, target, how many deliveries are tried again and how many were given
    up, and the last error."""
    bad = (WebhookDelivery.status == "failed") | (
        (WebhookDelivery.status == "pending") & WebhookDelivery.last_error.is_not(None)
    )
    query = (
        select(
            Webhook.id,
            Webhook.target,
            func.count().filter(WebhookDelivery.status == "pending"),
            func.count().filter(WebhookDelivery.status == "failed"),
            func.max(WebhookDelivery.last_error),
        )
        .join(WebhookDelivery, WebhookDelivery.webhook_id == Webhook.id)
        .where(bad, WebhookDelivery.event != TEST)
        .group_by(Webhook.id, Webhook.target)
        .order_by(Webhook.id)
    )
    return [(row[0], row[1], row[2], row[3], row[4]) for row in session.execute(query)]
