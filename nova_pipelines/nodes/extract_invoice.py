"""The kind `extract_invoice`: reads the execution's PDF. The file is parsed in the sandbox, never here."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar, Literal

from nova_pipelines.adapters.sandbox.base import Job, Limits, Outcome, Status, Task
from nova_pipelines.domain.errors import NeedsPerson, PermanentError
from nova_pipelines.domain.invoice import InvoiceReading
from nova_pipelines.domain.reading import read_invoice
from nova_pipelines.domain.workflow import Node
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.services import Services


class ExtractInvoiceNode(Node):
    """Reads total, currency, number, dates and supplier into `context.invoice`.

    A reading that is not sure goes to a person: along the way `unsure` if the node has the ways `sure` and
    `unsure`, else the execution waits with the status `needs_review`. Nothing doubtful is stored.
    """

    ways: ClassVar[frozenset[str] | None] = frozenset({"sure", "unsure"})

    type: Literal["extract_invoice"]


def run(node: ExtractInvoiceNode, item: Item, services: Services) -> Result:
    document = item.context.get("document")
    if not isinstance(document, dict) or not isinstance(document.get("sha256"), str):
        raise PermanentError(
            f"node {node.id!r} found no document in the context",
            remedy="put a mail_fetch node before it, and a decision on context.has_pdf",
        )
    pages, method = read_pages(node, services.store.get(document["sha256"]), document, item, services)
    reading = read_invoice(pages, today=datetime.now(UTC).date())
    context = item.context | invoice_context(reading, pages, method)
    way = "sure" if reading.sure else "unsure"
    if not reading.sure and way not in item.ways:
        doubts = "; ".join(reading.doubts) or "the total could not be read with confidence"
        raise NeedsPerson(
            f"{document.get('filename', 'the document')}: {doubts}",
            remedy="read the document and decide",
            context=context,
        )
    path = way if item.ways else None
    return Result(context=context, path=path, decision=path, metadata=_facts(reading))


def read_pages(
    node: Node, content: bytes, document: dict[str, Any], item: Item, services: Services
) -> tuple[list[str], str]:
    """The text of each page, and by what it was read. Raises PermanentError for what is no readable PDF."""
    limits = Limits(wall_seconds=node.timeout, cpu_seconds=node.timeout)
    job = Job(task=Task.PDF_TEXT, files={"document.pdf": content}, limits=limits)
    outcome = services.run_job(job)
    name = document.get("filename", "the document")
    if outcome.status is not Status.OK or outcome.result is None:
        raise PermanentError(f"{name} could not be read: {_reason(outcome)}", remedy="ask the sender for another file")
    if outcome.result.get("error"):
        raise PermanentError(
            f"{name}: {outcome.result.get('message') or outcome.result['error']}",
            remedy="ask the sender for another file",
        )
    pages = outcome.result.get("pages")
    if not isinstance(pages, list) or not all(isinstance(page, str) for page in pages):
        raise PermanentError(f"{name}: the reader gave no pages of text")
    return pages, str(outcome.result.get("method", "pypdfium2"))


def _reason(outcome: Outcome) -> str:
    return outcome.error or f"the reader ended as {outcome.status}"


def invoice_context(reading: InvoiceReading, pages: list[str], method: str) -> dict[str, Any]:
    context: dict[str, Any] = {
        "pdf_extracted": True,
        "pdf_text": "\n\f".join(pages),
        "ocr_method": method,
        "invoice": reading.to_context(),
    }
    if reading.sure:  # else the total is a suggestion for the person who looks at it
        context["amount_detected"] = context["invoice"]["total_amount"]
    return context


def _facts(reading: InvoiceReading) -> dict[str, Any]:
    amount = f"{reading.total_amount} {reading.currency}" if reading.sure else "not sure"
    return {"amount": amount, "number": reading.invoice_number or "", "supplier": reading.supplier_name or ""}


KIND = NodeKind(type="extract_invoice", model=ExtractInvoiceNode, run=run, uses_sandbox=True)
