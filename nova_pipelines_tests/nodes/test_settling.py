"""What is done on the server with a mail whose work is done: against a real Dovecot."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database.mail_events import MailboxEvent
from nova_pipelines.database.nova import Execution, MailFolder, Message
from nova_pipelines.domain.errors import NotFound, NovaError, PermanentError
from nova_pipelines.nodes.assignment import make_executions
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.nodes.settling import settle_messages
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World


@pytest.fixture
def compiled(world: World) -> Compiled:
    return world.publish(INVOICE_PROCESSING)


def worked(world: World, compiled: Compiled, *uids: int, folder: str = "INBOX", status: str = "completed") -> list[int]:
    """Brings the mails in and ends their executions. Returns the UIDs."""
    scan_mailbox(world.services, 1, folder)
    make_executions(
        world.services, workflow_id=compiled.workflow_id, version_id=compiled.version_id, folder=folder, limit=100
    )
    with world.services.databases.nova.session() as session:
        for execution in session.scalars(select(Execution)):
            execution.status = status
    return list(uids)


def settle(world: World, compiled: Compiled, then: str) -> int:
    return settle_messages(world.services, workflow_id=compiled.workflow_id, then=then)


def events(world: World) -> list[dict]:
    with world.services.databases.nova.read() as session:
        return [event.detail for event in session.scalars(select(MailboxEvent).filter_by(kind="flag_refused"))]


def mails(world: World, count: int, folder: str = "INBOX") -> list[int]:
    return world.user.deliver_all([world.mail(subject=f"Mail {number}") for number in range(count)], folder=folder)


@pytest.mark.parametrize(
    ("then", "flags"),
    [("mark_as_read", {r"\Seen"}), ("keyword:$NovaDone", {"$NovaDone"}), ("nothing", set())],
)
def test_what_is_done_is_marked_as_the_workflow_says(world: World, compiled: Compiled, then: str, flags: set[str]):
    uids = worked(world, compiled, *mails(world, 2))
    assert settle(world, compiled, then) == 2
    assert world.user.flags() == dict.fromkeys(uids, flags)
    assert settle(world, compiled, then) == 0


def test_what_is_done_is_moved_and_no_other_mail_goes(world: World, compiled: Compiled):
    """Trap 3: another mail program's mail that is flagged as deleted stays."""
    world.user.create_folder("Hechas")
    (uid,) = worked(world, compiled, *mails(world, 1))
    other = world.user.deliver(world.mail(subject="Otra"), flags=r"(\Deleted)")
    assert settle(world, compiled, "move:Hechas") == 1
    assert world.user.flags() == {other: {r"\Deleted"}}
    assert list(world.user.flags("Hechas").values()) == [{r"\Seen"}]
    assert uid not in world.user.flags()


@pytest.mark.parametrize("status", ["failed", "needs_review", "unknown", "running"])
def test_what_is_not_done_stays_as_it_is(world: World, compiled: Compiled, status: str):
    """n8n #2729: marked as read, but nothing ran."""
    (uid,) = worked(world, compiled, *mails(world, 1), status=status)
    assert settle(world, compiled, "mark_as_read") == 0
    assert world.user.flags() == {uid: set()}


@pytest.mark.parametrize("then", ["mark_as_read", "keyword:NovaDone", "move:Hechas"])
def test_a_mail_that_vanished_is_settled(world: World, compiled: Compiled, then: str):
    """Trap 9: STORE says OK for it."""
    world.user.create_folder("Hechas")
    gone, uid = worked(world, compiled, *mails(world, 2))
    world.user.remove(gone)
    assert settle(world, compiled, then) == 2
    assert world.user.flags() == ({} if then == "move:Hechas" else {uid: {r"\Seen" if then[0] == "m" else "NovaDone"}})
    assert len(world.user.flags("Hechas")) == (1 if then == "move:Hechas" else 0)


def refused(world: World, compiled: Compiled, then: str, kind: type[NovaError]) -> str:
    with pytest.raises(kind) as error:
        settle(world, compiled, then)
    return str(error.value)


def test_a_keyword_that_the_server_would_drop_is_said_once_and_tried_again(world: World, compiled: Compiled):
    """Trap 10: silence would look like success."""
    world.user.create_folder("Shared")
    (uid,) = worked(world, compiled, *mails(world, 1, "Shared"), folder="Shared")
    acl = world.user.home / "Maildir" / ".Shared" / "dovecot-acl"
    acl.write_text("owner lrs\n")
    for _ in range(3):
        text = refused(world, compiled, "keyword:NovaDone", PermanentError)
    assert "does not keep the keyword NovaDone in the folder 'Shared'" in text
    assert events(world) == [{"then": "keyword:NovaDone", "error": text}]
    assert world.messages()[0].error == text
    assert world.messages()[0].flagged_at is None
    acl.write_text("owner lrwstipekxa\n")
    assert settle(world, compiled, "keyword:NovaDone") == 1
    assert world.user.flags("Shared") == {uid: {"NovaDone"}}
    assert world.messages()[0].error is None


def test_a_folder_that_is_missing_is_said_and_the_mail_moved_when_it_is_there(world: World, compiled: Compiled):
    worked(world, compiled, *mails(world, 2))
    assert "'Hechas'" in refused(world, compiled, "move:Hechas", NotFound)
    assert len(world.user.flags()) == 2
    assert len(events(world)) == 1
    world.user.create_folder("Hechas")
    assert settle(world, compiled, "move:Hechas") == 2
    assert len(world.user.flags("Hechas")) == 2


def test_uids_of_a_folder_that_was_made_anew_are_other_mails(world: World, compiled: Compiled):
    (uid,) = worked(world, compiled, *mails(world, 1))
    with world.services.databases.nova.session() as session:
        for row in (*session.scalars(select(Message)), *session.scalars(select(MailFolder))):
            row.uidvalidity -= 1
    assert settle(world, compiled, "mark_as_read") == 1
    assert world.user.flags() == {uid: set()}


def test_a_mail_that_came_twice_is_marked_twice(world: World, compiled: Compiled):
    raw = world.mail(subject="Una").as_bytes()
    first, second = worked(world, compiled, *world.user.deliver_all([raw, b"X-Way: 2\r\n" + raw]))
    assert settle(world, compiled, "mark_as_read") == 1
    assert settle(world, compiled, "mark_as_read") == 1
    assert world.user.flags() == {first: {r"\Seen"}, second: {r"\Seen"}}
