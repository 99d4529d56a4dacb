"""Questions to people as plain data, as the command line, the HTTP API and the pages show them."""

from __future__ import annotations

from typing import Any

from nova_pipelines.compiler.lookup import iso
from nova_pipelines.database.approvals import Listed


def approval_view(listed: Listed) -> dict[str, Any]:
    """One question. Times in ISO, UTC. Nothing by which somebody could decide."""
    row = listed.approval
    return {
        "id": row.id,
        "status": row.status,
        "open": listed.open,
        "title": row.title,
        "role": row.role,
        "facts": row.facts,
        "workflow": listed.workflow,
        "client": listed.client,
        "execution_id": row.execution_id,
        "execution_status": listed.execution.status,
        "node_id": row.node_id,
        "requested_at": iso(row.requested_at),
        "deadline_at": iso(row.deadline_at),
        "on_deadline": row.on_deadline,
        "escalated_at": iso(row.escalated_at),
        "mail_problem": row.mail_problem,
        "decided_at": iso(row.decided_at),
        "decided_by": row.decided_by,
        "decided_via": row.decided_via,
        "note": row.note,
    }
