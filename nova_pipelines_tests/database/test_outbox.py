"""The outbox on both databases: waits that grow, a limit that holds, decisions that are kept."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from nova_pipelines.database.nova import Execution, OutboxMail
from nova_pipelines.database.outbox import Limit, asking, begin, find_mail, note_sent, put_off, resolve
from nova_pipelines.database.session import Databases, open_databases
from nova_pipelines.domain.errors import Conflict, NotFound
from nova_pipelines_tests.crash.rows import add_executions

HOUR = Limit(3, timedelta(hours=1), "hour")
only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])


def add_mails(databases: Databases, count: int, **values: Any) -> list[int]:
    """Mails of as many executions, which ended at their node as `execution_status` says."""
    status = values.pop("execution_status", "unknown")
    numbers, _ = add_executions(databases.nova, count)
    with databases.nova.session() as session:
        rows = []
        for number in numbers:
            execution = session.get_one(Execution, number)
            execution.status, execution.failed_node = status, None if status == "pending" else "tell"
            texts = {"sender": "a@x.es", "recipient": "b@x.es", "subject": "s", "body": "b"}
            row = OutboxMail(execution_id=number, node_id="tell", message_id=f"<{number}@nova>", **(texts | values))
            rows.append(row)
        session.add_all(rows)
        session.flush()
        return [row.id for row in rows]


def test_a_limit_holds_for_processes_that_ask_at_once(databases: Databases, database_urls: tuple[str, str]):
    ids = add_mails(databases, 8, recipient_key="b@x.es")
    barrier, states = threading.Barrier(8), []

    def ask(mail_id: int) -> None:
        with open_databases(*database_urls) as own:
            barrier.wait(20)
            with own.nova.session() as session:
                states.append(begin(session, mail_id, [HOUR]).state)

    threads = [threading.Thread(target=ask, args=(mail_id,)) for mail_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(states) == ["held"] * 5 + ["send"] * 3


@only_sqlite
def test_the_limit_forgets_and_counts_only_what_may_have_gone_out(databases: Databases):
    ids = add_mails(databases, 6, recipient_key="b@x.es")
    old, now = datetime.now(UTC) - timedelta(minutes=61), datetime.now(UTC)
    with databases.nova.session() as session:
        fates = [("sent", old), ("failed", now), ("sent", now), ("unknown", now), ("pending", now), ("pending", None)]
        for mail_id, (status, begun) in zip(ids, fates, strict=True):
            row = session.get_one(OutboxMail, mail_id)
            row.status, row.begun_at = status, begun
        assert begin(session, ids[4], [HOUR]).state == "send"
        held = begin(session, ids[5], [HOUR])
    assert (held.state, held.reason) == ("held", "b@x.es was answered 3 times within the last hour")


@only_sqlite
def test_the_time_between_tries_doubles_and_ends(databases: Databases):
    (mail_id,) = add_mails(databases, 1)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    now, waits = start, []
    with databases.nova.session() as session:
        assert begin(session, mail_id).state == "send"
        session.get_one(OutboxMail, mail_id).tried_since = start
    while True:
        with databases.nova.session() as session:
            wait = put_off(session, mail_id, "451 later", first_wait=60, give_up=48 * 3600, now=now)
        if wait is None:
            break
        waits.append(wait)
        now += timedelta(seconds=wait)
    assert 54 <= waits[0] <= 66
    assert max(waits) <= 3_960
    assert 45 <= len(waits) <= 65
    assert abs(sum(waits) - 48 * 3600) < 1  # the last try is at the end of the time, not before it
    assert all(0.85 * sum(waits[:n]) <= waits[n] <= 1.15 * sum(waits[:n]) for n in range(2, 6))
    with databases.nova.read() as session:
        row = session.get_one(OutboxMail, mail_id)
        assert (row.status, row.error, row.next_try_at) == ("failed", "451 later", None)


@pytest.mark.parametrize("before", ["unknown", "sending", "held", "failed", "pending"])
@pytest.mark.parametrize(("decision", "after"), [("sent", "sent"), ("resend", "pending"), ("drop", "dropped")])
@only_sqlite
def test_a_decision_is_kept_and_the_execution_goes_on(databases: Databases, before: str, decision: Any, after: str):
    status = {"held": "needs_review", "failed": "failed", "pending": "pending"}.get(before, "unknown")
    (mail_id,) = add_mails(databases, 1, status=before, execution_status=status)
    with databases.nova.session() as session:
        session.get_one(Execution, 1).waits_until = datetime.now(UTC) + timedelta(hours=1)
        done = resolve(session, mail_id, decision, by="eva", note="  looked into the sent mails ")
    assert (done.status, done.goes_on) == (after, True)
    with databases.nova.read() as session:
        found = find_mail(session, mail_id)
        (kept,) = found.mail.decisions
        assert (kept.decision, kept.status_before, kept.decided_by) == (decision, before, "eva")
        assert kept.note == "looked into the sent mails"
        assert kept.decided_at is not None
        assert found.execution.status == "pending"
        assert status != "pending" or found.execution.waits_until is None
    if decision == "resend":
        with databases.nova.session() as session:
            assert begin(session, mail_id).state == "send"
    else:
        with databases.nova.session() as session:
            assert begin(session, mail_id).state == after
            with pytest.raises(Conflict, match=f"is {after} already"):
                resolve(session, mail_id, "resend", by="eva")


@only_sqlite
def test_what_is_at_work_and_what_failed_elsewhere_is_left(databases: Databases):
    running, elsewhere = add_mails(databases, 2, status="sending")
    with databases.nova.session() as session:
        session.get_one(Execution, 1).status = "running"
        session.get_one(Execution, 2).failed_node = "other"
    with databases.nova.session() as session, pytest.raises(Conflict, match="just now"):
        resolve(session, running, "drop", by="eva")
    with databases.nova.session() as session:
        done = resolve(session, elsewhere, "sent", by="eva")
        assert (done.goes_on, "not because of this mail" in done.reason) == (False, True)
        assert session.get_one(Execution, 2).status == "unknown"
    with databases.nova.read() as session, pytest.raises(NotFound):
        find_mail(session, 2**31)


@only_sqlite
def test_what_a_person_should_look_at(databases: Databases):
    ids = add_mails(databases, 6)
    now = datetime.now(UTC)
    with databases.nova.session() as session:
        rows = [session.get_one(OutboxMail, mail_id) for mail_id in ids]
        states = ("unknown", "held", "sending", "pending", "pending", "sent")
        for row, status in zip(rows, states, strict=True):
            row.status, row.tried_since = status, now
        rows[3].tried_since = now - timedelta(hours=3)
        assert asking(session) == {"unknown": [ids[0], ids[2]], "held": [ids[1]], "stuck": [ids[3]]}
        session.get_one(Execution, 3).status = "running"
        note_sent(session, ids[0])
        assert asking(session)["unknown"] == []
