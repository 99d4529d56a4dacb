"""Reads an invoice from the text of its pages. What is not certain is said, and goes to a person.

Pure: the pages come as text, nothing is opened. The text is hostile, and everything here is linear in its length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date
from decimal import Decimal

from nova_pipelines.domain.currency import minor_units
from nova_pipelines.domain.invoice import InvoiceReading
from nova_pipelines.domain.reading.currencies import choose_currency
from nova_pipelines.domain.reading.dates import read_dates
from nova_pipelines.domain.reading.document import Document, describe
from nova_pipelines.domain.reading.figures import Figure, decimal_mark, find_figures
from nova_pipelines.domain.reading.labels import PAYABLE, Kind
from nova_pipelines.domain.reading.parties import invoice_numbers, supplier
from nova_pipelines.domain.reading.sums import Choice, choose_total
from nova_pipelines.domain.reading.text import Line, read_lines

__all__ = ["read_invoice"]


def read_invoice(pages: Sequence[str], *, today: date | None = None) -> InvoiceReading:
    """The invoice on `pages` (text as pypdfium2 gives it: label and amount on one line, or one below the other).

    `sure` of the result means that the total and its currency were found and nothing speaks against them;
    `confidence` is 0.97 where net amount and tax prove the total. Raises nothing.
    """
    lines, cut = read_lines(pages)
    document = describe(lines)
    figures = find_figures(lines, decimal_mark(lines))
    choice = choose_total(figures)
    if choice.value is None:
        choice.value = _only_amount(lines)
    currency, against = choose_currency(choice, figures, lines, document)
    numbers = invoice_numbers(lines)
    against = [*choice.against, *against, *_objections(choice, figures, lines, document, numbers, currency)]
    if cut:
        against.append("The document is too long to be read completely.")
    issue, due = read_dates(lines, english=document.english, today=today)
    remarks = [doubt for doubt in (issue.doubt, due.doubt) if doubt]
    name, tax_id = supplier(lines)
    total = _with_sign(choice, document)
    return InvoiceReading(
        total_amount=total,
        currency=currency,
        net_amount=_only(figures, Kind.NET),
        tax_amount=_only(figures, Kind.TAX),
        invoice_number=numbers[0] if numbers else None,
        issue_date=issue.value,
        due_date=due.value,
        supplier_name=name,
        supplier_tax_id=tax_id,
        confidence=_confidence(choice, document, contested=bool(against)),
        doubts=tuple(doubt[:500] for doubt in (*against, *remarks))[:20],
        contested=bool(against),
    )


def _objections(
    choice: Choice,
    figures: Sequence[Figure],
    lines: Sequence[Line],
    document: Document,
    numbers: Sequence[str],
    currency: str | None,
) -> list[str]:
    """What the document as a whole says against taking the total."""
    total = choice.value
    found: list[str] = []
    if document.not_invoice:
        found.append(f"The document seems to be no invoice: it says '{document.not_invoice}'.")
    if total is None:
        return found
    if document.credit and total > 0:
        found.append(f"The document says '{document.credit}', but the total is not negative: its sign is not certain.")
    if total == 0:
        found.append("The total is zero.")
    if currency and _too_fine(total, currency, proven=choice.proven):
        found.append(f"The total {total} has more decimals than amounts in {currency} have.")
    labels = Counter(label for label, _ in {(f.label, f.line) for f in figures if f.kind in PAYABLE})
    if len(numbers) > 1 and max(labels.values(), default=0) > 1:
        found.append(f"There are several invoice numbers ({', '.join(numbers[:4])}): perhaps several invoices.")
    if not choice.proven and (rival := _rival(choice, currency, figures, lines)):
        found.append(f"There is also the amount {rival}, and the total {total} cannot be checked.")
    return found


def _rival(choice: Choice, currency: str | None, figures: Sequence[Figure], lines: Sequence[Line]) -> Decimal | None:
    """An amount of money beyond the total which no label explains, in the total's currency or none.

    A registered capital is not counted. Where nothing is named as a total, any other amount is a rival.
    """
    explained = {abs(v) for f in figures if f.kind is not Kind.AMOUNT for v in f.values}
    total = abs(choice.value or 0)
    least = 0 if choice.figure and choice.figure.kind is Kind.AMOUNT else total
    for line in lines:
        if "capital" in line.folded or "regist" in line.folded:
            continue
        for amount in line.money:
            size = abs(amount.options[0].value)
            money = amount.currencies or amount.decimals == 2
            foreign = currency and amount.currencies and currency not in amount.currencies
            if money and not foreign and least < size != total and size not in explained:
                return size
    return None


def _only_amount(lines: Sequence[Line]) -> Decimal | None:
    """The one sum of money in a document without labels: a suggestion, no more."""
    values = {amount.options[0].value for line in lines for amount in line.money if amount.currencies}
    return values.pop() if len(values) == 1 else None


def _with_sign(choice: Choice, document: Document) -> Decimal | None:
    """A credit note takes back: if its total is written without a sign, the suggestion is negative.

    Not for a Spanish `factura rectificativa`, whose total may be the corrected amount.
    """
    if choice.value is None or choice.value <= 0 or not document.credit or "rectificativa" in document.credit:
        return choice.value
    return -choice.value


def _only(figures: Sequence[Figure], kind: Kind) -> Decimal | None:
    """The one value of a kind; None if there are several."""
    values = {value for f in figures if f.kind is kind for value in f.values}
    return values.pop() if len(values) == 1 else None


def _too_fine(total: Decimal, currency: str, *, proven: bool) -> bool:
    """More decimals than the currency has; zeros count too (`1,500 €` is hardly 1.5), unless the sum proves it."""
    exponent = (total.normalize() if proven else total).as_tuple().exponent
    return isinstance(exponent, int) and -exponent > minor_units(currency)


def _confidence(choice: Choice, document: Document, *, contested: bool) -> float:
    if choice.value is None:
        return 0.0
    if contested:
        return 0.3
    return round((0.97 if choice.proven else 0.8) - (0.0 if document.is_invoice else 0.1), 2)
