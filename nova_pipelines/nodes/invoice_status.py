"""The kind `invoice_status`: tells the invoice of an execution what was decided about it."""

from __future__ import annotations

from typing import Literal

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.domain.workflow import Node
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.services import Services


class InvoiceStatusNode(Node):
    """Sets the row `context.invoice_id`, which this execution stored as `pending_approval`, to what was decided.

    Sets `action_taken`: `invoice_approved` or `invoice_rejected`. A row that another execution stored is not touched.
    """

    type: Literal["invoice_status"]
    status: Literal["approved", "rejected"]


def run(node: InvoiceStatusNode, item: Item, services: Services) -> Result:
    number = item.context.get("invoice_id")
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number < 2**31:
        raise PermanentError(
            f"node {node.id!r} found no invoice_id in the context", remedy="put an invoice_write node before it"
        )
    with services.databases.facturas.session() as session:
        row = session.get(Invoice, number, with_for_update=True)
        if row is None or row.processed_by_execution_id != item.execution_id:
            raise PermanentError(
                f"invoice {number} is not one that this execution stored",
                remedy="lead `action_taken: invoice_duplicate` another way, by a decision",
            )
        if row.status not in ("pending_approval", node.status):
            raise PermanentError(f"invoice {number} is {row.status} already, and does not become {node.status}")
        row.status = node.status
    action = f"invoice_{node.status}"
    return Result(
        context=item.context | {"action_taken": action}, metadata={"invoice": number, "amount": "", "action": action}
    )


KIND = NodeKind(type="invoice_status", model=InvoiceStatusNode, run=run, asset="invoices")
