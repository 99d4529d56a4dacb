"""Rows of nova-db without mails: executions that wait."""

from __future__ import annotations

from nova_pipelines.database.clients import add_client
from nova_pipelines.database.session import Database
from nova_pipelines.database.workflows import publish
from nova_pipelines.nodes.assignment import new_execution
from nova_pipelines.nodes.registry import read_definition
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING


def add_executions(nova: Database, count: int, *, client: str | None = None) -> tuple[list[int], int]:
    """Pending executions of the Invoice Processing workflow, for a new client if it has a slug; (ids, version id)."""
    text = INVOICE_PROCESSING.read_text()
    definition = read_definition(text)
    with nova.session() as session:
        version = publish(
            session,
            name=definition.name,
            job_name=definition.job_name,
            description=definition.description,
            definition=definition.canonical(),
            source=text,
            source_format="yaml",
        )
        owner = add_client(session, name=client, slug=client) if client else None
        session.flush()
        rows = [new_execution(version.workflow_id, version.id, owner.id if owner else None, {}) for _ in range(count)]
        session.add_all(rows)
        session.flush()
        return [row.id for row in rows], version.id
