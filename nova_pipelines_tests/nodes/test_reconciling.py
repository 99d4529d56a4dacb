"""No mail is left behind: whoever claimed one may die, a mail may fail again and again, a folder may be made anew.
Against a real Dovecot."""

from __future__ import annotations

import errno
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select

from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database import quarantine
from nova_pipelines.database.mail_events import MailboxEvent
from nova_pipelines.database.nova import Credential, Execution, Message, Workflow
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict, NotFound, NovaError, TransientError
from nova_pipelines.nodes import assignment, intake
from nova_pipelines.nodes.assignment import make_executions
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.nodes.reconciling import MAX_ATTEMPTS, rest
from nova_pipelines.nodes.settling import settle_messages
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World


class Died(BaseException):
    """As if the process had been killed here."""


def scan(world: World):
    return scan_mailbox(world.services, 1, "INBOX")


def states(world: World) -> dict[str, str]:
    return {message.subject: message.status for message in world.messages()}


def pass_time(world: World, by: timedelta = timedelta(hours=1)) -> None:
    """As if everything in the ledger had happened that much earlier."""
    with world.services.databases.nova.session() as session:
        for message in session.scalars(select(Message)):
            message.created_at, message.updated_at = message.created_at - by, message.updated_at - by


def die_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def die(*_args, **_kwargs):
        raise Died

    monkeypatch.setattr(intake, name, die)


def test_a_claimed_mail_whose_worker_died_is_taken_up_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch):
    scan(world)
    world.deliver(subject="first")
    with monkeypatch.context() as patched:
        die_at(patched, "_store")
        with pytest.raises(Died):
            scan(world)
    assert states(world) == {"first": "seen"}
    world.deliver(subject="second")
    scan(world)  # the claim rests: somebody may have it in hand
    assert states(world) == {"first": "seen", "second": "stored"}
    pass_time(world, rest(1))
    scan(world)
    assert states(world) == {"first": "stored", "second": "stored"}
    assert [message.attempts for message in world.messages()] == [2, 1]


def test_an_old_mail_that_was_claimed_and_then_read_by_somebody_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """Below the first scan's UIDNEXT only unread mails are candidates: the ledger remembers this one."""
    uid = world.deliver(subject="old")
    with monkeypatch.context() as patched:
        die_at(patched, "_store")
        with pytest.raises(Died):
            scan(world)
    world.user.flag(uid, "\\Seen")
    pass_time(world)
    scan(world)
    assert states(world) == {"old": "stored"}


def test_a_claimed_mail_that_was_removed_is_said_to_be_gone(world: World, monkeypatch: pytest.MonkeyPatch):
    uid = world.deliver(subject="spam")
    with monkeypatch.context() as patched:
        die_at(patched, "_store")
        with pytest.raises(Died):
            scan(world)
    world.user.remove(uid)
    pass_time(world)
    scan(world)
    assert states(world) == {"spam": "gone"}
    with world.services.databases.nova.read() as session:
        (event,) = session.scalars(select(MailboxEvent))
        assert (event.kind, event.detail["message"]) == ("mail_gone", 1)


def test_claims_of_a_folder_that_was_made_anew_are_settled(world: World, monkeypatch: pytest.MonkeyPatch):
    """One mail came in again under its new UID, the other was removed with the old folder."""
    world.user.create_folder("Facturas")
    kept = world.mail(subject="kept", Message_ID="<kept@x>")
    world.user.deliver_all([kept, world.mail(subject="lost", Message_ID="<lost@x>")], folder="Facturas")
    for _ in range(2):
        with monkeypatch.context() as patched:
            die_at(patched, "_store")
            with pytest.raises(Died):
                scan_mailbox(world.services, 1, "Facturas")
    with world.user.session(None) as client:
        assert client.delete("Facturas")[0] == client.create("Facturas")[0] == "OK"
    world.user.deliver(kept, folder="Facturas")
    pass_time(world)
    scan_mailbox(world.services, 1, "Facturas")
    assert [(m.subject, m.status, m.duplicate_of) for m in world.messages()] == [
        ("kept", "duplicate", 3),
        ("lost", "gone", None),
        ("kept", "stored", None),
    ]


# ---------------------------------------------------------------- a mail that fails


@pytest.fixture
def poison(world: World) -> Path:
    """The file of a mail that Dovecot itself cannot read, among others: `first`, `poison`, `last`."""
    scan(world)
    for subject in ("first", "poison", "last"):
        world.deliver(subject=subject)
    (path,) = [path for path in world.user.home.rglob("Maildir/*/*") if b"Subject: poison" in safe_bytes(path)]
    return path


def safe_bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def hide(path: Path) -> None:
    """Root could read it, but Dovecot runs as nobody; where the tests are nobody themselves, the mode is enough."""
    path.chmod(0)


def scan_or_fail(world: World) -> str | None:
    try:
        scan(world)
    except NovaError as error:
        return str(error)
    return None


def test_a_mail_that_the_server_cannot_read_blocks_none_after_it(world: World, poison: Path):
    hide(poison)
    errors = [scan_or_fail(world), scan_or_fail(world)]  # the second one asks for each alone
    assert scan_or_fail(world) is None
    assert states(world) == {"first": "stored", None: "seen", "last": "stored"}  # the others are through by then
    for _ in range(MAX_ATTEMPTS - 1):
        pass_time(world, rest(MAX_ATTEMPTS))
        errors.append(scan_or_fail(world))
    assert all(errors)
    assert states(world) == {"first": "stored", None: "quarantined", "last": "stored"}
    assert scan_or_fail(world) is None  # nothing is in the way any more
    aside = [message for message in world.messages() if message.status == "quarantined"]
    assert len(aside) == 1
    assert aside[0].attempts == MAX_ATTEMPTS
    assert "IMAP server" in (aside[0].error or "")

    (now_at,) = world.user.home.rglob(poison.name.partition(",")[0] + "*")  # Dovecot has moved it to `cur`
    now_at.chmod(0o600)  # mended: a person releases it
    with world.services.databases.nova.session() as session:
        quarantine.release(session, aside[0].id, by="ana")
    scan(world)
    assert {message.status for message in world.messages()} == {"stored"}


def test_a_failing_mail_rests_longer_each_time_and_others_go_first(world: World, monkeypatch: pytest.MonkeyPatch):
    scan(world)
    bad = world.deliver(subject="bad")
    fetch = intake.Mailbox.fetch

    def fail(self, uid, write, **kwargs):
        if uid == bad:
            raise TransientError("IMAP server gave no content for it", remedy="look at the mail")
        return fetch(self, uid, write, **kwargs)

    monkeypatch.setattr(intake.Mailbox, "fetch", fail)
    tries = []
    for attempt in range(1, MAX_ATTEMPTS + 1):
        tries.append(scan_or_fail(world))
        assert world.messages()[0].attempts == attempt
        world.deliver(subject=f"good {attempt}")
        assert scan_or_fail(world) is None  # it rests, and the one after it is read
        pass_time(world, rest(attempt) - timedelta(seconds=2))
        assert scan_or_fail(world) is None
        pass_time(world, timedelta(seconds=2))
    assert all(tries)
    assert states(world) == {"bad": "quarantined"} | {f"good {n}": "stored" for n in range(1, MAX_ATTEMPTS + 1)}


def test_a_full_disk_here_sets_no_mail_aside(world: World, monkeypatch: pytest.MonkeyPatch):
    world.deliver(subject="innocent")

    def full(*_args, **_kwargs):
        error = TransientError("cannot write to the document store x: No space left on device", remedy="free some")
        raise error from OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        for name in ("put", "keep", "put_pieces"):
            patched.setattr(type(world.services.store), name, full)
        for _ in range(2 * MAX_ATTEMPTS):
            assert scan_or_fail(world)
            pass_time(world)
    assert [(message.status, message.attempts) for message in world.messages()] == [("seen", 0)]
    scan(world)
    assert states(world) == {"innocent": "stored"}


# ---------------------------------------------------------------- by hand


def test_a_person_settles_a_mail_or_has_it_read_again(world: World):
    world.services.max_mail_bytes = 100
    world.deliver(subject="big")
    scan(world)
    assert states(world) == {"big": "quarantined"}
    nova = world.services.databases.nova
    with nova.session() as session:
        quarantine.settle(session, 1, by="ana", note="entered by hand")
    with nova.session() as session, pytest.raises(Conflict, match="settled by ana"):
        quarantine.settle(session, 1, by="luis", note="me too")
    with nova.read() as session:
        assert quarantine.list_quarantined(session) == []
        ((message, slug),) = quarantine.list_quarantined(session, handled=True)
        assert (slug, message.handled_by, message.handled_note) == ("idom", "ana", "entered by hand")
    scan(world)
    assert states(world) == {"big": "quarantined"}
    world.services.max_mail_bytes = 1_000_000
    with nova.session() as session:
        quarantine.release(session, 1, by="luis")
    scan(world)
    assert states(world) == {"big": "stored"}
    with nova.read() as session:
        events = [(event.kind, event.detail["by"]) for event in session.scalars(select(MailboxEvent))]
        assert events == [("quarantine_settled", "ana"), ("quarantine_released", "luis")]
    with nova.session() as session, pytest.raises(Conflict, match="it is stored"):
        quarantine.release(session, 1, by="ana")
    with nova.session() as session, pytest.raises(NotFound):
        quarantine.release(session, 2**40, by="ana")


# ---------------------------------------------------------------- stored but no execution


def test_a_stored_mail_whose_scan_died_gets_its_execution_once(world: World):
    """Killed between the store and the executions: the next look makes them, and only one of two does."""
    compiled = world.publish(INVOICE_PROCESSING)
    world.deliver(subject="stored")
    scan(world)
    assert states(world) == {"stored": "stored"}
    made = [
        make_executions(
            world.services, workflow_id=compiled.workflow_id, version_id=compiled.version_id, folder="INBOX"
        )
        for _ in range(2)
    ]
    assert made == [[1], []]
    assert states(world) == {"stored": "assigned"}


def test_two_workflows_each_get_every_mail_though_neither_looks_at_old_ones_again(world: World, monkeypatch):
    monkeypatch.setattr(assignment, "ON_THEIR_WAY", 0)
    second = yaml.safe_load(INVOICE_PROCESSING.read_text()) | {"name": "Second"}
    both = [world.publish(INVOICE_PROCESSING), world.publish(second)]

    def look(compiled: Compiled) -> list[str | None]:
        ids = {"workflow_id": compiled.workflow_id, "version_id": compiled.version_id}
        made = make_executions(world.services, **ids, folder="INBOX", for_all=True)
        with world.services.databases.nova.read() as session:
            rows = [session.get_one(Execution, number) for number in made]
            return [session.get_one(Message, row.message_id).subject for row in rows]

    def marks() -> list[int]:
        with world.services.databases.nova.read() as session:
            return list(session.scalars(select(Workflow.mails_from).order_by(Workflow.id)))

    world.services.max_mail_bytes = 50_000
    world.deliver(b"%PDF-1.4" + bytes(100_000), subject="set aside")
    for subject in ("one", "two"):
        world.deliver(subject=subject)
    scan(world)
    assert [look(compiled) for compiled in both] == [["one", "two"]] * 2
    assert [look(compiled) for compiled in both] == [[]] * 2
    assert marks() == [1, 1]  # what was set aside may still be released
    world.services.max_mail_bytes = 1_000_000
    with world.services.databases.nova.session() as session:
        quarantine.release(session, 1, by="ana")
    scan(world)
    assert [look(compiled) for compiled in both] == [["set aside"]] * 2
    assert [look(compiled) for compiled in both] == [[]] * 2
    assert marks() == [3, 3]
    world.deliver(subject="three")
    scan(world)
    assert [look(compiled) for compiled in both] == [["three"]] * 2


# ---------------------------------------------------------------- done but not flagged


def done_mail(world: World, **fields: str) -> int:
    """A mail whose execution is completed, and which was not marked: the worker died between the two."""
    compiled = world.publish(INVOICE_PROCESSING)
    uid = world.deliver(**fields)
    scan(world)
    (number,) = make_executions(
        world.services, workflow_id=compiled.workflow_id, version_id=compiled.version_id, folder="INBOX"
    )
    with world.services.databases.nova.session() as session:
        execution = session.get_one(Execution, number)
        execution.status, execution.completed_at = "completed", utc_now()
    return uid


def test_done_but_not_flagged_is_made_good_with_its_copies(world: World):
    uid = done_mail(world, subject="again", Message_ID="<again@x>")
    copy = world.deliver(subject="again", Message_ID="<again@x>")
    scan(world)
    for _ in range(2):  # the mail first, then what is a copy of a flagged one
        settle_messages(world.services, workflow_id=1, then="mark_as_read")
    flags = world.user.flags()
    assert "\\Seen" in flags[uid]
    assert "\\Seen" in flags[copy]
    assert settle_messages(world.services, workflow_id=1, then="mark_as_read") == 0


def test_another_workflows_end_does_not_hold_for_copies_of_a_mail(world: World):
    """A workflow that marks nothing must not take the copies of another one's mails for marked."""
    done_mail(world, subject="again", Message_ID="<again@x>")
    copy = world.deliver(subject="again", Message_ID="<again@x>")
    scan(world)
    settle_messages(world.services, workflow_id=1, then="mark_as_read")
    assert settle_messages(world.services, workflow_id=99, then="nothing") == 0
    assert settle_messages(world.services, workflow_id=1, then="mark_as_read") == 1
    assert "\\Seen" in world.user.flags()[copy]


def test_a_mailbox_that_failed_just_now_is_not_logged_into_to_flag(world: World):
    uid = done_mail(world, subject="done")
    nova = world.services.databases.nova
    with closed_port() as port:
        with nova.session() as session:
            credential = session.get_one(Credential, 1)
            right = credential.settings
            credential.settings = {**right, "imap_port": port}
        assert scan_or_fail(world)
        # were it logged into, this would raise
        assert settle_messages(world.services, workflow_id=1, then="mark_as_read") == 0
    with nova.session() as session:
        session.get_one(Credential, 1).settings = right
    assert settle_messages(world.services, workflow_id=1, then="mark_as_read") == 1
    assert "\\Seen" in world.user.flags()[uid]


def test_an_unreadable_credential_is_recorded_as_the_mailboxs_health(world: World):
    with world.services.databases.nova.session() as session:
        session.get_one(Credential, 1).secret = b"not a token"
    error = scan_or_fail(world)
    assert error
    assert "key" in error
    with world.services.databases.nova.read() as session:
        assert session.get_one(Credential, 1).last_error == error
