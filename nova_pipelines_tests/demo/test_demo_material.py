"""The demo's PDFs, mails and servers, on the real servers and with the readers that others use."""

from __future__ import annotations

import fcntl
import os
import signal
import smtplib
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from email.policy import SMTP
from pathlib import Path

import pypdfium2
import pytest
from imap_tools import AND, MailBoxUnencrypted

from nova_pipelines.demo import pdfs, servers
from nova_pipelines.demo.mails import WHITELIST, DemoMail, demo_mails, send_all
from nova_pipelines.demo.servers import CLIENT_ADDRESS, DemoServers
from nova_pipelines.domain.errors import ConfigurationError

NOW = datetime(2026, 8, 1, 10, tzinfo=UTC)
MAILS = {mail.name: mail for mail in demo_mails(now=NOW)}


def inbox(running: DemoServers) -> MailBoxUnencrypted:
    box = MailBoxUnencrypted(running.imap_host, running.imap_port, timeout=20)
    return box.login(running.user, running.password)


def post(running: DemoServers, subject: str, recipient: str = CLIENT_ADDRESS, *, login: bool = False) -> None:
    with smtplib.SMTP(running.smtp_host, running.smtp_port, "localhost", timeout=20) as smtp:
        if login:
            smtp.login(running.user, running.password)
        smtp.sendmail("a@acme.example", [recipient], f"Subject: {subject}\r\n\r\n{subject}\r\n".encode())


def pdf_text(content: bytes) -> str:
    document = pypdfium2.PdfDocument(content)
    try:
        assert len(document) == 1
        return document[0].get_textpage().get_text_range()
    finally:
        document.close()


def attachments(mail: DemoMail) -> dict[str, bytes]:
    return {str(part.get_filename()): part.get_content() for part in mail.message.iter_attachments()}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with DemoServers(tmp_path_factory.mktemp("servers")) as started:
        yield started


# ---------------------------------------------------------------- PDFs


SPEC = pdfs.InvoiceSpec(
    supplier=pdfs.Party("Ñandú & Cía, S.L.", "B12345674"),
    client=pdfs.Party("IDOM", "B76543214"),
    number="F-7",
    issued=date(2026, 3, 5),
    lines=(
        pdfs.Line("Uno", Decimal("1.5"), Decimal("33.33")),
        pdfs.Line("Dos", Decimal(3), Decimal("400000")),
    ),
)


def test_sums_are_exact_and_rounded_to_the_cent():
    assert SPEC.net == Decimal("1200050.00")  # 49.995 is rounded to 50.00
    assert SPEC.tax == Decimal("252010.50")
    assert SPEC.total == Decimal("1452060.50")
    assert replace(SPEC, withholding_rate=Decimal(15)).total == Decimal("1272053.00")


@pytest.mark.parametrize(
    ("language", "total", "net"),
    [
        ("es", "TOTAL FACTURA 1.452.060,50 €", "Base imponible 1.200.050,00 €"),
        ("en", "Total due: EUR 1,452,060.50", "Subtotal EUR 1,200,050.00"),
    ],
)
def test_amounts_stand_in_the_text_as_drawn(language, total, net):
    lines = pdf_text(pdfs.draw_invoice(replace(SPEC, language=language))).splitlines()
    assert total in lines
    assert net in lines
    assert lines[0].startswith("Ñandú & Cía, S.L.")


def test_withholding_is_drawn_as_a_deduction():
    text = pdf_text(pdfs.draw_invoice(replace(SPEC, withholding_rate=Decimal("7.5"))))
    assert "Retención IRPF 7,5 % -90.003,75 €" in text.splitlines()


def test_same_spec_gives_the_same_bytes():
    assert pdfs.draw_invoice(SPEC) == pdfs.draw_invoice(SPEC)
    assert pdfs.draw_invoice(SPEC) != pdfs.draw_invoice(replace(SPEC, number="F-8"))


def test_scan_has_no_text_and_broken_pdf_cannot_be_opened():
    assert pdf_text(pdfs.draw_scan()).strip() == ""
    broken = pdfs.broken_pdf(SPEC)
    assert broken.startswith(b"%PDF-")
    with pytest.raises(pypdfium2.PdfiumError):
        pypdfium2.PdfDocument(broken)


# ---------------------------------------------------------------- mails


def test_same_arguments_give_the_same_mails_and_a_series_gives_new_ones():
    again, other = demo_mails(now=NOW), demo_mails(now=NOW, series="b")
    assert [m.message.as_bytes(policy=SMTP) for m in again] == [m.message.as_bytes(policy=SMTP) for m in MAILS.values()]
    assert not {m.message["Message-ID"] for m in again} & {m.message["Message-ID"] for m in other}
    assert not {e.invoice_number for m in again for e in m.expected if e.invoice_number} & {
        e.invoice_number for m in other for e in m.expected
    }


@pytest.mark.parametrize(
    ("name", "totals"),
    [
        ("low-es", {"242.00": "TOTAL FACTURA 242,00 €"}),
        ("low-en", {"847.00": "Total due: EUR 847.00"}),
        ("high-es", {"15000.00": "TOTAL FACTURA 15.000,00 €"}),
        ("high-en", {"12500.00": "Total due: EUR 12,500.00"}),
        ("at-limit", {"1000.00": "TOTAL FACTURA 1.000,00 €"}),
        ("two-pdfs", {"530.00": "TOTAL FACTURA 530,00 €", "3630.00": "TOTAL FACTURA 3.630,00 €"}),
        ("once", {"435.60": "Total due: EUR 435.60"}),
        ("hostile-subject", {"2662.00": "TOTAL FACTURA 2.662,00 €"}),
    ],
)
def test_expected_amounts_are_those_in_the_attached_pdf(name, totals):
    mail = MAILS[name]
    files = attachments(mail)
    assert [str(expected.amount) for expected in mail.expected] == list(totals)
    for expected in mail.expected:
        text = pdf_text(files[str(expected.document)]).splitlines()
        assert totals[str(expected.amount)] in text
        assert any(line.endswith(f": {expected.invoice_number}") for line in text)
        high = expected.decision == "high_amount"
        assert high == (Decimal(str(expected.amount)) > 1000) == (expected.row == "pending_approval")


def test_limit_itself_is_low():
    assert MAILS["at-limit"].expected[0].decision == "low_amount"


def test_only_one_sender_is_not_whitelisted():
    strangers = {name for name, mail in MAILS.items() if not mail.sender.endswith(WHITELIST)}
    assert strangers == {"not-whitelisted"}


def test_repeats_repeat_what_they_should():
    once, again, reminder = MAILS["once"], MAILS["once-again"], MAILS["reminder"]
    assert once.message.as_bytes() == again.message.as_bytes()
    assert once.message["Message-ID"] != reminder.message["Message-ID"]
    assert attachments(once) == attachments(reminder)


def test_hostile_subject_is_folded_and_decodes_to_a_line_break():
    message = MAILS["hostile-subject"].message
    raw = message.as_bytes(policy=SMTP)
    assert b"'''+__import__('os').system('id')+'''\r\n {{ 7*7 }}" in raw
    assert "línea\r\nBcc: otro@ajeno.example" in str(message["Subject"])
    assert message["Bcc"] is None


# ---------------------------------------------------------------- servers


def test_every_mail_arrives_in_order_with_its_documents(tmp_path):
    mails = list(MAILS.values())
    with DemoServers(tmp_path) as running:
        send_all(running, mails)
        with inbox(running) as box:
            came = list(box.fetch(mark_seen=False))
    assert [mail.uid for mail in came] == [str(n) for n in range(1, len(mails) + 1)]
    for mail, sent in zip(came, mails, strict=True):
        assert mail.from_ == sent.sender
        assert mail.headers["message-id"] == (sent.message["Message-ID"],)
        assert {a.filename: a.payload for a in mail.attachments} == attachments(sent)


def test_imap_does_what_the_intake_needs(running):
    post(running, "needs")
    with inbox(running) as box:
        status = box.folder.status("INBOX")
        assert status["UIDNEXT"] == status["MESSAGES"] + 1
        client, uid = box.client, str(status["UIDNEXT"] - 1)
        assert box.uids(AND(seen=False))[-1] == uid
        _, whole = client.uid("FETCH", uid, "(BODY.PEEK[])")
        _, part = client.uid("FETCH", uid, "(BODY.PEEK[]<0.1048576>)")
        assert whole[0][1] == part[0][1]
        _, middle = client.uid("FETCH", uid, "(BODY.PEEK[]<9.3>)")
        assert middle[0][1] == whole[0][1][9:12] == b"nee"
        _, beyond = client.uid("FETCH", uid, "(BODY.PEEK[]<1048576.1048576>)")
        assert beyond[0][1] == b""
        assert box.uids(AND(seen=False))[-1] == uid  # none of these marked it
        client.uid("STORE", uid, "+FLAGS", r"(\Seen)")
        with inbox(running) as other:
            assert uid not in other.uids(AND(seen=False))
            assert other.folder.status("INBOX")["UIDVALIDITY"] == status["UIDVALIDITY"]


def test_idle_wakes_with_a_whole_response(running):
    with inbox(running) as box:
        box.idle.start()
        post(running, "wake")
        lines = box.idle.poll(timeout=20)
        box.idle.stop()
    assert any(line.endswith(b"EXISTS") for line in lines)


def test_one_uid_for_each_mail_while_others_look(running):
    with inbox(running) as box:
        before = int(box.folder.status("INBOX")["UIDNEXT"])
    done = threading.Event()
    seen: list[int] = []

    def look() -> None:
        with inbox(running) as box:
            while not done.is_set():
                box.client.noop()
                seen.append(len(box.uids(AND(all=True))))

    others = [threading.Thread(target=look) for _ in range(3)]
    for other in others:
        other.start()
    for number in range(12):
        post(running, f"number {number}")
    done.set()
    for other in others:
        other.join()
    assert len(seen) >= len(others)
    with inbox(running) as box:
        came = [(int(m.uid), m.subject) for m in box.fetch(AND(uid=f"{before}:*"), mark_seen=False)]
    assert came == [(before + number, f"number {number}") for number in range(12)]


def test_answers_come_in_order_of_arrival_and_need_a_login(running):
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        post(running, "relay", "someone@acme.example")
    with (
        smtplib.SMTP(running.smtp_host, running.smtp_port, "localhost") as smtp,
        pytest.raises(smtplib.SMTPResponseException),
    ):
        smtp.login(running.user, "wrong")
    recipients = ["b@acme.example", "a@acme.example", "../../up@acme.example", "b@acme.example"]
    for number, recipient in enumerate(recipients):
        post(running, f"answer {number}", recipient, login=True)
    assert [mail["Subject"] for mail in running.answers()] == [f"answer {n}" for n in range(4)]
    assert all(path.parent == running.folder / "answers" for path in (running.folder / "answers").glob("*/"))


def test_second_start_goes_on_with_the_mailbox(tmp_path):
    with DemoServers(tmp_path) as first:
        post(first, "one")
        post(first, "answer", "a@acme.example", login=True)
        with inbox(first) as box:
            box.client.uid("STORE", "1", "+FLAGS", r"(\Seen)")
            validity = box.folder.status("INBOX")["UIDVALIDITY"]
        ports = {"imap_port": first.imap_port, "smtp_port": first.smtp_port}
    (tmp_path / "imap" / "inbox" / "dovecot-uidlist.lock").touch()  # as a killed server leaves it
    with DemoServers(tmp_path, **ports) as second:
        assert second.password == first.password
        assert ports == {"imap_port": second.imap_port, "smtp_port": second.smtp_port}
        post(second, "two")
        with inbox(second) as box:
            assert box.folder.status("INBOX")["UIDVALIDITY"] == validity
            assert [(m.uid, m.subject) for m in box.fetch(AND(seen=False))] == [("2", "two")]
        assert [mail["Subject"] for mail in second.answers()] == ["answer"]


def test_a_new_folder_has_the_time_as_uidvalidity(tmp_path):
    before = int(datetime.now(UTC).timestamp())
    with DemoServers(tmp_path / "new") as fresh, inbox(fresh) as box:
        assert before <= box.folder.status("INBOX")["UIDVALIDITY"] <= datetime.now(UTC).timestamp()


def test_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*another port"):
            DemoServers(tmp_path, smtp_port=port).__enter__()
    with DemoServers(tmp_path):
        pass  # the failed start left nothing behind


def test_folder_in_use(running):
    with pytest.raises(ConfigurationError, match="another demo"):
        DemoServers(running.folder).__enter__()


def test_failed_start_says_why_and_leaves_nothing(tmp_path):
    (tmp_path / "imap").write_text("a file where a folder should be")
    with pytest.raises(ConfigurationError, match=r"did not start.*imap.*servers\.log"):
        DemoServers(tmp_path).__enter__()
    (tmp_path / "imap").unlink()
    with DemoServers(tmp_path):
        pass


def test_missing_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pymap and aiosmtpd.*nova-pipelines\[demo\]"):
        DemoServers(tmp_path).__enter__()


def test_servers_end_with_a_killed_parent(tmp_path):
    program = (
        "import sys, time, pathlib; from nova_pipelines.demo.servers import DemoServers\n"
        "with DemoServers(pathlib.Path(sys.argv[1])) as s: print(s.imap_port, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        port = int(parent.stdout.readline())
        socket.create_connection(("127.0.0.1", port)).close()
        os.kill(parent.pid, signal.SIGKILL)
    with Path(tmp_path / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # comes free when the last process that holds the folder is gone
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_password_is_private(running):
    assert (running.folder / "password").stat().st_mode & 0o077 == 0
    assert running.folder.stat().st_mode & 0o077 == 0
    assert running.password not in repr(running) + (running.folder / "servers.log").read_text()
