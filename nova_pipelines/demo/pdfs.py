"""Draws the invoices of the demo as PDF, as a small firm would send them.

Knows nothing of mail or NOVA. The same spec gives the same bytes (with one version of fpdf2).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fpdf import FPDF

CENT = Decimal("0.01")
#: millimetres of the columns description, quantity, price, amount: together the width between the margins
COLUMNS = (90, 22, 34, 34)
GREY, BLUE, PALE = (110, 110, 110), (28, 69, 112), (233, 239, 246)
SYMBOLS = {"EUR": "€", "USD": "$", "GBP": "£"}


def to_cents(value: Decimal) -> Decimal:
    return value.quantize(CENT, ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Party:
    """A firm or a person on an invoice."""

    name: str
    tax_id: str
    address: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """One line of an invoice, without tax."""

    description: str
    quantity: Decimal
    price: Decimal

    @property
    def amount(self) -> Decimal:
        return to_cents(self.quantity * self.price)


@dataclass(frozen=True, slots=True)
class InvoiceSpec:
    """What stands on an invoice. Rates are percentages; every sum is rounded to the cent, half up."""

    supplier: Party
    client: Party
    number: str
    issued: date
    lines: tuple[Line, ...]
    tax_rate: Decimal = Decimal(21)
    #: IRPF, which Spanish clients keep back from a freelancer's invoice
    withholding_rate: Decimal | None = None
    language: Literal["es", "en"] = "es"
    currency: str = "EUR"

    @property
    def due(self) -> date:
        return self.issued + timedelta(days=30)

    @property
    def net(self) -> Decimal:
        return sum((line.amount for line in self.lines), Decimal(0))

    @property
    def tax(self) -> Decimal:
        return to_cents(self.net * self.tax_rate / 100)

    @property
    def withholding(self) -> Decimal:
        return to_cents(self.net * (self.withholding_rate or Decimal(0)) / 100)

    @property
    def total(self) -> Decimal:
        """What is to be paid."""
        return self.net + self.tax - self.withholding


#: the fixed texts; amounts stand behind them in the style of the language
TEXTS = {
    "es": {
        "title": "FACTURA", "number": "Factura nº", "issued": "Fecha", "due": "Vencimiento",
        "tax_id": "NIF", "client": "Cliente", "columns": ("Concepto", "Cantidad", "Precio", "Importe"),
        "net": "Base imponible", "tax": "IVA {rate} %", "withholding": "Retención IRPF {rate} %",
        "total": "TOTAL FACTURA", "footer": "Forma de pago: transferencia bancaria a 30 días.",
    },
    "en": {
        "title": "INVOICE", "number": "Invoice no.", "issued": "Invoice date", "due": "Due date",
        "tax_id": "VAT ID", "client": "Bill to", "columns": ("Description", "Quantity", "Price", "Amount"),
        "net": "Subtotal", "tax": "VAT {rate}%", "withholding": "Withholding tax {rate}%",
        "total": "Total due:", "footer": "Payment by bank transfer within 30 days.",
    },
}  # fmt: skip


def format_number(value: Decimal, language: str, places: int = 2) -> str:
    """`1.234,56` in Spanish, `1,234.56` in English."""
    text = f"{value:,.{places}f}"
    return text.translate(str.maketrans(",.", ".,")) if language == "es" else text


def format_money(value: Decimal, spec: InvoiceSpec) -> str:
    """`1.234,56 €` in Spanish, `EUR 1,234.56` in English."""
    number = format_number(value, spec.language)
    if spec.language == "es":
        return f"{number} {SYMBOLS.get(spec.currency, spec.currency)}"
    return f"{spec.currency} {number}"


def format_rate(value: Decimal, language: str) -> str:
    return format_number(value, language, 0 if value == value.to_integral_value() else 1)


def format_date(value: date, language: str) -> str:
    return f"{value:%d/%m/%Y}" if language == "es" else f"{value.day} {value:%B %Y}"


def draw_invoice(spec: InvoiceSpec) -> bytes:
    """One page A4. Raises ImportError without the `demo` extra."""
    pdf = _new_page(spec.issued)
    pdf.set_title(f"{TEXTS[spec.language]['title']} {spec.number}")
    _draw_heads(pdf, spec)
    _draw_lines(pdf, spec)
    _draw_sums(pdf, spec)
    pdf.set_y(-30)
    _write(pdf, 0, 5, str(TEXTS[spec.language]["footer"]), size=8, color=GREY)
    return bytes(pdf.output())


def draw_scan() -> bytes:
    """A page of grey bars, like a scan that nobody recognised: it holds no text at all."""
    pdf = _new_page(date(2026, 1, 2))
    pdf.set_fill_color(90, 90, 90)
    for row in range(24):
        width = (150, 120, 165, 80)[row % 4]
        pdf.rect(18, 25 + row * 9, width, 3.2, style="F")
    return bytes(pdf.output())


def broken_pdf(spec: InvoiceSpec) -> bytes:
    """The first part of a real invoice, as a broken upload leaves it: no reader finds a page in it."""
    whole = draw_invoice(spec)
    return whole[: len(whole) * 2 // 5]


def _new_page(day: date) -> FPDF:
    from fpdf import FPDF

    pdf = FPDF(format="A4")
    pdf.core_fonts_encoding = "windows-1252"  # has the €, which latin-1 lacks
    pdf.set_creation_date(datetime.combine(day, time(9), UTC))
    pdf.set_margin(15)
    pdf.add_page()
    return pdf


def _write(
    pdf: FPDF, width: float, height: float, text: str, *, bold: bool = False, size: float = 10,
    align: str = "L", color: tuple[int, int, int] = (0, 0, 0), fill: bool = False, last: bool = True,
) -> None:  # fmt: skip
    """Writes one cell; after the `last` one of a row the next row begins."""
    pdf.set_font("Helvetica", style="B" if bold else "", size=size)
    pdf.set_text_color(*color)
    right, below = ("LMARGIN", "NEXT") if last else ("RIGHT", "TOP")
    pdf.cell(width, height, text, align=align, fill=fill, new_x=right, new_y=below)


def _draw_heads(pdf: FPDF, spec: InvoiceSpec) -> None:
    """The letterhead, the invoice's number and dates, and the client."""
    texts = TEXTS[spec.language]
    _write(pdf, 120, 9, spec.supplier.name, bold=True, size=17, color=BLUE, last=False)
    _write(pdf, 60, 9, str(texts["title"]), bold=True, size=17, align="R", color=GREY)
    for row in (*spec.supplier.address, f"{texts['tax_id']}: {spec.supplier.tax_id}"):
        _write(pdf, 0, 4.6, row, size=9, color=GREY)
    pdf.ln(4)
    pdf.set_draw_color(*BLUE)
    pdf.line(15, pdf.get_y(), 195, pdf.get_y())
    pdf.ln(5)
    for label, value in (
        (texts["number"], spec.number),
        (texts["issued"], format_date(spec.issued, spec.language)),
        (texts["due"], format_date(spec.due, spec.language)),
    ):
        _write(pdf, 0, 5.4, f"{label}: {value}")
    pdf.ln(4)
    _write(pdf, 0, 5.4, f"{texts['client']}:", bold=True)
    for row in (spec.client.name, *spec.client.address, f"{texts['tax_id']}: {spec.client.tax_id}"):
        _write(pdf, 0, 5, row)
    pdf.ln(8)


def _draw_lines(pdf: FPDF, spec: InvoiceSpec) -> None:
    pdf.set_fill_color(*PALE)
    last = len(COLUMNS) - 1
    for place, (width, text) in enumerate(zip(COLUMNS, TEXTS[spec.language]["columns"], strict=True)):
        align = "R" if place else "L"
        _write(pdf, width, 8, text, bold=True, size=9, align=align, fill=True, last=place == last)
    for line in spec.lines:
        cells = (
            line.description,
            format_rate(line.quantity, spec.language),
            format_money(line.price, spec),
            format_money(line.amount, spec),
        )
        for place, (width, text) in enumerate(zip(COLUMNS, cells, strict=True)):
            _write(pdf, width, 7, text, size=9, align="R" if place else "L", last=place == last)
    pdf.line(15, pdf.get_y() + 1, 195, pdf.get_y() + 1)
    pdf.ln(5)


def _draw_sums(pdf: FPDF, spec: InvoiceSpec) -> None:
    texts = TEXTS[spec.language]
    rate = format_rate(spec.tax_rate, spec.language)
    rows = [(str(texts["net"]), spec.net), (str(texts["tax"]).format(rate=rate), spec.tax)]
    if spec.withholding_rate is not None:
        rate = format_rate(spec.withholding_rate, spec.language)
        rows.append((str(texts["withholding"]).format(rate=rate), -spec.withholding))
    for label, value in rows:
        _sum_row(pdf, label, format_money(value, spec))
    _sum_row(pdf, str(texts["total"]), format_money(spec.total, spec), bold=True)


def _sum_row(pdf: FPDF, label: str, value: str, *, bold: bool = False) -> None:
    pdf.set_x(105)
    size = 12 if bold else 10
    _write(pdf, 46, 7.5, label, bold=bold, size=size, fill=bold, last=False)
    _write(pdf, 44, 7.5, value, bold=bold, size=size, align="R", fill=bold)
