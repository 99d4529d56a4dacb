"""The mails of the demo, each with what NOVA must make of it. Sends them; never looks how NOVA reads them."""

from __future__ import annotations

import smtplib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Literal, cast

from nova_pipelines.demo.pdfs import InvoiceSpec, Line, Party, broken_pdf, draw_invoice, draw_scan
from nova_pipelines.demo.servers import CLIENT_ADDRESS, DemoServers

#: who may write to the demo's client
WHITELIST = ("@proveedores.example", "@acme.example")

CLIENT = Party("IDOM Consulting, S.L.", "B12345674", ("Paseo de la Castellana 10", "28046 Madrid"))
PAPER = Party("Papelería Sol, S.L.", "B76543214", ("Calle de Alcalá 45", "28014 Madrid"))
TRAVEL = Party("Viajes Norte, S.A.", "A87654323", ("Gran Vía 12", "48001 Bilbao"))
FREELANCER = Party("Lucía Ferrer Ortiz", "12345678Z", ("Calle Mar 8, 3.º B", "46003 Valencia"))
ACME = Party("Acme Software Ltd.", "IE1234567T", ("1 Harbour Square", "Dublin 2", "Ireland"))
NORDIC = Party("Acme Nordic AB", "SE123456789701", ("Storgatan 4", "111 23 Stockholm", "Sweden"))
STRANGER = Party("Ofertas Increíbles, S.L.", "B87654323", ("Calle Luna 1", "41001 Sevilla"))

#: decoded, it holds a line break and a header of its own; pasted into code, it would run `id`
HOSTILE_SUBJECT = (
    b"Subject: Factura \"urgente\" de 'Lucia' '''+__import__('os').system('id')+'''\r\n"
    b" {{ 7*7 }} ${7*7} =?utf-8?q?l=C3=ADnea=0D=0ABcc=3A_otro=40ajeno=2Eexample?=\r\n"
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What NOVA must make of one document, or of a mail without one.

    `status` is the execution's, or `duplicate` for a mail that the ledger has seen before and that gets
    no execution. `action` is the final context's `action_taken`; `row` the status of the invoice's row.
    """

    document: str | None = None
    status: Literal["completed", "needs_review", "failed", "duplicate"] = "completed"
    amount: Decimal | None = None
    currency: str | None = None
    decision: Literal["low_amount", "high_amount"] | None = None
    action: Literal["invoice_saved", "invoice_duplicate", "email_sent"] | None = None
    invoice_number: str | None = None
    row: Literal["accepted", "pending_approval"] | None = None

    @property
    def answered(self) -> bool:
        """Whether the sender gets a mail."""
        return self.action == "email_sent"


@dataclass(frozen=True, slots=True)
class DemoMail:
    name: str
    description: str
    sender: str
    message: EmailMessage
    expected: tuple[Expected, ...]


def demo_mails(*, series: str = "", now: datetime | None = None) -> list[DemoMail]:
    """The mails in the order in which they are to be sent. The same arguments give the same bytes.

    `series` makes Message-IDs and invoice numbers new, for a demo that goes on in a mailbox and database
    that have seen the mails before. `now` (aware; default: this moment) dates mails and invoices.
    """
    writer = _Writer(series, now or datetime.now(UTC))
    return [*_amounts(writer), *_troubles(writer), *_repeats(writer), _hostile(writer)]


def send_all(servers: DemoServers, mails: Iterable[DemoMail]) -> None:
    """Sends the mails as their senders would. Raises smtplib.SMTPException when one is refused."""
    where = (servers.smtp_host, servers.smtp_port)
    # the name: else smtplib asks the name service for this machine's, without a timeout
    with smtplib.SMTP(*where, local_hostname="localhost", timeout=30) as smtp:
        for mail in mails:
            smtp.sendmail(mail.sender, [CLIENT_ADDRESS], mail.message.as_bytes(policy=SMTP))


@dataclass(frozen=True, slots=True)
class _Attachment:
    name: str
    content: bytes
    subtype: str = "pdf"


class _Writer:
    """Makes invoices and mails of one series, with dates that count back from `now`."""

    def __init__(self, series: str, now: datetime) -> None:
        self._suffix = f"-{series}" if series else ""
        self._now = now.astimezone(UTC).replace(microsecond=0)

    def invoice(
        self, supplier: Party, number: str, days_ago: int, lines: Sequence[tuple[str, str, str]],
        *, rate: str = "21", withholding: str | None = None, language: Literal["es", "en"] = "es",
    ) -> InvoiceSpec:  # fmt: skip
        """`lines`: description, quantity, price."""
        return InvoiceSpec(
            supplier=supplier,
            client=CLIENT,
            number=number + self._suffix,
            issued=(self._now - timedelta(days=days_ago)).date(),
            lines=tuple(Line(text, Decimal(quantity), Decimal(price)) for text, quantity, price in lines),
            tax_rate=Decimal(rate),
            withholding_rate=None if withholding is None else Decimal(withholding),
            language=language,
        )

    def message(self, name: str, sender: str, subject: str, body: str, *files: _Attachment) -> EmailMessage:
        message = EmailMessage(policy=SMTP)
        message["From"] = sender
        message["To"] = CLIENT_ADDRESS
        message["Subject"] = subject
        message["Date"] = format_datetime(self._now)
        message["Message-ID"] = f"<{name}{self._suffix}@{sender.partition('@')[2]}>"
        message.set_content(body, cte="quoted-printable")
        for file in files:
            kind = "application"
            message.add_attachment(file.content, maintype=kind, subtype=file.subtype, filename=file.name)
        if files:
            message.set_boundary(f"=_nova_{name}")  # else a random one
        return message


def _read(spec: InvoiceSpec, document: str) -> Expected:
    """The rule of the Invoice Processing workflow: above 1,000 a person approves and the sender is told."""
    high = spec.total > 1000
    return Expected(
        document=document,
        amount=spec.total,
        currency=spec.currency,
        decision="high_amount" if high else "low_amount",
        action="email_sent" if high else "invoice_saved",
        invoice_number=spec.number,
        row="pending_approval" if high else "accepted",
    )


def _plain_mail(
    writer: _Writer, name: str, description: str, sender: str, spec: InvoiceSpec, document: str
) -> DemoMail:
    """One ordinary mail with one invoice."""
    spanish = spec.language == "es"
    subject = f"Factura {spec.number}" if spanish else f"Invoice {spec.number}"
    body = "Adjuntamos nuestra factura.\nUn saludo,\n" if spanish else "Please find our invoice attached.\n\n"
    message = writer.message(
        name, sender, subject, f"{body}{spec.supplier.name}\n", _Attachment(document, draw_invoice(spec))
    )
    return DemoMail(name, description, sender, message, (_read(spec, document),))


def _amounts(writer: _Writer) -> list[DemoMail]:
    """Invoices whose amounts are read and decided upon."""
    paper = writer.invoice(PAPER, "2026/0142", 12, [("Papel A4 80 g, caja", "4", "32.50"), ("Tóner negro", "1", "70")])
    software = writer.invoice(ACME, "INV-20877", 41, [("Support plan, monthly", "2", "350")], language="en")
    travel = writer.invoice(TRAVEL, "V-3391", 7, [("Viaje de empresa, 24 plazas", "1", "13636.36")], rate="10")
    nordic = writer.invoice(NORDIC, "N-5512", 20, [("Consulting, days", "10", "1000")], rate="25", language="en")
    limit = writer.invoice(PAPER, "2026/0158", 3, [("Mobiliario de oficina", "1", "826.45")])
    office, partner = "facturas@proveedores.example", "billing@acme.example"
    return [
        _plain_mail(writer, "low-es", "242,00 € in Spanish", office, paper, "factura-0142.pdf"),
        _plain_mail(writer, "low-en", "EUR 847.00 in English", partner, software, "invoice-20877.pdf"),
        _plain_mail(writer, "high-es", "15.000,00 € in Spanish", office, travel, "Factura nº V-3391.pdf"),
        _plain_mail(writer, "high-en", "EUR 12,500.00 in English", partner, nordic, "N-5512.PDF"),
        _plain_mail(writer, "at-limit", "1.000,00 €, exactly the limit", office, limit, "factura-0158.pdf"),
        _two_pdfs(writer),
    ]


def _two_pdfs(writer: _Writer) -> DemoMail:
    """One low and one high invoice of a freelancer; one of them sent as a mere stream of bytes."""
    sender = "lucia@proveedores.example"
    low = writer.invoice(FREELANCER, "LF-31", 70, [("Traducción técnica, páginas", "25", "20")], withholding="15")
    high = writer.invoice(FREELANCER, "LF-32", 38, [("Curso de inglés, horas", "60", "50")])
    files = (
        _Attachment("LF-31.pdf", draw_invoice(low)),
        _Attachment("LF-32.pdf", draw_invoice(high), subtype="octet-stream"),
    )
    message = writer.message("two-pdfs", sender, "Facturas LF-31 y LF-32", "Van las dos facturas.\n", *files)
    expected = (_read(low, "LF-31.pdf"), _read(high, "LF-32.pdf"))
    return DemoMail("two-pdfs", "two PDFs, 530,00 € and 3.630,00 €", sender, message, expected)


def _troubles(writer: _Writer) -> list[DemoMail]:
    """Mails from which no invoice can be stored."""
    office = "facturas@proveedores.example"
    note = writer.message("no-pdf", office, "Factura de mayo", "La factura va en el próximo correo.\n")
    told = Expected(action="email_sent")

    stranger = "ventas@desconocidos.example"
    offer = writer.invoice(STRANGER, "O-1", 1, [("Oferta", "1", "99")])
    unasked = writer.message(
        "not-whitelisted", stranger, "Su factura", "¡Pague hoy!\n", _Attachment("factura.pdf", draw_invoice(offer))
    )  # fmt: skip

    lost = writer.invoice(PAPER, "2026/0160", 2, [("Archivadores", "10", "4.20")])
    broken = writer.message(
        "broken-pdf", office, "Factura 2026/0160", "Adjunta.\n", _Attachment("rota.pdf", broken_pdf(lost))
    )
    scan = writer.message("scan", office, "Factura escaneada", "Escaneada.\n", _Attachment("escaneo.pdf", draw_scan()))
    return [
        DemoMail("no-pdf", "no PDF attached", office, note, (told,)),
        DemoMail("not-whitelisted", "sender not on the whitelist", stranger, unasked, (told,)),
        DemoMail("broken-pdf", "half a PDF", office, broken, (Expected("rota.pdf", "failed"),)),
        DemoMail("scan", "a scan without text", office, scan, (Expected("escaneo.pdf", "needs_review"),)),
    ]


def _repeats(writer: _Writer) -> list[DemoMail]:
    """A mail that comes twice, and one document that comes in two mails."""
    partner = "billing@acme.example"
    spec = writer.invoice(ACME, "INV-20901", 9, [("Licence, seats", "3", "120")], language="en")
    first = _plain_mail(writer, "once", "EUR 435.60, sent twice", partner, spec, "invoice-20901.pdf")
    again = DemoMail(
        "once-again", "the same mail a second time", partner, first.message,
        (Expected("invoice-20901.pdf", "duplicate"),),
    )  # fmt: skip
    stored = first.expected[0]
    reminder = writer.message(
        "reminder", partner, f"Reminder: {spec.number}", "Has our invoice reached you?\n",
        _Attachment("invoice-20901.pdf", draw_invoice(spec)),
    )  # fmt: skip
    repeated = Expected(
        stored.document, "completed", stored.amount, stored.currency, stored.decision,
        "invoice_duplicate", stored.invoice_number,
    )  # fmt: skip
    return [
        first,
        again,
        DemoMail("reminder", "the same invoice in a new mail", partner, reminder, (repeated,)),
    ]


def _hostile(writer: _Writer) -> DemoMail:
    """A high amount, so that the subject also comes back in the answer."""
    sender = "lucia@proveedores.example"
    spec = writer.invoice(FREELANCER, "LF-33", 5, [("Traducción jurada, páginas", "55", "40")])
    mail = _plain_mail(writer, "hostile-subject", "a subject that attacks", sender, spec, "LF-33.pdf")
    plain = f"Subject: {mail.message['Subject']}\r\n".encode()
    raw = mail.message.as_bytes(policy=SMTP).replace(plain, HOSTILE_SUBJECT, 1)
    message = cast("EmailMessage", message_from_bytes(raw, policy=SMTP))
    return DemoMail(mail.name, mail.description, sender, message, mail.expected)
