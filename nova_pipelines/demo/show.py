"""The tables that the demo prints."""

from __future__ import annotations

from collections.abc import Sequence
from email.message import EmailMessage

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import ChainRow
from nova_pipelines.demo.results import Outcome
from nova_pipelines.domain.money import format_amount

#: characters of a cell that is never folded
SHORT = 17


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[int] = ()) -> Table:
    """A table that stays readable at 80 columns: short cells keep to one line, texts fold."""
    result = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for place, column in enumerate(columns):
        longest = max((len(str(row[place] or "")) for row in rows), default=0)
        result.add_column(
            column, justify="right" if place in right else "left", overflow="fold", no_wrap=longest <= SHORT
        )
    for row in rows:
        result.add_row(*(escape("" if value is None else str(value)) for value in row))
    return result


def amount(outcome: Outcome) -> str:
    if outcome.amount is None:
        return "–"
    return format_amount(outcome.amount, str(outcome.result["invoice"].get("currency") or ""))


def mails_table(outcomes: Sequence[Outcome]) -> Table:
    rows = [
        (
            outcome.mail.name,
            amount(outcome),
            outcome.result.get("decision") if outcome.amount is not None else "–",
            outcome.invoice.invoice_number if outcome.invoice else "–",
            "✓" if outcome.right else "✗",
            what_was_done(outcome),
        )
        for outcome in outcomes
    ]
    columns = ("mail", "amount", "decision", "invoice", "ok", "what was done")
    return table("Every mail, and what became of it", columns, rows, right=(1,))


def what_was_done(outcome: Outcome) -> str:
    if outcome.status == "duplicate":
        return "known mail, nothing done"
    if outcome.status in ("failed", "needs_review"):
        word = "failed" if outcome.status == "failed" else "waits for a person"
        reason = (outcome.execution.error or "") if outcome.execution else ""
        return f"{word}: {reason.partition(': ')[2].partition(' (')[0]}"
    action = str(outcome.result.get("action_taken", outcome.status))
    stored = f", {outcome.invoice.status}" if outcome.invoice and action == "email_sent" else ""
    return (action + stored).replace("_", " ")


def answers_table(answers: Sequence[EmailMessage]) -> Table:
    rows = [(answer["To"], answer["Subject"], _first_line(answer)) for answer in answers]
    return table("The answers that were mailed", ("to", "subject", "text"), rows)


def _first_line(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    lines = body.get_content().strip().splitlines() if body else []
    return str(lines[0]) if lines else ""


def chain_table(execution_id: int, rows: Sequence[ChainRow]) -> Table:
    body = [
        (
            row.seq,
            row.node_id,
            row.status,
            row.decision_result,
            row.path_taken,
            f"{row.execution_time * 1000:.1f}",
            row.hash[:12],
        )
        for row in rows
    ]
    columns = ("#", "node", "status", "decision", "path", "ms", "hash")
    return table(f"Chain of work of execution {execution_id}", columns, body, right=(0, 5))


def invoices_table(invoices: Sequence[Invoice]) -> Table:
    body = [
        (
            invoice.id,
            invoice.supplier_name,
            invoice.invoice_number,
            invoice.issue_date,
            format_amount(invoice.total_amount, invoice.currency),
            invoice.status,
        )
        for invoice in invoices
    ]
    return table("Rows of facturas", ("id", "supplier", "number", "date", "total", "status"), body, right=(0, 4))


def print_all(
    console: Console,
    outcomes: Sequence[Outcome],
    answers: Sequence[EmailMessage],
    chain: tuple[int, Sequence[ChainRow]],
    invoices: Sequence[Invoice],
) -> None:
    for item in (
        mails_table(outcomes),
        answers_table(answers),
        chain_table(*chain),
        invoices_table(invoices),
    ):
        console.print()
        console.print(item)
