"""An old inbox is worked up: what is shown is what is taken, each mail once, and it can be broken off anywhere."""

from __future__ import annotations

import imaplib
import sqlite3
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pytest

from nova_pipelines.adapters.imap import Mailbox
from nova_pipelines.domain.errors import ConfigurationError, NotFound, TransientError
from nova_pipelines.nodes import backfill
from nova_pipelines.nodes.backfill import Span, plan_backfill, run_backfill
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf

JANUARY = Span(1, "INBOX", date(2026, 1, 1), date(2026, 1, 31))


def deliver_old(world: World, day: date, *attachments: bytes, folder: str = "INBOX", **fields: str) -> int:
    """A mail that came on that day and was read by somebody."""
    at = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
    with world.user.session(None) as client:
        raw = world.mail(*attachments, **fields).as_bytes()
        status, _ = client.append(folder, "(\\Seen)", imaplib.Time2Internaldate(at), raw)
        assert status == "OK"
        return int(client.response("APPENDUID")[1][-1].split()[-1])


@pytest.fixture
def inbox(world: World) -> World:
    """Five old mails that are read: two of January, one of each month's edge and one of March."""
    for number, day in enumerate(
        [date(2025, 12, 31), date(2026, 1, 1), date(2026, 1, 31), date(2026, 2, 1), date(2026, 3, 5)]
    ):
        deliver_old(world, day, invoice_pdf("242.00", number=f"F-{number}"), subject=f"mail {number}")
    scan_mailbox(world.services, 1, "INBOX")
    assert world.messages() == []  # what is read and was there before the first search is left alone
    return world


def subjects(world: World) -> list[str | None]:
    return [message.subject for message in world.messages()]


def rows(world: World) -> dict[str, int]:
    with closing(sqlite3.connect(world.settings.nova_home / "nova.db")) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: database.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for name in tables}  # noqa: S608


def test_a_plan_shows_what_would_be_taken_and_changes_nothing(inbox: World):
    before, flags = rows(inbox), inbox.user.flags()
    plan = plan_backfill(inbox.services, JANUARY)
    assert (plan.found, plan.known, plan.take, plan.too_big) == (2, 0, 2, 0)
    assert plan.oldest is not None
    assert plan.newest is not None
    assert (plan.oldest.date(), plan.newest.date()) == (date(2026, 1, 1), date(2026, 1, 31))
    assert plan.bytes > 2 * 1000
    assert plan_backfill(inbox.services, Span(1, "INBOX", date(2026, 1, 1))).take == 4
    assert plan_backfill(inbox.services, Span(1, "INBOX", date(2026, 1, 1)), limit=3).take == 3
    assert (rows(inbox), inbox.user.flags()) == (before, flags)


def test_each_mail_is_taken_once_and_worked_on_like_any_other(inbox: World):
    compiled = inbox.publish(INVOICE_PROCESSING)
    done = run_backfill(inbox.services, JANUARY, by="ana")
    assert (done.report.stored, done.known, done.left) == (2, 0, 0)
    assert subjects(inbox) == ["mail 1", "mail 2"]
    again = run_backfill(inbox.services, JANUARY)
    assert (again.report.stored, again.known) == (0, 2)
    assert plan_backfill(inbox.services, JANUARY).known == 2
    assert inbox.run(compiled).success
    assert [row.invoice_number for row in inbox.invoices()] == ["F-1", "F-2"]
    assert inbox.messages()[0].received_at == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_limit_takes_the_oldest_and_the_next_call_goes_on(inbox: World):
    span = Span(1, "INBOX", date(2025, 1, 1))
    taken = []
    for _ in range(3):
        done = run_backfill(inbox.services, span, limit=2)
        taken.append((done.report.stored, done.left))
    assert taken == [(2, 3), (2, 1), (1, 0)]
    assert subjects(inbox) == [f"mail {n}" for n in range(5)]


def test_it_goes_on_where_it_was_broken_off(inbox: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backfill, "BATCH", 1)
    seen: list[tuple[int, int]] = []

    def cut(done: int, of: int) -> None:
        seen.append((done, of))
        if done == 2:
            raise TransientError("the line broke")

    span = Span(1, "INBOX", date(2025, 1, 1))
    with pytest.raises(TransientError):
        run_backfill(inbox.services, span, progress=cut)
    assert (seen, len(inbox.messages())) == ([(1, 5), (2, 5)], 2)
    assert run_backfill(inbox.services, span).report.stored == 3
    assert subjects(inbox) == [f"mail {n}" for n in range(5)]


def test_a_mail_that_was_seen_under_another_uidvalidity_is_no_second_one(world: World):
    world.user.create_folder("Old")
    mail = {"subject": "once", "Message_ID": "<once@x>"}
    deliver_old(world, date(2026, 1, 5), folder="Old", **mail)
    span = Span(1, "Old", date(2026, 1, 1))
    assert run_backfill(world.services, span).report.stored == 1
    with world.user.session(None) as client:
        assert client.delete("Old")[0] == client.create("Old")[0] == "OK"
    deliver_old(world, date(2026, 1, 5), folder="Old", **mail)
    deliver_old(world, date(2026, 1, 6), folder="Old", subject="new", Message_ID="<new@x>")
    plan = plan_backfill(world.services, span)
    assert (plan.take, plan.known, plan.seen_elsewhere) == (2, 0, 1)
    done = run_backfill(world.services, span)
    assert (done.report.stored, done.report.duplicates) == (1, 1)
    assert [(m.subject, m.status) for m in world.messages()] == [
        ("once", "stored"),
        ("once", "duplicate"),
        ("new", "stored"),
    ]


def test_a_mail_that_is_too_big_is_said_before_and_set_aside(inbox: World):
    inbox.services.max_mail_bytes = 500
    assert plan_backfill(inbox.services, JANUARY).too_big == 2
    done = run_backfill(inbox.services, JANUARY)
    assert (done.report.quarantined, done.report.stored) == (2, 0)


def test_the_search_by_day_is_exact_at_both_ends(inbox: World):
    with Mailbox(inbox.services.mailbox(1)) as mailbox:
        mailbox.select("INBOX")
        day = date(2026, 1, 31)
        assert len(mailbox.received_since(day, day + timedelta(days=1))) == 1
        assert mailbox.received_since(date(2030, 1, 1), None) == []


def test_wrong_days_and_folders_are_refused(world: World):
    with pytest.raises(ConfigurationError, match="lies before"):
        Span(1, "INBOX", date(2026, 2, 1), date(2026, 1, 1))
    with pytest.raises(NotFound, match="Facturs"):
        plan_backfill(world.services, Span(1, "Facturs", date(2026, 1, 1)))


def test_the_command(inbox: World):
    nova = Nova(inbox.settings.nova_home)
    arguments = ("mailbox", "backfill", "idom", "--since", "2026-01-01", "--until", "2026-01-31")
    shown = nova(*arguments, "--dry-run")
    assert "would be taken  2 (" in shown.out
    assert "2026-01-01 12:00:00" in shown.out
    assert "no live workflow reads 'INBOX' of idom" in shown.err
    assert inbox.messages() == []
    assert nova.json(*arguments, "--dry-run")["take"] == 2
    inbox.publish(INVOICE_PROCESSING)
    assert nova.json(*arguments, "--limit", "1") == {
        "stored": 1,
        "duplicates": 0,
        "quarantined": 0,
        "known": 0,
        "vanished": 0,
        "left": 1,
    }
    assert nova(*arguments).out.startswith("1 stored, 0 duplicates")
    (event, _) = nova.json("mailbox", "events")
    assert (event["kind"], event["client"], event["detail"]["since"]) == ("backfill", "idom", "2026-01-01")
    assert "no mailbox 'second'" in nova(*arguments, "--label", "second", code=3).err
    nova(*arguments[:3], "--since", "yesterday", code=2)
    assert "lies before" in nova(*arguments[:3], "--since", "2026-02-01", "--until", "2026-01-01", code=2).err
