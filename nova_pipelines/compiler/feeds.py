"""Which workflows live on mail, and which folders of which mailboxes that makes to be watched.

Read from the stored versions, without Dagster: the watcher holds no job.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select

from nova_pipelines.compiler.plan import make_plan
from nova_pipelines.database.clients import mailboxes
from nova_pipelines.database.mail_places import Reader, places
from nova_pipelines.database.nova import Catalog, Client, Credential, WorkflowVersion
from nova_pipelines.database.session import Database
from nova_pipelines.database.workflows import catalog_revision, versions_at, versions_by_id
from nova_pipelines.domain.errors import DefinitionError
from nova_pipelines.nodes.registry import definition_from
from nova_pipelines.nodes.watch_plan import Account

log = logging.getLogger("nova.watch")


@dataclass(frozen=True, slots=True)
class Feed:
    """A live workflow with a mailbox trigger. `start`: the name of its job's first step."""

    workflow_id: int
    version_id: int
    job_name: str
    start: str
    folder: str
    client_slugs: tuple[str, ...] | None

    def serves(self, slug: str, folder: str) -> bool:
        return self.folder == folder and (self.client_slugs is None or slug in self.client_slugs)


class Feeds:
    """The feeds of the newest revision of the catalog, read again only when there is a newer one."""

    def __init__(self, nova: Database) -> None:
        self._nova = nova
        self._revision = -1
        self._found: tuple[Feed, ...] = ()

    def read(self) -> tuple[Feed, ...]:
        """What lives on mail now. A version that no longer is valid is left out, with a warning in the log."""
        with self._nova.read() as session:
            revision = catalog_revision(session)
            if revision == self._revision:
                return self._found
            names = {number: name for name, number in versions_at(session, revision).items()}
            versions = versions_by_id(session, names)
            found = [_feed(names[number], versions[number]) for number in sorted(versions)]
        self._found, self._revision = tuple(feed for feed in found if feed), revision
        return self._found


def _feed(job_name: str, version: WorkflowVersion) -> Feed | None:
    try:
        definition = definition_from(version.definition, source=job_name)
    except DefinitionError as error:
        log.warning("workflow %s is left out: %s", job_name, error)
        return None
    trigger = definition.trigger.mailbox if definition.trigger else None
    if trigger is None:
        return None
    return Feed(
        workflow_id=version.workflow_id,
        version_id=version.id,
        job_name=job_name,
        start=make_plan(definition).steps[0].name,
        folder=trigger.folder,
        client_slugs=tuple(trigger.clients) if trigger.clients is not None else None,
    )


def state_of_record(nova: Database) -> tuple[object, ...]:
    """Something that is another one whenever a workflow, a client or a credential was changed: one small query."""
    query = select(
        select(Catalog.revision).scalar_subquery(),
        *(select(column).scalar_subquery() for model in (Client, Credential) for column in _changes(model)),
    )
    with nova.read() as session:
        return tuple(session.execute(query).one())


def _changes(model: type[Client] | type[Credential]) -> tuple[ColumnElement[Any], ...]:
    return func.count(model.id), func.max(model.updated_at)


def accounts_to_watch(nova: Database, feeds: Sequence[Feed]) -> list[Account]:
    """Every mailbox of an active client that feeds a workflow, with its folders; in a steady order."""
    folders: dict[int, list[str]] = {}
    with nova.read() as session:
        for place in places(session, [Reader(feed.folder, feed.client_slugs) for feed in feeds]):
            folders.setdefault(place.credential_id, []).append(place.folder)
        return [
            Account(
                credential_id=credential.id,
                client_id=client.id,
                slug=client.slug,
                settings=dict(credential.settings),
                secret=credential.secret,
                folders=tuple(folders[credential.id]),
            )
            for client, credential in mailboxes(session)
            if credential.id in folders
        ]
