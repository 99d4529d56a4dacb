"""What the mail intake costs, with a real Dovecot: `python -m benchmarks.mail`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from benchmarks.home import bench_home
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.nodes.services import Services
from nova_pipelines_tests.fixtures.dovecot import PROGRAM, DovecotServer, MailUser

INBOX = 10_000
ATTACHMENT_BYTES = 25 * 1024 * 1024


def main() -> None:
    console = Console()
    if not PROGRAM.exists():
        console.print(f"mail: not measured, since {PROGRAM} is missing (apt-get install dovecot-imapd)")
        return
    with DovecotServer() as server:
        first = measure(server.new_user(), "first_poll", fill=full_inbox)
        unread = measure(server.new_user(), "steady", fill=full_inbox)
        read = measure(server.new_user(), "steady", fill=read_inbox)
        large = measure(server.new_user(), "attachment", fill=small_and_large)
    table = Table(title=f"Mail intake, real Dovecot on loopback, SQLite; inbox of {INBOX} mails")
    for name in ("what", "measured", "allowed"):
        table.add_column(name)
    poll, megabytes = f"{first['cpu']:.2f} s of CPU", f"{first['peak']:.0f} MB"
    table.add_row("first poll: 200 mails stored, the rest waits", poll, "3 s")
    table.add_row("  peak of memory (the idle process)", f"{megabytes} ({first['before']:.0f})", "100 MB")
    table.add_row(f"  headers of all {INBOX}", f"{first['headers']:.2f} s, {first['headers_peak']:.0f} MB", "")
    table.add_row(
        "poll that finds nothing, open connection, all read",
        f"{read['median']:.1f} ms ({read['cpu']:.1f} of CPU)",
        "5 ms",
    )
    table.add_row("  the same, all unread (`then: nothing`)", f"{unread['median']:.1f} ms", "")
    table.add_row(
        "  of that the server's answers, read / unread", f"{read['search']:.1f} / {unread['search']:.1f} ms", ""
    )
    table.add_row("  first poll of a new connection, all unread", f"{1000 * unread['first_cpu']:.0f} ms of CPU", "")
    added = f"{large['large'] - large['small']:+.1f} MB, {large['cpu']:.2f} s of CPU"
    table.add_row("attachment of 25 MB, against a small mail", added, "+10 MB")
    console.print(table)
    console.print(f"load of the machine while this was measured: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def measure(user: MailUser, what: str, *, fill) -> dict[str, float]:
    fill(user)
    with bench_home() as services:
        add_account(services, user)
        command = [sys.executable, "-m", "benchmarks.mail_client", what]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def add_account(services: Services, user: MailUser) -> None:
    settings = {"imap_host": user.host, "imap_port": user.tls_port, "ca_file": user.ca_file, "user": user.name}
    with services.databases.nova.session() as session:
        client = add_client(session, name="Bench", slug="bench")
        set_credential(session, services.box(), client, "email", settings=settings, secret={"password": user.password})


def mail(number: int, content: bytes) -> bytes:
    head = (
        f"From: Ana <ana@proveedores.example>\r\nSubject: Factura {number}\r\nMessage-ID: <{number}@bench>\r\n"
        "Date: Mon, 02 Nov 2026 10:30:00 +0100\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=q\r\n"
        "\r\n--q\r\n\r\nAdjunto.\r\n--q\r\nContent-Type: application/pdf; name=f.pdf\r\n"
        "Content-Transfer-Encoding: base64\r\n\r\n"
    )
    return head.encode() + base64.encodebytes(content).replace(b"\n", b"\r\n") + b"--q--\r\n"


def full_inbox(user: MailUser, *, flags: str = "") -> None:
    """Written into the Maildir itself: by IMAP it would take a minute."""
    with user.session():
        pass  # Dovecot makes the folders at the first login
    maildir = user.home / "Maildir"
    owner = maildir.stat()
    for number in range(INBOX):
        path = maildir / "cur" / f"{1_700_000_000 + number}.M{number}.bench:2,{flags}"
        path.write_bytes(mail(number, b"%PDF-1.4 " + bytes(2000)))
        if os.getuid() == 0:
            shutil.chown(path, owner.st_uid, owner.st_gid)
    with user.session():
        pass  # its index is made now and not while the client is measured


def read_inbox(user: MailUser) -> None:
    full_inbox(user, flags="S")


def small_and_large(user: MailUser) -> None:
    user.deliver_all([mail(1, b"%PDF-1.4"), mail(2, b"%PDF-1.4 " + os.urandom(ATTACHMENT_BYTES))])


if __name__ == "__main__":
    main()
