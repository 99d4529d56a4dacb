"""Alerts as people get them: a mail through a real SMTP server and a call of a real HTTP receiver."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from nova_pipelines.compiler.health import run_checks, service_checks
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.database.mailbox_tables import MailboxState
from nova_pipelines.database.mailboxes import record_failure, record_success
from nova_pipelines.database.nova import Client, Credential
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, TransientError
from nova_pipelines.nodes.alert_channels import smtp_account
from nova_pipelines.nodes.alerts import evaluate_alerts
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.webhooks import HookServer
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World
from nova_pipelines_tests.orchestration.rows import add_message

#: far ahead, so that nothing in the databases is younger
NOW = datetime(2040, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def settings(world: World, smtp_sink: SmtpSink, hooks: HookServer, monkeypatch: pytest.MonkeyPatch):
    world.publish(INVOICE_PROCESSING)
    monkeypatch.setenv("NOVA_ALERT_MAIL_TO", "ana@consult.example, luis@consult.example")
    monkeypatch.setenv(
        "NOVA_ALERT_SMTP_URL", f"smtp://{smtp_sink.host}:{smtp_sink.port}?tls=none&from=nova@consult.example"
    )
    monkeypatch.setenv("NOVA_ALERT_WEBHOOK_URL", hooks.url)
    monkeypatch.setenv("NOVA_ALERT_WEBHOOK_SECRET", "s3cret-of-the-hook")
    return load_settings()


def succeed(world: World, *, at=NOW, credential_id=1):
    with world.services.databases.nova.session() as session:
        record_success(session, credential_id, "INBOX", now=at)


def fail(world: World, error, *, at=NOW, credential_id=1):
    with world.services.databases.nova.session() as session:
        record_failure(session, credential_id, "INBOX", error, now=at)


def look(world: World, settings, minutes: float = 0):
    return evaluate_alerts(world.services, settings, now=NOW + minutes * MINUTE)


def test_a_silent_mailbox_is_told_once_on_both_ways_and_its_end_too(world, settings, smtp_sink, hooks):
    succeed(world)
    assert look(world, settings, 15).troubles == []
    for minute in (16, 17, 18):
        look(world, settings, minute)
    (mail,) = smtp_sink.wait_for(1)
    assert mail.recipients == ["ana@consult.example", "luis@consult.example"]
    assert mail.sender == "nova@consult.example"
    assert mail.message["Subject"] == "NOVA: silent, idom"
    assert mail.message["Auto-Submitted"] == "auto-generated"
    text = mail.message.get_content()
    assert "the mailbox of idom was not searched for 16 minutes" in text
    assert "What to do: look at `nova mailbox status`" in text
    (posted,) = hooks.calls
    (alert,) = posted.json["alerts"]
    assert (alert["event"], alert["kind"], alert["client"]) == ("begin", "silent", "idom")
    succeed(world, at=NOW + 19 * MINUTE)
    for minute in (19, 22, 25, 26):
        look(world, settings, minute)
    over = smtp_sink.wait_for(2)[1].message
    assert over["Subject"] == "NOVA: over: silent, idom"
    assert "and was over at" in over.get_content()
    assert [call.json["alerts"][0]["event"] for call in hooks.calls] == ["begin", "end"]
    assert len(smtp_sink.messages) == 2


def test_refused_credentials_are_told_at_once_and_are_no_second_alert_for_silence(world, settings, smtp_sink):
    fail(world, CredentialError("IMAP server refused the login of idom", remedy="check user and password"))
    look(world, settings)
    (mail,) = smtp_sink.wait_for(1)
    assert "refused the login" in mail.message.get_content()
    assert "nova client credentials set idom" in mail.message.get_content()
    report = look(world, settings, 60)
    assert [trouble.kind for trouble in report.troubles] == ["credential"]
    assert len(smtp_sink.messages) == 1


def test_an_outage_of_many_mailboxes_is_one_message(world, settings, smtp_sink, hooks):
    with world.services.databases.nova.session() as session:
        first = session.get_one(Credential, 1)
        for number in range(30):
            client = add_client(session, name=f"c{number}", slug=f"c{number}")
            set_credential(
                session,
                world.services.box(),
                client,
                "email",
                settings=first.settings,
                secret={"password": "pw"},
            )
    look(world, settings, 20)
    look(world, settings, 21)
    (mail,) = smtp_sink.wait_for(1)
    assert mail.message["Subject"] == "NOVA: 31 alerts (silent, idom, …)"
    assert len(hooks.calls[0].json["alerts"]) == 31
    assert len(smtp_sink.messages) == len(hooks.calls) == 1


def test_quarantine_and_backlog_are_told(world, settings, smtp_sink):
    nova = world.services.databases
    hostile = "x\r\nBcc: eve@evil.example"
    add_message(nova, (1, 1), status="quarantined", error="a MIME bomb", sender=hostile)
    add_message(nova, (1, 1), status="stored", created_at=NOW - 61 * MINUTE)
    succeed(world)
    assert sorted(trouble.kind for trouble in look(world, settings).troubles) == ["backlog", "quarantine"]
    (mail,) = smtp_sink.wait_for(1)
    assert "a MIME bomb" in mail.message.get_content()
    assert "the oldest for 61 minutes" in mail.message.get_content()
    assert mail.recipients == ["ana@consult.example", "luis@consult.example"]
    assert mail.message["Bcc"] is None


def test_a_channel_that_is_down_keeps_the_other_going_and_stands_in_doctor(
    world, settings, smtp_sink, hooks, monkeypatch
):
    hooks.status = 503
    fail(world, CredentialError("refused"))
    report = look(world, settings)
    assert "answered 503" in report.errors[0]
    assert len(smtp_sink.wait_for(1)) == 1
    finding = doctor(world, settings)["alerts"]
    assert not finding.ok
    assert "not delivered by webhook yet" in finding.message
    assert "t0ken-of-the-url" not in finding.message
    hooks.status = 200
    look(world, settings, 1)
    assert doctor(world, settings)["alerts"].ok
    assert len(hooks.calls) == 2
    assert hooks.calls[0].headers["x-nova-delivery"] == hooks.calls[1].headers["x-nova-delivery"]
    assert len(smtp_sink.messages) == 1


def doctor(world, settings):
    return {finding.name: finding for finding in run_checks(service_checks(settings, world.services))}


def test_doctor_names_each_trouble_and_what_to_do(world, settings):
    fail(world, CredentialError("IMAP server refused the login"))
    finding = doctor(world, settings)["mailbox idom (credential:1)"]
    assert not finding.ok
    assert "refused the login" in finding.message
    assert "nova client credentials set idom" in (finding.remedy or "")


def test_without_a_channel_alerts_are_kept_and_doctor_says_that_nobody_is_told(world, settings, monkeypatch):
    for name in ("MAIL_TO", "SMTP_URL", "WEBHOOK_URL"):
        monkeypatch.delenv(f"NOVA_ALERT_{name}")
    quiet = load_settings()
    fail(world, CredentialError("refused"))
    report = look(world, quiet)
    assert (len(report.troubles), report.told, report.errors) == (1, 0, [])
    finding = doctor(world, quiet)["alerts"]
    assert finding.ok
    assert "nobody is told: set NOVA_ALERT_MAIL_TO" in finding.message
    assert look(world, settings, 1).told == 2  # set at last: what is open is told


def test_a_clients_account_may_send_them(world, settings, smtp_sink, monkeypatch):
    monkeypatch.delenv("NOVA_ALERT_SMTP_URL")
    monkeypatch.setenv("NOVA_ALERT_SMTP_CLIENT", "idom")
    fail(world, CredentialError("refused"))
    look(world, load_settings())
    assert smtp_sink.wait_for(1)[0].sender == "facturas@idom.example"


def test_a_client_that_there_is_not_is_said_and_nothing_is_lost(world, settings, smtp_sink, monkeypatch):
    monkeypatch.delenv("NOVA_ALERT_SMTP_URL")
    monkeypatch.setenv("NOVA_ALERT_SMTP_CLIENT", "idmo")
    wrong = load_settings()
    fail(world, CredentialError("refused"))
    assert "did you mean idom?" in look(world, wrong).errors[0]
    assert look(world, settings, 1).told == 1  # corrected: the mail goes out, the webhook had it already
    smtp_sink.wait_for(1)


def test_a_mail_server_that_refuses_is_tried_again(world, settings, smtp_sink, monkeypatch):
    with closed_port() as port:
        monkeypatch.setenv("NOVA_ALERT_SMTP_URL", f"smtp://nova:p4ssw0rd@127.0.0.1:{port}?from=nova@consult.example")
        down = load_settings()
        fail(world, CredentialError("refused"))
        (error,) = look(world, down).errors
    assert "refused the connection" in error
    assert "p4ssw0rd" not in error + repr(down)
    assert look(world, settings, 1).told == 1
    assert len(smtp_sink.wait_for(1)) == 1


def test_two_processes_and_a_restart_send_each_once(world, settings, smtp_sink, hooks):
    fail(world, CredentialError("refused"))
    others = [build_services(settings) for _ in range(3)]
    errors: list[BaseException] = []

    def evaluate(services):
        try:
            evaluate_alerts(services, settings, now=NOW)
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=evaluate, args=(services,)) for services in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for services in others:
        services.databases.close()
    assert errors == []
    look(world, settings, 1)  # as after a restart
    assert len(smtp_sink.wait_for(1)) == len(hooks.calls) == 1


@pytest.mark.parametrize(
    "url", ["smtp://mail.example", "smtp://user:p4ssw0rd@mail.example", "smtp://mail.example?from=a@b.example&tls=yes"]
)
def test_an_smtp_url_without_a_sender_is_refused_without_its_password(url):
    with pytest.raises(ConfigurationError, match="NOVA_ALERT_SMTP_URL") as caught:
        smtp_account(url)
    assert "p4ssw0rd" not in str(caught.value)


def test_an_smtp_url_means_an_account():
    config, sender = smtp_account("smtps://nova%40a.example:p%2Fw@mail.example")
    assert (config.host, config.port, config.user, config.password, config.tls) == (
        "mail.example",
        465,
        "nova@a.example",
        "p/w",
        "ssl",
    )
    assert sender == "nova@a.example"


def test_a_client_that_is_not_active_any_more_is_not_missed(world, settings, smtp_sink):
    fail(world, TransientError("down"))
    look(world, settings, 16)
    smtp_sink.wait_for(1)
    with world.services.databases.nova.session() as session:
        session.get_one(Client, 1).is_active = False
        assert session.scalars(select(MailboxState)).one().error
    for minute in (17, 23):
        assert look(world, settings, minute).troubles == []
    assert smtp_sink.wait_for(2)[1].message["Subject"].startswith("NOVA: over:")
