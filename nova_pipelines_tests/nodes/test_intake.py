"""The way of a mail from a real Dovecot into ledger and store: `scan_mailbox`."""

from __future__ import annotations

import pytest

from nova_pipelines.adapters import imap
from nova_pipelines.adapters.imap import Mailbox
from nova_pipelines.database.nova import Credential
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.nodes.services import mailbox_config
from nova_pipelines_tests.fixtures.world import World, invoice_pdf


def open_mailbox(world: World) -> Mailbox:
    with world.services.databases.nova.read() as session:
        return Mailbox(mailbox_config(session.get_one(Credential, 1), world.services.box()))


def test_an_open_mailbox_is_used_and_stays_open(world: World, monkeypatch: pytest.MonkeyPatch):
    with open_mailbox(world) as mailbox:
        monkeypatch.setattr(imap, "connect", lambda config: pytest.fail("a second connection was opened"))
        for number in range(2):
            world.deliver(invoice_pdf(number=f"F-{number}"))
            assert scan_mailbox(world.services, 1, "INBOX", mailbox=mailbox).stored == 1
        mailbox.ping()
    assert [message.status for message in world.messages()] == ["stored", "stored"]
