"""The kind `approval`: people are asked, and the execution waits for their answer without holding a run.

The question is a row; the run ends, and another one goes on from here when somebody has answered or time is up.
"""

from __future__ import annotations

import logging
import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from nova_pipelines.adapters.mail_headers import clean_line
from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.approvals import Question, ask
from nova_pipelines.domain.durations import seconds_of
from nova_pipelines.domain.errors import AwaitsDecision, PermanentError, Unavailable
from nova_pipelines.domain.money import format_amount
from nova_pipelines.domain.workflow import Node, one_line
from nova_pipelines.nodes.approval_mail import tell
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.services import Services

log = logging.getLogger("nova.approval")

DAY = 86_400.0
_ADDRESS = re.compile(r"[^\s<>@,;\x00-\x1f\x7f]+@[^\s<>@,;\x00-\x1f\x7f]+")


def _address(text: str) -> str:
    if not _ADDRESS.fullmatch(text):
        raise ValueError("must be a mail address such as ana@example.com")
    return text


def _bounded(seconds: float) -> float:
    if not 1 <= seconds <= 365 * DAY:
        raise ValueError("must be between a second and a year")
    return seconds


Duration = Annotated[
    float,
    BeforeValidator(seconds_of),
    AfterValidator(_bounded),
    WithJsonSchema({"type": ["number", "string"]}),
]
Address = Annotated[str, Field(min_length=3, max_length=254), AfterValidator(one_line), AfterValidator(_address)]
Addresses = Annotated[list[Address], Field(max_length=20)]


class ApprovalNode(Node):
    """Waits until somebody approves or rejects, in the pages, by a link in a mail, by the API or the command line.

    Ways: `approved` and `rejected`, and `expired` if there is one. `deadline` in seconds or as `"3d"`; `then` is what
    comes after it: `expired` (that way; without it the execution fails), `approve`, `reject`, `fail`, or `escalate`
    (`escalate_to` is asked for as long again, and then it is `expired`). `to` gets mails with links.
    """

    ways: ClassVar[frozenset[str] | None] = frozenset({"approved", "rejected"})
    more_ways: ClassVar[frozenset[str]] = frozenset({"expired"})

    type: Literal["approval"]
    deadline: Duration = 7 * DAY
    then: Literal["expired", "approve", "reject", "fail", "escalate"] = "expired"
    to: Addresses = Field(default_factory=list)
    escalate_to: Addresses = Field(default_factory=list)
    role: Literal["operator", "admin"] = "operator"


def run(node: ApprovalNode, item: Item, services: Services) -> Result:
    question = Question(
        title=(node.label or node.id)[:200],
        role=node.role,
        facts=facts_of(item.context),
        deadline_seconds=node.deadline,
        on_deadline=node.then,
    )
    with services.databases.nova.session() as session:
        row = ask(session, item.execution_id, node.id, question)
    if row.status == "pending":
        raise _waits(node, item, services, row)
    return _answered(node, item, row)


def _waits(node: ApprovalNode, item: Item, services: Services, row: Approval) -> AwaitsDecision | Unavailable:
    later = tell(services, row, item, [*node.to, *(node.escalate_to if row.escalated_at else ())])
    if later is not None:
        # only the mail waits for its server: whoever sees the question in the pages can answer it meanwhile
        return Unavailable(
            f"approval {row.id} is asked for, and a mail about it waits: {later.message}",
            after_seconds=later.after_seconds,
        )
    return AwaitsDecision(
        f"approval {row.id}, {row.title!r}", until=row.deadline_at, remedy=f"nova approvals show {row.id}"
    )


def _answered(node: ApprovalNode, item: Item, row: Approval) -> Result:
    if row.status == "expired" and (node.then == "fail" or "expired" not in item.ways):
        raise PermanentError(
            f"nobody decided about approval {row.id} until {row.deadline_at:%Y-%m-%d %H:%M} UTC",
            remedy=f"nova executions retry {item.execution_id} asks once more",
        )
    answer = {
        "id": row.id,
        "decision": row.status,
        "by": row.decided_by,
        "via": row.decided_via,
        "at": row.decided_at.isoformat() if row.decided_at else None,
        "note": row.note,
        "requested_at": row.requested_at.isoformat(),
        "deadline_at": row.deadline_at.isoformat(),
    }
    said = f": {clean_line(row.note, 120)}" if row.note else ""
    decision = f"{row.status} by {clean_line(row.decided_by or '', 60)} ({row.decided_via}){said}"[:200]
    return Result(
        context=item.context | {"approval": answer},
        path=row.status,
        decision=decision,
        metadata={"decision": row.status, "by": row.decided_by or "", "via": row.decided_via or ""},
    )


def facts_of(context: dict[str, Any]) -> dict[str, Any]:
    """What is shown to whoever decides, of invoice, mail and document: short texts, whatever a context holds."""
    invoice, email, document = (_object(context.get(name)) for name in ("invoice", "email", "document"))
    total, currency = invoice.get("total_amount"), _short(invoice.get("currency"))
    found = {
        "amount": format_amount(total, currency or "") if isinstance(total, int | float) else None,
        # once more as they are, for a page in another language
        "total": str(total) if isinstance(total, int | float) else None,
        "currency": currency,
        "supplier": _short(invoice.get("supplier_name")),
        "tax_id": _short(invoice.get("supplier_tax_id")),
        "number": _short(invoice.get("invoice_number")),
        "issue_date": _short(invoice.get("issue_date")),
        "due_date": _short(invoice.get("due_date")),
        "from": _short(email.get("from")),
        "subject": _short(email.get("subject")),
        "document": _short(document.get("filename")),
        "invoice_id": context.get("invoice_id") if isinstance(context.get("invoice_id"), int) else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _short(value: Any) -> str | None:
    return clean_line(value, 300) or None if isinstance(value, str) else None


KIND = NodeKind(type="approval", model=ApprovalNode, run=run)
