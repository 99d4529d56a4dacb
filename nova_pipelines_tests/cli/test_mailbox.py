"""`nova mailbox …`, as a person and as cron use it: what it prints, and its exit codes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from nova_pipelines.database.mailbox_tables import MailboxState
from nova_pipelines.database.mailboxes import record_failure, record_success
from nova_pipelines.database.nova import Credential
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import CredentialError, TransientError
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.fixtures.webhooks import HookServer
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World
from nova_pipelines_tests.orchestration.rows import add_message


@pytest.fixture
def installed(world: World) -> World:
    world.publish(INVOICE_PROCESSING)
    return world


@pytest.fixture
def command(installed: World) -> Nova:
    return Nova(installed.settings.nova_home)


def fail(world: World, error: TransientError | CredentialError) -> None:
    with world.services.databases.nova.session() as session:
        record_failure(session, 1, "INBOX", error)


def be_silent(world: World, by: timedelta) -> None:
    """As if the last search, and everything before it, had been that much earlier."""
    with world.services.databases.nova.session() as session:
        record_success(session, 1, "INBOX", now=utc_now() - by)
        session.get_one(Credential, 1).created_at -= by


def test_a_mailbox_that_is_well(installed: World, command: Nova):
    scan_mailbox(installed.services, 1, "INBOX")
    installed.deliver(subject="new")
    scan_mailbox(installed.services, 1, "INBOX")
    shown = command("mailbox", "status")
    assert "idom" in shown.out
    assert " ok " in shown.out
    (row,) = command.json("mailbox", "status")["mailboxes"]
    assert (row["client"], row["folder"], row["backlog"], row["stored"]) == ("idom", "INBOX", 1, 1)
    assert (row["silent"], row["refused"], row["error"]) == (False, False, None)
    assert datetime.fromisoformat(row["last_success_at"]) <= datetime.now(UTC)


def test_refused_credentials_end_with_1(installed: World, command: Nova):
    fail(installed, CredentialError("IMAP server refused the login of idom", remedy="check user and password"))
    assert "refused" in command("mailbox", "status", code=1).out
    shown = command.json("mailbox", "status", code=1)
    assert shown["healthy"] is False
    assert shown["mailboxes"][0]["error_kind"] == "credential"
    assert datetime.fromisoformat(shown["mailboxes"][0]["next_attempt_at"]) > datetime.now(UTC)


def test_a_silent_mailbox_ends_with_1_and_a_failing_one_does_not_yet(
    installed: World, command: Nova, monkeypatch: pytest.MonkeyPatch
):
    fail(installed, TransientError("the line broke"))
    assert "failing" in command("mailbox", "status").out
    be_silent(installed, timedelta(minutes=20))
    workflows_are_old(monkeypatch)
    assert "silent" in command("mailbox", "status", code=1).out
    monkeypatch.setenv("NOVA_ALERT_SILENT_MINUTES", "30")
    assert " ok " in command("mailbox", "status").out


def workflows_are_old(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions never change, not even in a test: what is older is the moment from which a mailbox is missed."""
    from nova_pipelines.database import mail_places

    read = mail_places.readers
    monkeypatch.setattr(
        mail_places,
        "readers",
        lambda session: [mail_places.Reader(r.folder, r.clients, r.since - timedelta(days=1)) for r in read(session)],
    )


def test_without_a_reading_workflow_there_is_nothing_to_be_missed(world: World):
    command = Nova(world.settings.nova_home)
    assert "no workflow reads a mailbox" in command("mailbox", "status").out
    assert command.json("mailbox", "status") == {"healthy": True, "mailboxes": []}
    assert command.json("mailbox", "list")[0]["folders"] == []


def test_the_list_names_server_and_folders(installed: World, command: Nova):
    (row,) = command.json("mailbox", "list")
    assert row["server"] == f"127.0.0.1:{installed.user.tls_port}"
    assert (row["client"], row["user"], row["folders"]) == ("idom", installed.user.name, ["INBOX"])
    assert installed.user.name in command("mailbox", "list").out


def test_quarantine_is_listed_shown_released_and_settled(installed: World, command: Nova):
    assert "no mail is set aside" in command("mailbox", "quarantine", "list").out
    hostile = "\x1b[31mrm -rf\u202e"
    for number in range(2):
        add_message(
            installed.services.databases,
            (1, 1),
            status="quarantined",
            error="a MIME bomb",
            subject=f"{hostile}{number}",
            sender="eve@evil.example",
            attempts=5,
        )
    listed = command("mailbox", "quarantine", "list")
    assert "a MIME bomb" in listed.out
    assert "\x1b" not in listed.out
    assert "\u202e" not in listed.out
    assert "eve@evil.example" in command("mailbox", "quarantine", "show", "1").out
    assert command.json("mailbox", "quarantine", "show", "2")["attempts"] == 5
    command("mailbox", "quarantine", "release", "1")
    assert [(m.status, m.attempts) for m in installed.messages()] == [("seen", 0), ("quarantined", 5)]
    settled = command.json("mailbox", "quarantine", "release", "2", "--handled", "--note", "entered", "--by", "ana")
    assert settled == {"id": 2, "status": "quarantined", "handled_by": "ana"}
    assert command.json("mailbox", "quarantine", "list") == []
    assert len(command.json("mailbox", "quarantine", "list", "--handled")) == 1
    kinds = [event["kind"] for event in command.json("mailbox", "events", "--client", "idom")]
    assert kinds == ["quarantine_settled", "quarantine_released"]
    assert "quarantine_settled" in command("mailbox", "events").out


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("quarantine", "release", "7"), 3, "there is no mail 7"),
        (("quarantine", "show", "99999999999"), 3, "there is no mail"),
        (("quarantine", "release", "1", "--handled"), 2, "needs a --note"),
        (("quarantine", "release", "1", "--note", "x"), 2, "belongs to --handled"),
        (("quarantine", "list", "--client", "idmo"), 3, "did you mean idom"),
        (("events", "--client", "idmo"), 3, "did you mean idom"),
        (("backfill", "idmo", "--since", "2026-01-01"), 3, "did you mean idom"),
    ],
)
def test_what_is_wrong_is_said(command: Nova, arguments: tuple[str, ...], code: int, said: str):
    refused = command("mailbox", *arguments, code=code)
    assert said in refused.err
    assert "→" in refused.err


def test_cron_may_send_alerts_beside_a_dead_daemon(
    installed: World, command: Nova, hooks: HookServer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("NOVA_ALERT_WEBHOOK_URL", hooks.url)
    assert "no alert is open" in command("mailbox", "alerts").out
    fail(installed, CredentialError("refused"))
    assert "no alert is open" in command("mailbox", "alerts").out  # only looks
    assert hooks.calls == []
    shown = command("mailbox", "alerts", "--send", code=1)
    assert "the mailbox of idom cannot be read: refused" in shown.out
    command("mailbox", "alerts", "--send", code=1)
    assert len(hooks.calls) == 1
    (alert,) = command.json("mailbox", "alerts", code=1)["alerts"]
    assert alert["kind"] == "credential"
    hooks.status = 500
    with installed.services.databases.nova.session() as session:
        session.delete(session.get_one(MailboxState, 1))
    add_message(installed.services.databases, (1, 1), status="quarantined", error="x")
    shown = command("mailbox", "alerts", "--send", "--json", code=1)
    assert "answered 500" in json.loads(shown.out)["undelivered"][0]
    assert "t0ken-of-the-url" not in shown.out + shown.err


def test_doctor_shows_the_mailboxes_trouble(installed: World, command: Nova):
    fail(installed, CredentialError("IMAP server refused the login", remedy="check user and password"))
    checks = {check["name"]: check for check in command.json("doctor", code=1)["checks"]}
    assert checks["mailbox idom (credential:1)"]["ok"] is False
    assert "nova client credentials set idom" in checks["mailbox idom (credential:1)"]["remedy"]
    assert "nobody is told" in checks["alerts"]["message"]
