"""Which folders of which mailboxes live workflows read, from the stored versions: without Dagster or compiling."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from nova_pipelines.database.clients import mailboxes
from nova_pipelines.database.nova import Client, Credential
from nova_pipelines.database.workflows import catalog_revision, versions_at, versions_by_id


@dataclass(frozen=True, slots=True)
class Reader:
    """A workflow that reads a folder, of all clients (None) or of some; `since` when that was stored."""

    folder: str
    clients: tuple[str, ...] | None
    since: datetime | None = None

    def serves(self, slug: str) -> bool:
        return self.clients is None or slug in self.clients


@dataclass(frozen=True, slots=True)
class Place:
    """A folder of a mailbox that is to be searched again and again. `since`: from when on, at the latest."""

    client: str
    label: str
    credential_id: int
    folder: str
    since: datetime

    @property
    def name(self) -> str:
        """For a reader: `idom`, `idom (second)`, `idom/Facturas`."""
        label = "" if self.label == "default" else f" ({self.label})"
        return self.client + label + ("" if self.folder == "INBOX" else f"/{self.folder}")


def readers(session: Session) -> list[Reader]:
    """The mailbox triggers of all live workflows, one that does not compile included: its mailbox is to be missed."""
    ids = versions_at(session, catalog_revision(session))
    found: list[Reader] = []
    for version in versions_by_id(session, ids.values()).values():
        trigger: Any = version.definition.get("trigger")
        if isinstance(trigger, dict) and isinstance(trigger.get("mailbox"), dict):
            clients = trigger["mailbox"].get("clients")
            folder = str(trigger["mailbox"].get("folder", "INBOX"))
            found.append(Reader(folder, None if clients is None else tuple(clients), version.created_at))
    return found


def places(session: Session, reading: Iterable[Reader] | None = None) -> list[Place]:
    """Every folder of every active client's mailboxes that is read, in a steady order."""
    known = list(readers(session) if reading is None else reading)
    folders = sorted({reader.folder for reader in known})
    return [
        place
        for client, credential in mailboxes(session)
        if credential.settings.get("imap_host")  # an account may be there for sending alone
        for folder in folders
        if (place := _place(client, credential, folder, known)) is not None
    ]


def _place(client: Client, credential: Credential, folder: str, known: list[Reader]) -> Place | None:
    serving = [reader for reader in known if reader.folder == folder and reader.serves(client.slug)]
    if not serving:
        return None
    begun = min((reader.since for reader in serving if reader.since is not None), default=credential.created_at)
    return Place(client.slug, credential.label, credential.id, folder, max(begun, credential.created_at))
