"""What a run carries: the executions it was given, or, started by hand, what is waiting for it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from nova_pipelines.compiler.step import Work
from nova_pipelines.database.clients import find_client, mailboxes
from nova_pipelines.database.executions import due
from nova_pipelines.database.nova import Execution
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import Conflict, NovaError, PermanentError
from nova_pipelines.nodes.assignment import make_executions, new_execution
from nova_pipelines.nodes.intake import scan_mailbox

if TYPE_CHECKING:
    from nova_pipelines.compiler.job import Compiled

log = logging.getLogger(__name__)


def collect(
    work: Work,
    compiled: Compiled,
    *,
    execution_ids: list[int] | None,
    client_slug: str | None,
    context: dict[str, Any] | None,
    max_batch: int,
) -> list[int]:
    """The executions of this run, claimed for it. Empty: nothing is waiting.

    Given numbers are taken as they are. A run that repeats another goes on with what that one held. Else a
    workflow with a mailbox takes the waiting mails (up to `max_batch`), and any other makes one execution.
    Raises Conflict when other runs hold all given executions, NotFound for an unknown client, and TransientError
    or CredentialError when no mailbox can be read.
    """
    if execution_ids:
        given = work.journal.claim(execution_ids, compiled.version_id)
        if not given and not work.journal.cancelled(execution_ids):
            raise Conflict(
                f"this run has nothing to do: {'; '.join(work.journal.left_alone(execution_ids[:20]))}",
                remedy="look at that run; what failed is tried again by: nova executions retry",
            )
        return given
    held = work.journal.held()
    if held:
        return work.journal.claim(held, compiled.version_id)
    if compiled.folder is not None and not context:
        bring_in_mail(work, compiled, client_slug)
        waiting = _pending(work, compiled, client_slug, max_batch)
    else:
        waiting = [_new(work, compiled, client_slug, context or {})]
    return work.journal.claim(waiting, compiled.version_id)


def bring_in_mail(work: Work, compiled: Compiled, client_slug: str | None) -> None:
    """Scans the mailboxes that feed a workflow and makes its executions."""
    folder = compiled.folder or "INBOX"
    with work.services.databases.nova.read() as session:
        served = [
            (client.id, credential.id)
            for client, credential in mailboxes(session)
            if (client_slug is None or client.slug == client_slug)
            and (compiled.client_slugs is None or client.slug in compiled.client_slugs)
        ]
        if client_slug is not None:
            find_client(session, client_slug)
    errors: list[NovaError] = []
    for _, credential_id in served:
        try:
            scan_mailbox(work.services, credential_id, folder)
        except NovaError as error:
            # its health is recorded; one mailbox that is down keeps no other from being read
            log.warning("mailbox %s: %s", credential_id, error)
            errors.append(error)
    if errors and len(errors) == len(served):
        raise errors[0]
    make_executions(
        work.services,
        workflow_id=compiled.workflow_id,
        version_id=compiled.version_id,
        folder=folder,
        client_ids=sorted({client_id for client_id, _ in served}),
    )


def _pending(work: Work, compiled: Compiled, client_slug: str | None, max_batch: int) -> list[int]:
    query = (
        select(Execution.id)
        .where(
            Execution.workflow_id == compiled.workflow_id,
            Execution.status == "pending",
            Execution.run_id.is_(None),
            due(),
        )
        .order_by(Execution.id)
        .limit(max_batch)
    )
    with work.services.databases.nova.read() as session:
        if client_slug is not None:
            query = query.where(Execution.client_id == find_client(session, client_slug).id)
        return list(session.scalars(query))


def _new(work: Work, compiled: Compiled, client_slug: str | None, context: dict[str, Any]) -> int:
    check_context(context)
    with work.services.databases.nova.session() as session:
        client = find_client(session, client_slug) if client_slug else None
        execution = new_execution(compiled.workflow_id, compiled.version_id, client.id if client else None, context)
        # at once: a run that dies here must find it again, and the sensor must not take it for a waiting one
        execution.run_id = work.journal.run_id
        session.add(execution)
        session.flush()
        return execution.id


def check_context(context: Any) -> None:
    """Refuses an initial context that is no plain JSON object. Raises PermanentError."""
    if not isinstance(context, dict):
        raise PermanentError("the context must be a JSON object", remedy='such as {"amount": 12}')
    try:
        text = canonical_json(context)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise PermanentError(
            f"the context is not plain JSON: {error}", remedy="use finite numbers, texts, lists"
        ) from None
    if len(text) > 8_388_608:
        raise PermanentError("the context is larger than 8 MiB", remedy="pass a reference in place of the data")
