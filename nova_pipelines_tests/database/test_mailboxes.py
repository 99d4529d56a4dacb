"""The health of mailboxes, on both databases: when they may be tried again, and what is seen of them."""

from __future__ import annotations

import imaplib
import ssl
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from nova_pipelines.database.mail_places import Place, places
from nova_pipelines.database.mailbox_tables import MailboxState
from nova_pipelines.database.mailbox_views import view_mailboxes
from nova_pipelines.database.mailboxes import (
    BACK_OFF,
    JITTER,
    back_off,
    due,
    due_at,
    error_kind,
    record_failure,
    record_success,
)
from nova_pipelines.database.nova import Credential, Workflow
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.workflows import publish
from nova_pipelines.domain.errors import (
    ConfigurationError,
    CredentialError,
    NotFound,
    NovaError,
    PermanentError,
    TransientError,
)
from nova_pipelines_tests.orchestration.rows import add_execution, add_message, add_workflow

REFUSED = CredentialError("the login was refused")
BROKEN = TransientError("the line broke")
BROKEN.__cause__ = ConnectionResetError()


@pytest.fixture
def ids(databases):
    return add_workflow(databases)


def fail(databases, ids, error, *, folder="INBOX", now=None):
    with databases.nova.session() as session:
        return record_failure(session, ids[1], folder, error, now=now)


def succeed(databases, ids, *, folder="INBOX", now=None, waiting=0):
    with databases.nova.session() as session:
        record_success(session, ids[1], folder, now=now, waiting=waiting)


def is_due(databases, ids, *, folder="INBOX", now=None):
    with databases.nova.read() as session:
        return due(session, ids[1], folder, now=now)


def test_a_refused_password_is_tried_in_minutes_and_at_most_once_an_hour(databases, ids):
    now, waits = utc_now(), []
    for _ in range(8):
        again = fail(databases, ids, REFUSED, now=now)
        assert not is_due(databases, ids, now=again - timedelta(seconds=1))
        assert is_due(databases, ids, now=again)
        waits.append((again - now).total_seconds())
        now = again
    for wait, expected in zip(waits, (120, 240, 480, 960, 1920, 3600, 3600, 3600), strict=True):
        assert expected <= wait <= min(3600, expected * (1 + JITTER))


def test_a_network_is_tried_again_within_a_minute(databases, ids):
    now = utc_now()
    first = fail(databases, ids, BROKEN, now=now)
    assert timedelta(seconds=5) <= first - now <= timedelta(seconds=6)
    for _ in range(10):
        again = fail(databases, ids, BROKEN, now=now)
    assert again - now <= timedelta(minutes=1)


def test_a_changed_credential_is_tried_at_once(databases, ids):
    fail(databases, ids, REFUSED)
    assert not is_due(databases, ids)
    with databases.nova.session() as session:
        session.get_one(Credential, ids[1]).secret = b"another"
    assert is_due(databases, ids)
    fail(databases, ids, REFUSED)  # the new one is wrong as well
    assert not is_due(databases, ids)


def test_recording_health_does_not_look_like_a_changed_credential(databases, ids):
    with databases.nova.read() as session:
        before = session.get_one(Credential, ids[1]).updated_at
    now = utc_now() - timedelta(minutes=1)
    succeed(databases, ids, now=now)
    fail(databases, ids, REFUSED)
    with databases.nova.read() as session:
        credential = session.get_one(Credential, ids[1])
    assert (credential.updated_at, credential.last_success_at) == (before, now)
    assert credential.last_error == str(REFUSED)
    succeed(databases, ids)
    with databases.nova.read() as session:
        assert session.get_one(Credential, ids[1]).last_error is None


def test_a_refused_password_holds_for_every_folder_and_a_missing_folder_for_itself(databases, ids):
    fail(databases, ids, NotFound("no such folder"), folder="Facturas")
    assert is_due(databases, ids)
    assert not is_due(databases, ids, folder="Facturas")
    fail(databases, ids, REFUSED)
    assert not is_due(databases, ids, folder="Another")
    succeed(databases, ids, folder="Another")  # the login works again
    assert is_due(databases, ids)
    assert not is_due(databases, ids, folder="Facturas")


def test_a_success_ends_the_failures_and_another_kind_begins_anew(databases, ids):
    now = utc_now()
    for _ in range(4):
        fail(databases, ids, REFUSED, now=now)
    assert fail(databases, ids, BROKEN, now=now) - now <= timedelta(seconds=6)
    with databases.nova.read() as session:
        state = session.scalars(select(MailboxState)).one()
    assert (state.failures, state.error_kind, state.failing_since) == (1, "network", now)
    succeed(databases, ids, now=now, waiting=7)
    with databases.nova.read() as session:
        state = session.scalars(select(MailboxState)).one()
        assert due_at(session, ids[1], "INBOX") is None
    assert (state.failures, state.error, state.failing_since, state.waiting) == (0, None, None, 7)


def test_two_may_record_the_first_look_at_once(databases, ids):
    errors: list[BaseException] = []

    def record():
        try:
            for _ in range(5):
                succeed(databases, ids)
                fail(databases, ids, BROKEN)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with databases.nova.read() as session:
        assert len(session.scalars(select(MailboxState)).all()) == 1


def caused(error: NovaError, cause: BaseException) -> NovaError:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (CredentialError("refused"), "credential"),
        (NotFound("no folder"), "folder"),
        (caused(ConfigurationError("certificate"), ssl.SSLCertVerificationError()), "certificate"),
        (caused(ConfigurationError("ca_file cannot be used"), FileNotFoundError()), "certificate"),
        (ConfigurationError("offers no STARTTLS"), "server"),
        (caused(TransientError("refused the connection"), ConnectionRefusedError()), "network"),
        (caused(TransientError("broke"), imaplib.IMAP4.abort()), "network"),
        (TransientError("too many connections"), "server"),
        (PermanentError("refused to search"), "server"),
        (caused(TransientError("locked"), OperationalError("", None, Exception())), "nova"),
        (caused(TransientError("cannot write to the document store x"), OSError(28, "full")), "nova"),
    ],
)
def test_an_error_says_whose_matter_it_is(error, kind):
    assert error_kind(error) == kind
    assert back_off(kind, 1) >= timedelta(seconds=BACK_OFF[kind][0])


def test_a_view_counts_what_waits_and_what_was_set_aside(databases, ids):
    now = utc_now()
    add_message(databases, ids, status="seen", age=timedelta(minutes=50))
    add_message(databases, ids, status="stored")
    at_work, done = (add_message(databases, ids, status="assigned", age=timedelta(minutes=9)) for _ in range(2))
    for ordinal, status in enumerate(("running", "pending")):
        add_execution(databases, ids, message_id=at_work, document_ordinal=ordinal, status=status)
    add_execution(databases, ids, message_id=done, completed_at=now)
    add_message(databases, ids, status="quarantined")
    add_message(databases, ids, status="quarantined", handled_at=now, handled_by="ana")
    add_message(databases, ids, status="quarantined", folder="Other")
    succeed(databases, ids, waiting=3, now=now)
    place = Place("idom", "default", ids[1], "INBOX", now - timedelta(days=1))
    with databases.nova.read() as session:
        (view,) = view_mailboxes(session, [place])
    assert (view.on_server, view.seen, view.stored, view.in_work) == (3, 1, 1, 1)
    assert (view.backlog, view.quarantined) == (6, 1)
    assert timedelta(minutes=49) < view.waits_for(now) < timedelta(minutes=51)
    assert view.lag_seconds == pytest.approx(540, abs=60)
    assert view.silent_for(now + timedelta(minutes=4)) == timedelta(minutes=4)


def test_a_mailbox_that_was_never_searched_is_silent_since_it_is_to_be_read(databases, ids):
    now = utc_now()
    place = Place("idom", "default", ids[1], "INBOX", now - timedelta(minutes=20))
    with databases.nova.read() as session:
        (view,) = view_mailboxes(session, [place])
    assert view.silent_for(now) == timedelta(minutes=20)


def test_places_are_those_that_live_workflows_read(databases, ids):
    with databases.nova.session() as session:
        session.get_one(Credential, ids[1]).settings = {"imap_host": "imap.example"}
        session.add(Credential(client_id=ids[0], kind="email", label="only smtp", is_primary=False, secret=b"x"))
        assert places(session) == []
    assert_places(databases, ids, {"mailbox": {"clients": ["acme"]}}, [])
    assert_places(databases, ids, {"mailbox": {"folder": "Facturas"}}, [("idom", "Facturas")])
    assert_places(databases, ids, {"schedule": "0 8 * * *"}, [])


def assert_places(databases, ids, trigger, expected):

    with databases.nova.session() as session:
        workflow = session.get_one(Workflow, ids[2])
        publish(
            session,
            name=workflow.name,
            job_name=workflow.job_name,
            description=None,
            definition={"name": workflow.name, "trigger": trigger},
            source=str(trigger),
            source_format="json",
        )
    with databases.nova.read() as session:
        assert [(place.client, place.folder) for place in places(session)] == expected
