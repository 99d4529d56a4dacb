"""A NOVA of its own for a benchmark: databases in a temporary folder, stored mails that wait for a run."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path

from nova_pipelines.adapters.mime import parse_mail
from nova_pipelines.compiler.catalog import compile_version
from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.database.migrate import migrate
from nova_pipelines.database.nova import Credential, Message, MessageDocument
from nova_pipelines.database.workflows import publish
from nova_pipelines.demo.pdfs import InvoiceSpec, Line, Party, draw_invoice
from nova_pipelines.nodes.assignment import make_executions
from nova_pipelines.nodes.mail_download import mail_fields
from nova_pipelines.nodes.registry import read_definition
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings

ROOT = Path(__file__).parents[1]


@contextmanager
def bench_home(nova_url: str | None = None, facturas_url: str | None = None) -> Iterator[Services]:
    """A migrated NOVA_HOME (and DAGSTER_HOME) for this process and its children, gone afterwards; with databases of
    its own, unless others are named."""
    with tempfile.TemporaryDirectory(prefix="nova-bench-") as folder:
        home = Path(folder)
        for name in ("DATABASE_URL", "FACTURAS_DATABASE_URL", "E2B_API_KEY", "NOVA_SECRET_KEY"):
            os.environ.pop(name, None)
        os.environ |= {"NOVA_HOME": str(home), "DAGSTER_HOME": str(home / "dagster"), "NOVA_MAX_BATCH": "200"}
        if nova_url and facturas_url:
            os.environ |= {"DATABASE_URL": nova_url, "FACTURAS_DATABASE_URL": facturas_url}
        (home / "dagster").mkdir()
        (home / "dagster" / "dagster.yaml").write_text((ROOT / "nova_pipelines" / "cli" / "dagster.yaml").read_text())
        settings = load_settings()
        migrate(settings)
        services = build_services(settings)
        try:
            yield services
        finally:
            services.close()
            services.databases.close()


def publish_text(services: Services, text: str) -> Compiled:
    definition = read_definition(text)
    with services.databases.nova.session() as session:
        version = publish(
            session,
            name=definition.name,
            job_name=definition.job_name,
            description=None,
            definition=definition.canonical(),
            source=text,
            source_format="yaml",
        )
        ids = version.workflow_id, version.id, version.number
    return compile_version(
        definition.canonical(), workflow_id=ids[0], version_id=ids[1], version=ids[2], source=definition.name
    )[1]


def invoice_workflow(services: Services) -> Compiled:
    """The Invoice Processing workflow, but without touching a mail server at the end."""
    text = (ROOT / "workflows" / "invoice_processing.yaml").read_text()
    return publish_text(services, text.replace("then: mark_as_read", "then: nothing"))


def add_mailbox(services: Services) -> int:
    with services.databases.nova.session() as session:
        client = add_client(session, name="Bench", slug="bench")
        credential = set_credential(
            session,
            services.box(),
            client,
            "email",
            settings={"imap_host": "127.0.0.1", "user": "bench", "address": "bench@example.com"},
            secret={"password": "unused"},
        )
        return credential.id


def waiting_mails(services: Services, compiled: Compiled, credential_id: int, count: int, *, first: int) -> list[int]:
    """`count` stored mails with a one-page PDF each, as the sensor leaves them, and their executions."""
    for number in range(first, first + count):
        spec = InvoiceSpec(
            supplier=Party("Suministros Ibéricos S.L.", "B12345674"),
            client=Party("IDOM", "A48283964"),
            number=f"F-{number}",
            issued=date(2026, 11, 2),
            lines=(Line("Material de oficina", Decimal(1), Decimal(200) + Decimal(number) / 100),),
        )
        mail = EmailMessage()
        mail["From"], mail["Subject"] = "ana@proveedores.example", f"Factura {number}"
        mail["Message-ID"], mail["Date"] = f"<{number}@bench>", datetime(2026, 11, 2, tzinfo=UTC)
        mail.set_content("Adjunto.")
        pdf = draw_invoice(spec)
        mail.add_attachment(pdf, maintype="application", subtype="pdf", filename=f"{number}.pdf")
        digest, document = services.store.put(mail.as_bytes()), services.store.put(pdf)
        with services.databases.nova.session() as session:
            message = Message(
                credential_id=credential_id,
                client_id=session.get_one(Credential, credential_id).client_id,
                folder="INBOX",
                uidvalidity=1,
                uid=number + 1,
                message_id=mail["Message-ID"],
                sha256=digest,
                sender="ana@proveedores.example",
                mail=mail_fields(parse_mail(mail.as_bytes())),
                status="stored",
                documents=[
                    MessageDocument(
                        ordinal=0,
                        filename=f"{number}.pdf",
                        media_type="application/pdf",
                        sha256=document,
                        size=len(pdf),
                        is_pdf=True,
                    )
                ],
            )
            session.add(message)
    return make_executions(
        services, workflow_id=compiled.workflow_id, version_id=compiled.version_id, folder="INBOX", limit=count
    )
