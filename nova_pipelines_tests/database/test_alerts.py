"""Alerts, on both databases: told once when they begin, seldom while they last, once when they are over."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from nova_pipelines.database.alerts import (
    HOLD,
    LEASE,
    STALE,
    Trouble,
    claim_notices,
    open_alerts,
    settle_notices,
    undelivered,
    update_alerts,
)
from nova_pipelines.database.mailbox_tables import Alert, AlertNotice
from nova_pipelines.database.types import utc_now

REMIND = timedelta(hours=6)
NOW = utc_now()
SILENT = Trouble("silent:1:INBOX", "silent", "idom", "the mailbox is silent", "look")


@pytest.fixture
def look(databases):
    """One evaluation: update, then tell everything that is due on each channel. Returns what was told."""

    def evaluate(*troubles, at=NOW, channels=("mail",), error=None):
        with databases.nova.session() as session:
            update_alerts(session, troubles, channels, now=at, remind=REMIND)
        told = []
        for channel in channels:
            with databases.nova.session() as session:
                claimed = claim_notices(session, channel, now=at)
            with databases.nova.session() as session:
                settle_notices(session, [notice for notice, _ in claimed], now=at, error=error)
            told += [(channel, notice.event, alert.key) for notice, alert in claimed]
        return told

    return evaluate


def test_an_alert_is_told_when_it_begins_and_when_it_is_over(look):
    assert look(SILENT) == [("mail", "begin", SILENT.key)]
    minute = timedelta(minutes=1)
    assert all(look(SILENT, at=NOW + n * minute) == [] for n in range(1, 60))
    assert look(at=NOW + timedelta(hours=1)) == []  # gone, but maybe for a moment
    assert look(at=NOW + timedelta(hours=1) + HOLD) == [("mail", "end", SILENT.key)]
    assert look(at=NOW + timedelta(hours=9)) == []
    assert look(SILENT, at=NOW + timedelta(hours=10)) == [("mail", "begin", SILENT.key)]


def test_what_comes_and_goes_is_one_alert(look, databases):
    look(SILENT)
    for minute in range(2, 60, 2):
        assert look(at=NOW + timedelta(minutes=minute - 1)) == []
        assert look(SILENT, at=NOW + timedelta(minutes=minute)) == []
    with databases.nova.read() as session:
        assert len(open_alerts(session)) == 1


def test_a_reminder_comes_seldom_and_names_what_is_so_now(look, databases):
    look(SILENT)
    worse = Trouble(SILENT.key, SILENT.kind, SILENT.client, "silent for six hours", "look")
    assert look(worse, at=NOW + REMIND - timedelta(minutes=1)) == []
    assert look(worse, at=NOW + REMIND) == [("mail", "reminder", SILENT.key)]
    assert look(worse, at=NOW + REMIND + timedelta(minutes=1)) == []
    assert look(worse, at=NOW + 2 * REMIND) == [("mail", "reminder", SILENT.key)]
    with databases.nova.read() as session:
        assert session.scalars(select(Alert)).one().message == "silent for six hours"
        assert session.scalars(select(AlertNotice.number).order_by(AlertNotice.id)).all() == [0, 0, 1]


def test_a_channel_that_fails_is_tried_again_and_seen(look, databases):
    assert look(SILENT, error="no route") == [("mail", "begin", SILENT.key)]
    with databases.nova.read() as session:
        assert [notice.error for notice in undelivered(session)] == ["no route"]
    assert look(SILENT, at=NOW + timedelta(seconds=29)) == []
    assert look(SILENT, at=NOW + timedelta(seconds=30), error="no route") == [("mail", "begin", SILENT.key)]
    assert look(SILENT, at=NOW + timedelta(seconds=89)) == []
    assert look(SILENT, at=NOW + timedelta(seconds=90)) == [("mail", "begin", SILENT.key)]
    with databases.nova.read() as session:
        assert undelivered(session) == []


def test_what_nobody_took_is_told_with_its_end_and_without_reminders_between(look):
    look(SILENT, error="down")
    for hour in range(1, 20):
        assert {event for _, event, _ in look(SILENT, at=NOW + timedelta(hours=hour), error="down")} == {"begin"}
    look(at=NOW + timedelta(hours=20), error="down")
    told = look(at=NOW + timedelta(hours=21))
    assert [event for _, event, _ in told] == ["begin", "end"]
    assert look(at=NOW + STALE + timedelta(hours=21)) == []


def test_a_notice_that_is_too_old_is_dropped(look, databases):
    look(SILENT, error="down")
    assert look(at=NOW + STALE + timedelta(minutes=1)) == []
    with databases.nova.read() as session:
        assert session.scalars(select(AlertNotice.status)).all() == ["dropped"]


def test_a_sender_that_died_is_followed_by_another_after_its_lease(databases):
    with databases.nova.session() as session:
        update_alerts(session, [SILENT], ["mail"], now=NOW, remind=REMIND)
    with databases.nova.session() as session:
        (lost,) = claim_notices(session, "mail", now=NOW)
    with databases.nova.session() as session:
        assert claim_notices(session, "mail", now=NOW + LEASE - timedelta(seconds=1)) == []
        (again,) = claim_notices(session, "mail", now=NOW + LEASE)
    with databases.nova.session() as session:  # the first one was only slow: its word does not count any more
        settle_notices(session, [lost[0]], now=NOW, error="late")
        assert session.get_one(AlertNotice, again[0].id).error is None
        settle_notices(session, [again[0]], now=NOW, error=None)
        assert session.get_one(AlertNotice, again[0].id).status == "sent"


def test_a_channel_that_is_set_later_hears_of_what_is_open(look):
    assert look(SILENT, channels=()) == []
    assert look(SILENT, channels=("webhook",), at=NOW + timedelta(minutes=1)) == [("webhook", "begin", SILENT.key)]
    both = look(SILENT, channels=("mail", "webhook"), at=NOW + timedelta(minutes=2))
    assert both == [("mail", "begin", SILENT.key)]


def test_many_at_once_tell_each_thing_once(databases):
    """Sensor, a second sensor and `nova mailbox alerts --send` by cron, all in the same moment."""
    troubles = [Trouble(f"silent:{n}:INBOX", "silent", "idom", "silent", "look") for n in range(5)]
    told: list[int] = []
    errors: list[BaseException] = []
    gate = threading.Barrier(4)

    def evaluate():
        try:
            gate.wait(20)
            with databases.nova.session() as session:
                update_alerts(session, troubles, ["mail"], now=NOW, remind=REMIND)
            with databases.nova.session() as session:
                told.extend(notice.id for notice, _ in claim_notices(session, "mail", now=NOW))
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=evaluate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(told) == len(set(told)) == 5
    with databases.nova.read() as session:
        assert len(open_alerts(session)) == 5
