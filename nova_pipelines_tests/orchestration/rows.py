"""Rows of both databases for the tests of reports and checks, each valid until a test changes it."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import ChainRow, Client, Credential, Execution, Message, Workflow, WorkflowVersion

HOSTILE = '<img src=x onerror="alert(1)">| a | [click](javascript:x) `$x^{$` **中** https://evil.example'
_numbers = count(1)


def add_invoice(databases, **values):
    """Stores an invoice of its own supplier and document; returns its id."""
    number = next(_numbers)
    row = {
        "client_slug": "idom",
        "supplier_name": f"Supplier {number}",
        "supplier_tax_id": f"B{number:08}",
        "invoice_number": f"F-{number}",
        "document_sha256": f"{number:064x}",
        "total_amount": Decimal("121.00"),
        "currency": "EUR",
        "processed_by_execution_id": None,
        "processed_by_node_id": "save",
    } | values
    for key in ("net_amount", "tax_amount", "total_amount"):
        if isinstance(row.get(key), str):
            row[key] = Decimal(row[key])
    with databases.facturas.session() as session:
        invoice = Invoice(**row)
        session.add(invoice)
        session.flush()
        return invoice.id


def add_workflow(databases):
    """A client with a mailbox, and a workflow: (client, credential, workflow, version) ids."""
    with databases.nova.session() as session:
        client = Client(name="IDOM", slug="idom")
        session.add(client)
        session.flush()
        credential = Credential(client_id=client.id, kind="email", secret=b"x")
        workflow = Workflow(name="Invoice Processing", job_name="invoice_processing", graph_definition={})
        session.add_all([credential, workflow])
        session.flush()
        version = WorkflowVersion(
            workflow_id=workflow.id,
            number=1,
            revision=1,
            definition={},
            source="{}",
            source_format="json",
            sha256="0" * 64,
        )
        session.add(version)
        session.flush()
        return client.id, credential.id, workflow.id, version.id


def add_message(databases, ids, *, age=timedelta(0), **values):
    with databases.nova.session() as session:
        message = Message(
            client_id=ids[0],
            credential_id=ids[1],
            **{"folder": "INBOX", "uidvalidity": 1, "uid": next(_numbers), "subject": "Factura"}
            | {"created_at": datetime.now(UTC) - age}
            | values,
        )
        session.add(message)
        session.flush()
        return message.id


def add_execution(databases, ids, *, wrote=None, age=timedelta(0), **values):
    """An execution; `wrote`: (action, invoice id) that the node `save` recorded in its chain of work."""
    with databases.nova.session() as session:
        execution = Execution(
            task_id=f"task-{next(_numbers)}",
            workflow_id=ids[2],
            version_id=ids[3],
            client_id=ids[0],
            created_at=datetime.now(UTC) - age,
            **{"status": "completed"} | values,
        )
        session.add(execution)
        session.flush()
        if wrote is not None:
            execution.chain_length = 1
            session.add(_chain_row(execution.id, *wrote))
        return execution.id


def _chain_row(execution_id, action, invoice_id):
    return ChainRow(
        execution_id=execution_id,
        seq=1,
        node_id="save",
        node_type="invoice_write",
        input_context={},
        output_result={"action_taken": action, "invoice_id": invoice_id},
        execution_time=0.1,
        status="success",
        timestamp=datetime.now(UTC),
        prev_hash="0" * 64,
        hash="1" * 64,
    )
