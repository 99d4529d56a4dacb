"""The log of what happened to mailboxes."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import select

from nova_pipelines.database.mail_events import MailboxEvent, record_event
from nova_pipelines_tests.fixtures.world import World

REFUSED = {"reason": "no keywords"}


def test_an_event_is_repeated_only_when_it_says_something_new_or_time_has_passed(world: World):
    hour = timedelta(hours=1)

    def record(folder: str | None = "INBOX", within: timedelta | None = hour, **detail: str) -> bool:
        with world.services.databases.nova.session() as session:
            return record_event(session, 1, "flag_refused", folder=folder, detail=detail, not_again_within=within)

    assert record(**REFUSED)
    assert not record(**REFUSED)
    assert record(reason="no rights")
    assert not record(**REFUSED)
    assert record(None, **REFUSED)
    assert not record(None, **REFUSED)
    assert record(within=None, **REFUSED)
    assert record(within=timedelta(0), **REFUSED)
    with world.services.databases.nova.read() as session:
        rows = session.scalars(select(MailboxEvent).order_by(MailboxEvent.id)).all()
        assert [row.folder for row in rows] == ["INBOX", "INBOX", None, "INBOX", "INBOX"]
        assert rows[0].detail == REFUSED
        assert rows[0].at.tzinfo is not None
