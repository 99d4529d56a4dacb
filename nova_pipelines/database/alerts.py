"""Alerts: what is open, and what has to be told of it. All processes share it, so that each thing is told once.

An alert begins once, is recalled at most every so often, and is over when its trouble has stayed away for a while.
Every notice waits in its row until a channel took it; a claim that died with its process runs out.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.database.mailbox_tables import Alert, AlertNotice

#: so long must a trouble stay away until it counts as over: what comes and goes is one alert
HOLD = timedelta(minutes=5)
#: after this long a notice that somebody was sending counts as not sent
LEASE = timedelta(minutes=3)
FIRST_RETRY, LONGEST_RETRY = timedelta(seconds=30), timedelta(minutes=15)
#: a notice that nobody took for so long is not told any more
STALE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong now. `key` is the same as long as it is the same trouble; `remedy` says what to do about it."""

    key: str
    kind: str
    client: str
    message: str
    remedy: str


def update_alerts(
    session: Session, troubles: Iterable[Trouble], channels: Collection[str], *, now: datetime, remind: timedelta
) -> None:
    """Begins, recalls and ends alerts, and puts down for each channel what it has to tell."""
    seen = {trouble.key: trouble for trouble in troubles}
    is_open = {alert.key: alert for alert in _open(session)}
    for key, trouble in seen.items():
        if key not in is_open and (begun := _begin(session, trouble, now)) is not None:
            is_open[key] = begun
    for key, alert in is_open.items():
        if key in seen:
            alert.message, alert.remedy, alert.clear_since = seen[key].message, seen[key].remedy, None
            _notice(session, alert, channels, now, remind)
        elif alert.clear_since is None:
            alert.clear_since = now
        elif now - alert.clear_since >= HOLD:
            alert.ended_at = now
            _add(session, alert, "end", _told(session, alert) & set(channels), now)
    session.flush()


def _open(session: Session) -> Sequence[Alert]:
    # locked: of two that look at the same time, the second one sees what the first one noted
    return session.scalars(select(Alert).where(Alert.ended_at.is_(None)).order_by(Alert.id).with_for_update()).all()


def _begin(session: Session, trouble: Trouble, now: datetime) -> Alert | None:
    alert = Alert(
        key=trouble.key,
        kind=trouble.kind,
        client=trouble.client,
        message=trouble.message,
        remedy=trouble.remedy,
        began_at=now,
        noticed_at=now,
    )
    try:
        with session.begin_nested():
            session.add(alert)
    except IntegrityError:  # another process saw it at the same moment, and tells it
        return None
    return alert


def _told(session: Session, alert: Alert) -> set[str]:
    """The channels that have something of this alert, told or to be told."""
    return set(session.scalars(select(AlertNotice.channel).where(AlertNotice.alert_id == alert.id)))


def _notice(session: Session, alert: Alert, channels: Collection[str], now: datetime, remind: timedelta) -> None:
    told = _told(session, alert)
    _add(session, alert, "begin", set(channels) - told, now)  # of a channel that was set only now, too
    waiting = select(AlertNotice.channel).where(AlertNotice.alert_id == alert.id, AlertNotice.status == "pending")
    if now - alert.noticed_at >= remind:
        alert.noticed_at = now
        # where an earlier one still waits to be told, another one would tell nothing more
        _add(session, alert, "reminder", (told & set(channels)) - set(session.scalars(waiting)), now)


def _add(session: Session, alert: Alert, event: str, channels: Iterable[str], now: datetime) -> None:
    for channel in sorted(channels):
        query = select(func.count()).where(
            AlertNotice.alert_id == alert.id, AlertNotice.event == event, AlertNotice.channel == channel
        )
        number = (session.scalar(query) or 0) if event == "reminder" else 0
        session.add(
            AlertNotice(
                alert_id=alert.id, event=event, number=number, channel=channel, next_attempt_at=now, created_at=now
            )
        )


def claim_notices(session: Session, channel: str, *, now: datetime) -> list[tuple[AlertNotice, Alert]]:
    """Takes all notices of a channel whose time has come, the oldest first: nobody else gets them until LEASE is
    over or they are settled by `settle_notices`."""
    claim = str(uuid.uuid4())
    waits = (AlertNotice.channel == channel) & (AlertNotice.status == "pending")
    session.execute(update(AlertNotice).where(waits, AlertNotice.created_at < now - STALE).values(status="dropped"))
    session.execute(
        update(AlertNotice)
        .where(waits, AlertNotice.next_attempt_at <= now)
        .values(claim=claim, next_attempt_at=now + LEASE, attempts=AlertNotice.attempts + 1)
    )
    query = (
        select(AlertNotice, Alert)
        .join(Alert, Alert.id == AlertNotice.alert_id)
        .where(AlertNotice.claim == claim)
        .order_by(AlertNotice.id)
    )
    return [(notice, alert) for notice, alert in session.execute(query)]


def settle_notices(session: Session, notices: Sequence[AlertNotice], *, now: datetime, error: str | None) -> None:
    """Notes that claimed notices were told, or (`error`) why not: they are tried again later."""
    for notice in notices:
        row = session.get(AlertNotice, notice.id, with_for_update=True)
        if row is None or row.claim != notice.claim:
            continue  # the claim ran out, and somebody else has it now
        row.error, row.claim = error, None
        if error is None:
            row.status, row.sent_at = "sent", now
        else:
            row.next_attempt_at = now + min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(row.attempts - 1, 10))


def open_alerts(session: Session) -> list[Alert]:
    return list(session.scalars(select(Alert).where(Alert.ended_at.is_(None)).order_by(Alert.id)))


def undelivered(session: Session) -> list[AlertNotice]:
    """Notices that a channel refused at least once and that are still to be told."""
    query = select(AlertNotice).where(AlertNotice.status == "pending", AlertNotice.error.is_not(None))
    return list(session.scalars(query.order_by(AlertNotice.id)))
