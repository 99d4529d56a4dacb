"""What became of the demo's mails, read from the databases as anybody could, and compared with what must be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import select

from nova_pipelines.compiler.blobs import unpack
from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Blob, ChainRow, Execution, Message
from nova_pipelines.database.session import Databases
from nova_pipelines.demo.mails import DemoMail, Expected

OPEN = ("pending", "running")
#: statuses of a ledger row after which nothing more happens to the mail
SETTLED = ("duplicate", "quarantined")


@dataclass(frozen=True, slots=True)
class Seen:
    """One mail of the ledger with its executions, oldest first."""

    message_id: int
    status: str
    flagged: bool
    executions: tuple[Execution, ...]

    @property
    def done(self) -> bool:
        """Nothing more will happen by itself: flagged, or waiting for a person, or failed."""
        if self.flagged or self.status in SETTLED:
            return True
        ended = [execution.status for execution in self.executions]
        return bool(ended) and not any(s in OPEN for s in ended) and any(s != "completed" for s in ended)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One document (or mail without one): what was expected and what happened."""

    mail: DemoMail
    expected: Expected
    status: str
    execution: Execution | None
    result: dict[str, Any]
    amount: Decimal | None
    invoice: Invoice | None

    @property
    def right(self) -> bool:
        if self.status != self.expected.status:
            return False
        if self.expected.status != "completed":
            return self.invoice is None
        stored = self.invoice.total_amount if self.invoice else None
        return (
            self.amount == self.expected.amount
            and self.result.get("action_taken") == self.expected.action
            and (self.expected.decision is None or self.result.get("decision") == self.expected.decision)
            and (self.expected.row is None or (self.invoice is not None and self.invoice.status == self.expected.row))
            and (self.expected.row is None or stored == self.expected.amount)
        )


def ledger(databases: Databases, mails: Sequence[DemoMail]) -> dict[str, list[Seen]]:
    """Message-ID → its rows in the ledger, oldest first."""
    wanted = {str(mail.message["Message-ID"]) for mail in mails}
    found: dict[str, list[Seen]] = {}
    with databases.nova.read() as session:
        messages = session.scalars(select(Message).where(Message.message_id.in_(wanted)).order_by(Message.id)).all()
        executions = session.scalars(
            select(Execution)
            .where(Execution.message_id.in_([message.id for message in messages]))
            .order_by(Execution.document_ordinal)
        ).all()
        session.expunge_all()
    for message in messages:
        own = tuple(execution for execution in executions if execution.message_id == message.id)
        found.setdefault(str(message.message_id), []).append(
            Seen(message.id, message.status, message.flagged_at is not None, own)
        )
    return found


def outcomes(databases: Databases, mails: Sequence[DemoMail]) -> list[Outcome]:
    """One outcome for each expected document, in the order of the mails."""
    seen = ledger(databases, mails)
    results: list[Outcome] = []
    for mail in mails:
        rows = seen.get(str(mail.message["Message-ID"]), [])
        row = rows.pop(0) if rows else None
        for place, expected in enumerate(mail.expected):
            execution = row.executions[place] if row and place < len(row.executions) else None
            results.append(_outcome(databases, mail, expected, row, execution))
    return results


def _outcome(
    databases: Databases, mail: DemoMail, expected: Expected, row: Seen | None, execution: Execution | None
) -> Outcome:
    result = final_context(databases, execution) if execution else {}
    status = execution.status if execution else row.status if row else "not seen"
    read = result.get("invoice") if isinstance(result.get("invoice"), dict) else {}
    total = read.get("total_amount") if isinstance(read, dict) else None
    return Outcome(
        mail=mail,
        expected=expected,
        status=status,
        execution=execution,
        result=result,
        amount=None if total is None else Decimal(str(total)),
        invoice=_invoice(databases, result.get("invoice_id")) if status == "completed" else None,
    )


def _invoice(databases: Databases, invoice_id: Any) -> Invoice | None:
    if not isinstance(invoice_id, int):
        return None
    with databases.facturas.read() as session:
        invoice = session.get(Invoice, invoice_id)
        session.expunge_all()
        return invoice


def final_context(databases: Databases, execution: Execution) -> dict[str, Any]:
    """The final context of an execution, with big values put back."""
    with databases.nova.read() as session:

        def fetch(digest: str) -> bytes | None:
            blob = session.get(Blob, digest)
            return blob.data if blob else None

        return unpack(execution.result or {}, fetch)


def chain_rows(databases: Databases, execution_id: int) -> list[ChainRow]:
    with databases.nova.read() as session:
        rows = session.scalars(
            select(ChainRow).where(ChainRow.execution_id == execution_id).order_by(ChainRow.seq)
        ).all()
        session.expunge_all()
        return list(rows)


def invoices(databases: Databases, execution_ids: Sequence[int]) -> list[Invoice]:
    with databases.facturas.read() as session:
        rows = session.scalars(
            select(Invoice).where(Invoice.processed_by_execution_id.in_(execution_ids)).order_by(Invoice.id)
        ).all()
        session.expunge_all()
        return list(rows)
