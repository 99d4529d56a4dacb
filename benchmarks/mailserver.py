"""A mail server for benchmarks: SMTP in (aiosmtpd), into the Maildir of a real Dovecot, IMAP out."""

from __future__ import annotations

import mailbox
import os
import smtplib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser


class MailServer:
    """`send` delivers a mail by SMTP and returns the moment (time.time()) at which it lay in the mailbox."""

    def __init__(self, user: MailUser) -> None:
        self.user = user
        with user.session():
            pass  # Dovecot makes the Maildir, under its own user
        self._owner = (user.home / "Maildir").stat()
        self._delivered: dict[str, float] = {}
        self.port = 0

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        folder = self.user.home / "Maildir"
        box = mailbox.Maildir(folder)
        message = mailbox.MaildirMessage(envelope.content)
        key = box.add(message)
        path = folder / "new" / key
        os.chown(path, self._owner.st_uid, self._owner.st_gid)
        self._delivered[str(message["Message-ID"])] = time.time()
        return "250 OK"

    def send(self, mail: EmailMessage) -> float:
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as client:
            client.send_message(mail)
        return self._delivered[str(mail["Message-ID"])]


class _AnyPort(Controller):
    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        super()._trigger_server()


@contextmanager
def mail_server() -> Iterator[MailServer]:
    with DovecotServer() as dovecot:
        server = MailServer(dovecot.new_user())
        controller = _AnyPort(server, hostname="127.0.0.1", port=0)
        controller.start()
        server.port = controller.port
        try:
            yield server
        finally:
            controller.stop()


def settings_of(user: MailUser) -> dict[str, Any]:
    """The settings of a client's credential for this mailbox."""
    assert Path(user.ca_file).exists()
    return {
        "imap_host": user.host,
        "imap_port": user.tls_port,
        "imap_tls": "ssl",
        "ca_file": user.ca_file,
        "user": user.name,
        "address": "facturas@idom.example",
    }
