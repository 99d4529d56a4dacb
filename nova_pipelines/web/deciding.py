"""A decision from the web: committed once, then the execution's run is asked for at once.

What cannot be asked for now the mailbox sensor asks for: the decision is committed, and nothing is lost.
"""

from __future__ import annotations

import logging
import uuid

from fastapi import HTTPException

from nova_pipelines.compiler.plan import make_plan
from nova_pipelines.compiler.publishing import newest_version
from nova_pipelines.database.approvals import Decided, Decision, Listed, Via, decide, find_approval
from nova_pipelines.database.nova import Workflow
from nova_pipelines.database.run_requests import WATCHED, Batch, give_back
from nova_pipelines.domain.approval_links import PURPOSE, Link, read
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.registry import definition_from
from nova_pipelines.web.access import Principal
from nova_pipelines.web.context import WebContext

log = logging.getLogger("nova.web")


def decide_as(
    context: WebContext, principal: Principal, number: int, decision: Decision, *, note: str | None, via: Via
) -> Decided:
    """The decision of somebody who is logged in, or of a key. Raises NotFound, Conflict, HTTPException (403)."""
    with context.services.databases.nova.read() as session:
        listed = find_approval(session, number, clients=principal.clients)
    if not may_decide(principal, listed):
        raise HTTPException(403, f"this needs the role {listed.approval.role}; {principal.name} has {principal.role}")
    return _commit(context, listed, decision, by=principal.name, via=via, note=note)


def may_decide(principal: Principal, listed: Listed) -> bool:
    return principal.may("admin" if listed.approval.role == "admin" else "operator")


def read_link(context: WebContext, token: str) -> tuple[Link, Listed]:
    """The link of a mail and its question. Raises PermanentError (not ours), Expired, NotFound."""
    link = read(context.services.box().derived(PURPOSE), token)
    with context.services.databases.nova.read() as session:
        return link, find_approval(session, link.approval_id)


def decide_by_link(context: WebContext, token: str, *, note: str | None) -> tuple[Link, Decided]:
    """The decision of whom a mail was sent to. Raises as `read_link`, and Conflict where it was decided before."""
    link, listed = read_link(context, token)
    done = _commit(context, listed, link.answer, by=link.address, via="link", note=note, nonce=link.nonce)
    return link, done


def _commit(
    context: WebContext,
    listed: Listed,
    decision: Decision,
    *,
    by: str,
    via: Via,
    note: str | None,
    nonce: str | None = None,
) -> Decided:
    key = f"{WATCHED}{uuid.uuid4().hex}"
    with context.services.databases.nova.session() as session:
        done = decide(session, listed.approval.id, decision, by=by, via=via, note=note, run_key=key, nonce=nonce)
    log.info("approval %d is %s by %s (%s)", done.approval_id, done.status, by, via)
    if done.goes_on:
        _launch(context, listed, Batch(key, done.workflow_id, (done.execution_id,), listed.client))
    return done


def _launch(context: WebContext, listed: Listed, batch: Batch) -> None:
    nova = context.services.databases.nova
    try:
        with nova.read() as session:
            version = newest_version(session, session.get_one(Workflow, batch.workflow_id))
        start = make_plan(definition_from(version.definition, source=listed.job_name)).steps[0].name
        asked = context.dagster.launch(listed.job_name, start, batch)
    except NovaError as error:
        give_back(nova, batch.key)
        log.warning("execution %d is left to the sensor: %s", batch.executions[0], error)
        return
    if asked.outcome == "refused":
        give_back(nova, batch.key)
    if asked.outcome != "started":
        log.warning("execution %d is left to the sensor: %s", batch.executions[0], asked.text)
