"""The way of a mail from a real Dovecot into ledger and store. docs/mail.md lists what is shown where."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from sqlalchemy import select

from nova_pipelines.adapters import imap
from nova_pipelines.adapters.imap import Mailbox
from nova_pipelines.adapters.imap_header import MailHeader
from nova_pipelines.database.mail_events import MailboxEvent
from nova_pipelines.database.nova import MailFolder, Message, MessageDocument
from nova_pipelines.domain.errors import NotFound, TransientError
from nova_pipelines.nodes import intake, reconciling
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines_tests.fixtures.world import World, invoice_pdf

PDF = b"%PDF-1.4 1 0 obj"


def open_mailbox(world: World) -> Mailbox:
    return Mailbox(world.services.mailbox(1))


def scan(world: World, folder: str = "INBOX") -> intake.ScanReport:
    return scan_mailbox(world.services, 1, folder)


def statuses(world: World) -> list[str]:
    return [message.status for message in world.messages()]


def events(world: World) -> list[MailboxEvent]:
    with world.services.databases.nova.read() as session:
        rows = list(session.scalars(select(MailboxEvent).order_by(MailboxEvent.id)))
        session.expunge_all()
        return rows


@pytest.fixture
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The UIDs of all mails whose bodies are asked for."""
    asked: list[int] = []
    original = Mailbox._piece
    monkeypatch.setattr(Mailbox, "_piece", lambda self, uid, offset: asked.append(uid) or original(self, uid, offset))
    return asked


# -- an open connection ------------------------------------------------------------------------------------


def test_an_open_mailbox_is_used_and_stays_open(world: World, monkeypatch: pytest.MonkeyPatch):
    with open_mailbox(world) as mailbox:
        monkeypatch.setattr(imap, "connect", lambda config: pytest.fail("a second connection was opened"))
        for number in range(2):
            world.deliver(invoice_pdf(number=f"F-{number}"))
            assert scan_mailbox(world.services, 1, "INBOX", mailbox=mailbox).stored == 1
        mailbox.ping()
    assert statuses(world) == ["stored", "stored"]


def test_an_open_mailbox_serves_several_folders(world: World):
    world.user.create_folder("Facturas")
    with open_mailbox(world) as mailbox:
        for number, folder in enumerate(("INBOX", "Facturas", "INBOX", "Facturas")):
            world.user.deliver(world.mail(subject=f"{folder} {number}"), folder=folder)
            assert scan_mailbox(world.services, 1, folder, mailbox=mailbox).stored == 1
    found = [(message.folder, message.subject) for message in world.messages()]
    assert found == [("INBOX", "INBOX 0"), ("Facturas", "Facturas 1"), ("INBOX", "INBOX 2"), ("Facturas", "Facturas 3")]


# -- each mail once, and none lost -------------------------------------------------------------------------


def test_a_mail_without_a_document_is_recorded_and_never_downloaded_again(world: World, downloads: list[int]):
    """paperless-ngx #13175: 2.5 GB again and again, since mails without a document were not recorded."""
    uids = [world.deliver(subject=f"Hola {number}") for number in range(3)]
    assert [scan(world).stored for _ in range(3)] == [3, 0, 0]
    assert downloads == uids


def test_scans_that_overlap_take_a_mail_once(world: World):
    """paperless-ngx #9436, docspell #1755, n8n #30179: overlapping polls import twice."""
    for number in range(4):
        world.deliver(invoice_pdf(number=f"F-{number}"))
    barrier = threading.Barrier(3)
    reports: list[intake.ScanReport] = []

    def together() -> None:
        barrier.wait(20)
        reports.append(scan(world))

    threads = [threading.Thread(target=together) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(reports) == 3
    assert statuses(world) == ["stored"] * 4
    assert (sum(report.new for report in reports), sum(report.stored for report in reports)) == (4, 4)
    with world.services.databases.nova.read() as session:
        assert len(session.scalars(select(MessageDocument)).all()) == 4


def test_a_mail_that_somebody_read_before_the_scan_is_taken(world: World):
    """n8n #2729: what is read counts as done. Here `\\Seen` is never the state."""
    scan(world)
    world.user.flag(world.deliver(invoice_pdf()), r"\Seen")
    assert scan(world).stored == 1


def test_mails_of_before_the_first_scan_count_only_if_unread(world: World):
    read, unread = world.deliver(subject="Leída"), world.deliver(subject="Sin leer")
    world.user.flag(read, r"\Seen")
    assert scan(world).stored == 1
    assert [message.uid for message in world.messages()] == [unread]
    assert r"\Seen" not in world.user.flags()[unread]


def test_a_mail_that_fails_is_not_passed_over_and_holds_back_none(world: World, monkeypatch: pytest.MonkeyPatch):
    """n8n #36681: a watermark that skips one failing mail for ever."""
    scan(world)
    uids = [world.deliver(subject=f"Mail {number}") for number in range(3)]
    for uid in uids:
        world.user.flag(uid, r"\Seen")  # only the mark finds them again
    original, broken = intake.download, {uids[1]}

    def download(services, mailbox, header: MailHeader, provider):
        if header.uid in broken:
            raise TransientError("the line broke")
        return original(services, mailbox, header, provider)

    monkeypatch.setattr(intake, "download", download)
    with pytest.raises(TransientError):
        scan(world)
    assert statuses(world) == ["stored", "seen"]
    broken.clear()
    scan(world)
    assert statuses(world) == ["stored", "seen", "stored"]  # it rests for a while, the one after it is read
    monkeypatch.setattr(reconciling, "FIRST_REST", timedelta(0))
    scan(world)
    assert statuses(world) == ["stored"] * 3
    with world.services.databases.nova.read() as session:
        assert session.scalars(select(MailFolder.first_uid)).one() == uids[-1] + 1


def test_a_header_that_the_server_kept_back_once_is_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch):
    scan(world)
    uids = [world.deliver(subject=f"Mail {number}") for number in range(3)]
    for uid in uids:
        world.user.flag(uid, r"\Seen")
    original = Mailbox.headers
    monkeypatch.setattr(Mailbox, "headers", lambda self, wanted: original(self, [w for w in wanted if w != uids[1]]))
    assert scan(world).stored == 2
    monkeypatch.setattr(Mailbox, "headers", original)
    assert scan(world).stored == 1
    assert sorted(message.uid for message in world.messages()) == uids


def test_poison_is_set_aside_and_blocks_none_after_it(world: World):
    """paperless #664. A MIME bomb of 10,000 parts, a mail that is too big, a ZIP bomb."""
    bomb = b"From: a@proveedores.example\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n"
    bomb += b"--q\r\n\r\nx\r\n" * 10_000
    world.services.max_mail_bytes = 1_000_000
    world.user.deliver_all([bomb, b"Subject: huge\r\n\r\n" + b"x\r\n" * 400_000])
    world.deliver(invoice_pdf())
    report = scan(world)
    assert (report.quarantined, report.stored) == (2, 1)
    first, second, third = world.messages()
    assert (first.status, second.status, third.status) == ("quarantined", "quarantined", "stored")
    assert "more than 200 parts" in (first.error or "")
    assert "1200017 bytes, more than the 1000000 allowed" in (second.error or "")
    assert scan(world).new == 0


def test_a_mail_that_is_too_big_is_not_downloaded(world: World, downloads: list[int]):
    world.services.max_mail_bytes = 1000
    world.deliver(invoice_pdf())
    assert scan(world).quarantined == 1
    assert downloads == []


@pytest.mark.parametrize(
    "raw",
    [
        b"From: <>\r\nReturn-Path: <>\r\nSubject: Undelivered\r\n\r\nx",
        b"From: \xff\xfe =?x?q?=?= <a@b\r\n c>\r\nSubject: =?utf-8?q?a=0D=0ABcc:_x=40y=00?=\r\n b\r\n\r\nx",
        b"",
        b"\r\n\r\n\r\n",
    ],
    ids=["null sender", "bad headers", "empty", "blank"],
)
def test_headers_of_any_kind_are_taken(world: World, raw: bytes):
    world.user.deliver(raw or b"\r\n")
    assert scan(world).stored == 1
    (message,) = world.messages()
    assert message.sender == ""
    assert "\n" not in (message.subject or "")
    assert (message.mail or {})["automatic"] is raw.startswith(b"From: <>")


def test_an_unknown_folder_is_said(world: World):
    with pytest.raises(NotFound, match="'Facturas'"):
        scan(world, "Facturas")


# -- known again -------------------------------------------------------------------------------------------


def made_anew(world: World, folder: str, mails: list[EmailMessage]) -> None:
    with world.user.session() as other:
        assert other.delete(folder)[0] == "OK"
        assert other.create(folder)[0] == "OK"
    world.user.deliver_all(mails, folder=folder)


def test_a_folder_that_was_made_anew_is_an_event_and_repeats_nothing(world: World, downloads: list[int]):
    """paperless-ngx #10080, #8939: UIDs that are used again are taken for processed, or all is processed again."""
    world.user.create_folder("Facturas")
    old = [world.mail(PDF + bytes([n]), subject=f"Factura {n}", Message_ID=f"<{n}@p.example>") for n in range(3)]
    world.user.deliver_all(old, folder="Facturas")
    assert scan(world, "Facturas").stored == 3
    new = world.mail(PDF + b"new", subject="Nueva", Message_ID="<new@p.example>")
    del downloads[:]
    # the new mail now has the UID of the first old one
    made_anew(world, "Facturas", [new, *old])
    report = scan(world, "Facturas")
    assert (report.stored, report.duplicates) == (1, 3)
    assert downloads == [1]  # known ones are told by their headers
    rows = world.messages()
    assert [row.duplicate_of for row in rows[3:]] == [None, rows[0].id, rows[1].id, rows[2].id]
    (event,) = events(world)
    assert (event.kind, event.folder, event.credential_id) == ("uidvalidity_changed", "Facturas", 1)
    assert event.detail == {"old": rows[0].uidvalidity, "new": rows[3].uidvalidity, "known_mails": 3}
    assert scan(world, "Facturas").new == 0
    assert len(events(world)) == 1


def test_after_a_folder_was_made_anew_each_old_mail_is_known_once(world: World):
    """Two mails of one size with one Message-ID and date: the second is no repetition of the first."""
    world.user.create_folder("Facturas")
    first, second = (world.mail(PDF + bytes([n]), Message_ID="<1@p.example>") for n in range(2))
    world.user.deliver_all([first], folder="Facturas")
    scan(world, "Facturas")
    made_anew(world, "Facturas", [first, second])
    report = scan(world, "Facturas")
    assert (report.stored, report.duplicates) == (1, 1)


def test_mails_that_share_a_message_id_both_count_and_one_that_took_two_ways_counts_once(world: World):
    """No invoice is lost to a sender's program that repeats its Message-ID; none is stored twice."""
    first = world.mail(PDF + b"1", Message_ID="<1@p.example>")
    other = world.mail(PDF + b"2", Message_ID="<1@p.example>")
    raw = first.as_bytes()
    alias = b"Delivered-To: alias@idom.example\r\nReceived: from a by b; Mon, 3 Aug 2026 10:30:00 +0200\r\n" + raw
    again = b"X-Spam-Score: 1\r\n" + raw
    world.user.deliver_all([raw, other.as_bytes(), alias, again])
    report = scan(world)
    assert (report.stored, report.duplicates) == (2, 2)
    rows = world.messages()
    assert [row.duplicate_of for row in rows] == [None, None, rows[0].id, rows[0].id]


def test_mails_without_a_message_id_are_told_apart_by_what_they_say(world: World):
    same, other = world.mail(PDF + b"1"), world.mail(PDF + b"2")
    world.user.deliver_all([same, other, same])
    report = scan(world)
    assert (report.stored, report.duplicates) == (2, 1)


def test_the_same_mail_in_two_folders_is_one(world: World):
    world.user.create_folder("Facturas")
    mail = world.mail(PDF, Message_ID="<1@p.example>")
    world.user.deliver(mail)
    world.user.deliver(mail, folder="Facturas")
    assert (scan(world).stored, scan(world, "Facturas").duplicates) == (1, 1)


def test_a_mail_under_several_labels_of_gmail_is_one_and_read_once(
    world: World, downloads: list[int], monkeypatch: pytest.MonkeyPatch
):
    """The mails are Dovecot's; X-GM-MSGID, which only Google's server has, is added to what it says of them."""
    world.user.create_folder("Facturas")
    world.deliver(PDF)
    world.user.deliver(world.mail(PDF + b"2"), folder="Facturas")
    original = imap.read_header

    def with_gmail(uid, mail):
        mail.text += rb' X-GM-MSGID 1278455344230334865 X-GM-LABELS ("\\Inbox" Facturas)'
        return original(uid, mail)

    monkeypatch.setattr(imap, "read_header", with_gmail)
    assert (scan(world).stored, scan(world, "Facturas").duplicates) == (1, 1)
    assert len(downloads) == 1
    first, second = world.messages()
    assert (first.provider_id, second.duplicate_of) == ("gmail:1278455344230334865", first.id)
    assert (first.mail or {})["labels"] == ["\\Inbox", "Facturas"]


def test_rows_from_before_fingerprints_are_known_by_message_id_and_sender(world: World):
    world.user.deliver(world.mail(PDF, Message_ID="<1@p.example>"))
    scan(world)
    with world.services.databases.nova.session() as session:
        session.scalars(select(Message)).one().fingerprint = None
    world.user.deliver(b"X-Way: 2\r\n" + world.mail(PDF, Message_ID="<1@p.example>").as_bytes())
    assert scan(world).duplicates == 1


def test_the_same_attachment_is_stored_once(world: World):
    world.deliver(PDF, PDF)
    world.deliver(PDF, subject="Otra vez")
    assert scan(world).stored == 2
    store = Path(world.settings.documents_url)
    files = [path for path in store.rglob("*") if path.is_file()]
    assert len(files) == 3  # two mails and one document
    assert list((store / ".incoming").iterdir()) == []


# -- memory ------------------------------------------------------------------------------------------------

MEASURE = """
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

services = build_services(load_settings())
for _ in range(2):
    assert scan_mailbox(services, 1, "INBOX", limit=1).stored == 1
    print(peak())
services.databases.close()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of memory from /proc")
def test_an_attachment_of_25_mb_adds_at_most_10_mb_of_memory(world: World):
    """34 MB of base64. `benchmarks/mail.py` gives the figure; the rest here is for another allocator's mood."""
    content = PDF + os.urandom(25 * 1024 * 1024)
    world.deliver(PDF)
    head = (
        b"From: ana@proveedores.example\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    world.user.deliver(head + base64.encodebytes(content).replace(b"\n", b"\r\n"))
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    small, large = (int(line) / 1024 for line in done.stdout.split())
    assert large - small <= 10, f"from {small:.0f} to {large:.0f} MB"
    assert world.messages()[1].size > 34_000_000
    with world.services.databases.nova.read() as session:
        document = session.scalars(select(MessageDocument).order_by(MessageDocument.id.desc())).first()
        assert document is not None
        assert world.services.store.get(document.sha256) == content
