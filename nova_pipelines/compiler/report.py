"""What a person reads about a run in the Dagster UI: tables of items, reasons, the invoice table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg
from sqlalchemy import func, select

from nova_pipelines.compiler.plan import Step
from nova_pipelines.compiler.step import Failure, StepResult
from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Client, Execution, Message
from nova_pipelines.domain.money import format_amount
from nova_pipelines.domain.plain import as_object
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.settling import settle_messages

#: rows of a table in the UI; more would slow its pages
MAX_ROWS = 200
_ADDRESS = re.compile(r"(:(?=//)|www(?=\.))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """An execution as it stands in a run's table."""

    execution_id: int
    status: str
    message_id: int | None
    sender: str
    subject: str
    result: dict[str, Any]
    failed_node: str
    error: str


def run_rows(services: Services, execution_ids: Sequence[int]) -> list[Row]:
    query = (
        select(Execution, Message.sender, Message.subject)
        .outerjoin(Message, Message.id == Execution.message_id)
        .where(Execution.id.in_(execution_ids))
        .order_by(Execution.id)
    )
    with services.databases.nova.read() as session:
        return [
            Row(
                execution_id=execution.id,
                status=execution.status,
                message_id=execution.message_id,
                sender=sender or "",
                subject=subject or "",
                result=execution.result or {},
                failed_node=execution.failed_node or "",
                error=execution.error or "",
            )
            for execution, sender, subject in session.execute(query)
        ]


def settle(services: Services, workflow_id: int, then: str, rows: Sequence[Row]) -> None:
    """Marks on the server the mails of a run that are done."""
    message_ids = [row.message_id for row in rows if row.message_id is not None]
    if message_ids:
        settle_messages(services, workflow_id=workflow_id, then=then, message_ids=message_ids)


def client_slugs(services: Services, execution_ids: Sequence[int]) -> list[str]:
    query = select(Client.slug).join(Execution, Execution.client_id == Client.id).where(Execution.id.in_(execution_ids))
    with services.databases.nova.read() as session:
        return sorted(set(session.scalars(query)))


def cell(value: object, longest: int = 60) -> str:
    """A text as a cell of a Markdown table: hostile subjects must not break it or bring in HTML."""
    text = " ".join(str(value).split())
    text = text if len(text) <= longest else text[: longest - 1] + "…"
    for character in "\\|`*_[]<>":
        text = text.replace(character, {"<": "&lt;", ">": "&gt;"}.get(character, "\\" + character))
    # the UI makes links of bare addresses, whatever is escaped: a word joiner, which is not seen, prevents it
    return _ADDRESS.sub("\\1\u2060", text)


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(headers) + " |", "|" + "---|" * len(headers)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows[:MAX_ROWS]]
    if len(rows) > MAX_ROWS:
        lines.append(f"\n… and {len(rows) - MAX_ROWS} more")
    return "\n".join(lines)


def amount_of(context: dict[str, Any]) -> str:
    invoice = as_object(context.get("invoice"))
    if invoice is None or invoice.get("total_amount") is None:
        return ""
    return format_amount(invoice["total_amount"], str(invoice.get("currency") or ""))


def page_links(numbers: Sequence[int], public_url: str) -> dict[str, Any]:
    """For a run's page: where NOVA shows its executions."""
    if not numbers:
        return {}
    links = [f"[{number}]({public_url}/pages/executions/{number})" for number in sorted(numbers)[:MAX_ROWS]]
    return {"pages": dg.MetadataValue.md(f"The way of execution {', '.join(links)}")}


def outcome_metadata(rows: Sequence[Row]) -> dict[str, Any]:
    headers = (
        "execution",
        "status",
        "from",
        "subject",
        "amount",
        "decision",
        "action",
        "invoice",
        "stopped at",
        "reason",
    )
    body = [
        (
            row.execution_id,
            row.status,
            row.sender,
            row.subject,
            amount_of(row.result),
            row.result.get("decision", ""),
            row.result.get("action_taken", ""),
            row.result.get("invoice_id", ""),
            row.failed_node,
            row.error,
        )
        for row in rows
    ]
    metadata: dict[str, Any] = {"items": dg.MetadataValue.md(table(headers, body)), "executions": len(rows)}
    for status in ("completed", "failed", "needs_review", "unknown"):
        metadata[status] = sum(row.status == status for row in rows)
    links = [
        f"- execution {row.execution_id}: [{cell(document.get('filename', 'document'))}]({document['url']})"
        for row in rows[:MAX_ROWS]
        if (document := as_object(row.result.get("document"))) is not None and isinstance(document.get("url"), str)
    ]
    if links:
        metadata["documents"] = dg.MetadataValue.md("\n".join(links))
    return metadata


def outcome_text(rows: Sequence[Row], waiting: Mapping[int, datetime], deciding: Mapping[int, datetime]) -> str:
    failed = [row for row in rows if row.status in ("failed", "unknown")]
    parts = [f"{sum(row.status == 'completed' for row in rows)} of {len(rows)} executions completed"]
    asking = [str(row.execution_id) for row in rows if row.status == "needs_review"]
    if asking:
        parts.append(f"waiting for a person: {', '.join(asking)}")
    parts += [f"execution {number} goes on after {until:%Y-%m-%d %H:%M} UTC" for number, until in waiting.items()]
    parts += [f"execution {n} waits for a decision until {when:%Y-%m-%d %H:%M} UTC" for n, when in deciding.items()]
    parts += [f"execution {row.execution_id} at {row.failed_node}: {row.error}" for row in failed[:20]]
    if failed:
        parts.append(f"retry with: nova executions retry {' '.join(str(row.execution_id) for row in failed[:20])}")
    return "; ".join(parts)


def failure_text(step: Step, failures: Sequence[Failure]) -> str:
    first = failures[0]
    rest = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
    return f"execution {first.execution_id} at {step.node.id}: {first.error}{rest}"


def failure_metadata(services: Services, failures: Sequence[Failure]) -> dict[str, Any]:
    rows = {row.execution_id: row for row in run_rows(services, [f.execution_id for f in failures])}
    body = [
        (f.execution_id, f.status, rows[f.execution_id].sender, rows[f.execution_id].subject, f.error)
        for f in failures
        if f.execution_id in rows
    ]
    headers = ("execution", "status", "from", "subject", "reason")
    return {"items": dg.MetadataValue.md(table(headers, body)), "failed": len(failures)}


def step_metadata(result: StepResult, execution_ids: Sequence[int]) -> dict[str, Any]:
    metadata: dict[str, Any] = {"executions": len(execution_ids)}
    if result.already_done:
        metadata["already done"] = result.already_done
    facts = {number: result.facts[number] for number in execution_ids if number in result.facts}
    if facts:
        keys = list(next(iter(facts.values())))
        body = [(number, *(fact.get(key, "") for key in keys)) for number, fact in facts.items()]
        metadata["items"] = dg.MetadataValue.md(table(("execution", *keys), body))
    return metadata


def invoice_table(services: Services, facts: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Row count and the newest rows of the invoice table, for its materialization."""
    newest = select(Invoice).order_by(Invoice.id.desc()).limit(10)
    with services.databases.facturas.read() as session:
        count = session.scalar(select(func.count()).select_from(Invoice)) or 0
        rows = [
            (
                invoice.id,
                invoice.supplier_name or "",
                invoice.invoice_number or "",
                invoice.issue_date or "",
                format_amount(invoice.total_amount, invoice.currency),
                invoice.status,
                invoice.email_from or "",
            )
            for invoice in session.scalars(newest)
        ]
    written = sum(fact.get("action") == "invoice_saved" for fact in facts.values())
    headers = ("id", "supplier", "number", "date", "total", "status", "from")
    return {
        "dagster/row_count": count,
        "rows written": written,
        "duplicates": sum(fact.get("action") == "invoice_duplicate" for fact in facts.values()),
        "newest rows": dg.MetadataValue.md(table(headers, rows)),
    }
