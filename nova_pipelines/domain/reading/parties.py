"""Invoice number, supplier and tax id, by label and by form. No register of suppliers, no check digits.

Knows no amounts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nova_pipelines.domain.reading.text import Line

_NO = r"(?:n\s?[.º°o]{1,2}|num(?:ero|\.)?|nr\.?|number|no\.?|#|id)"
_DOC = r"(?:factura|fra\.?|invoice|rechnung|facture|fattura|fatura|credit note|gutschrift|nota de credito|abono)"
_KIND = r"(?:\s+(?:rectificativa|simplificada|completa|ordinaria|electronica|proforma))?"
_NUMBER_LABEL = re.compile(
    rf"(?:\b{_NO}\s*(?:de\s+)?(?:la\s+)?{_DOC}\b|\b{_DOC}{_KIND}\s*{_NO}(?![a-z])|"
    r"\b(?:ref\.?|referencia)\s+(?:de\s+)?factura\b|\brechnungs?-?\s?(?:nummer|nr\.?)|"
    r"\b[a-z]*rechnung\b[^\n]{0,40}?\bnr\.?|\bnumero de facture\b|\bbelegnummer\b|\bbill (?:no\.?|number))"
    r"\s*[:#.]{0,2}\s*",
    re.IGNORECASE,
)
#: what every label of an invoice number holds: a quick look before the careful one
_NUMBER_HINT = re.compile(r"factur|fra\b|fra\.|invoice|rechnung|fattura|fatura|gutschrift|credit|abono|beleg|bill")
#: the title of the document, with the number beside it or on the next line
_TITLE = re.compile(
    rf"^(?:[a-z]+ )?{_DOC}{_KIND}\s*[:#]?\s*(?=\S*[0-9])|"
    r"^(?:(?:tax|simplified|vat|corrective) )?(?:invoice|credit note)$|"
    r"^(?:factura(?: (?:rectificativa|simplificada|completa))?|facture|rechnung)$",
    re.IGNORECASE,
)
_VALUE = re.compile(
    r"(?:[A-Z]{1,4} )?(?=[A-Z0-9/._-]*[0-9])[A-Z0-9](?:[A-Z0-9/._-]{0,38}[A-Z0-9])?(?![\w€%])", re.IGNORECASE
)
_DATE_OR_AMOUNT = re.compile(
    r"[0-9]{1,2}[-/.][0-9]{1,2}[-/.][0-9]{2,4}|[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]{1,3}(?:[.,][0-9]{3})*[.,][0-9]{2}"
)
#: the number of another invoice
_REFERS = re.compile(r"rectificada\b|original|anterior|associee|preceding|corrected", re.IGNORECASE)

_TAX_ID = re.compile(
    r"\b(?:n\.?i\.?f|c\.?i\.?f|n\.?i\.?e|vat|u\.?st\.?-?\s?id|ust-?idnr|tva|p\.? ?iva|partita iva|rfc|nit|uid|tin|gst|"
    r"steuernummer|siren|siret|cnpj|abn)\b[^\n]{0,24}?"
    r"(?-i:(?:\((?P<country>[A-Z]{2})\) ?)?(?<![A-Za-z0-9])(?=[A-Z .-]{0,6}(?:[0-9][A-Z .-]{0,3}){5})"
    r"(?P<id>(?:[A-Z]{2}[ -]?|[A-Z][ -])?[A-Z0-9][A-Z0-9.-]{0,15}[A-Z0-9](?: [0-9]{3}){0,3})(?![A-Za-z0-9/]))",
    re.IGNORECASE,
)
_TAX_WORD = re.compile(r"\b(?:N\.?I\.?F|C\.?I\.?F|VAT|USt|TVA|P\.? ?IVA|RFC)\b", re.IGNORECASE)
_SPANISH_ID = re.compile(
    r"(?<![A-Z0-9])(?:ES-?)?(?:[ABCDEFGHJNPQRSUVW]-?[0-9]{7}[0-9A-J]|[0-9]{8}-?[A-Z]|[XYZ]-?[0-9]{7}-?[A-Z])(?![A-Z0-9])"
)
_CUSTOMER = re.compile(
    r"^(?:datos del )?(?:cliente|customer|client|bill(?:ed)? to|sold to|ship to|facturar a|facturado a|destinatario|"
    r"receptor|comprador|buyer|kunde|kaufer|rechnungsempfanger|acheteur|adresse du client|invoice to)\b"
)
_SUPPLIER = re.compile(
    r"^(?:datos del )?(?:proveedor|emisor|supplier|seller|vendor|vendedor|ver ?kaufer|lieferant|fournisseur|vendeur|"
    r"host|from|expedidor)\s*(?::|$)"
)
_COMPANY = re.compile(
    r"\b(?:S\.? ?L\.? ?U?|S\.? ?A\.? ?U?|S\.? ?C|C\.? ?B|S\. ?Coop|GmbH|AG|UG|KG|Ltd|Limited|LLC|Inc|Corp|PLC|SARL|"
    r"SAS|B\.?V|Lda|S\.?r\.?l|S\.?p\.?A|Pte)\b"
)
_NO_NAME = re.compile(r"^(?:page|pagina|factura|invoice|rechnung|facture|gutschrift|fecha|date|tel|www|http)", re.I)

#: the document's title in capitals, on the same line as the letterhead
_TITLE_BESIDE = re.compile(
    r"(?<=\S)\s+(?:FACTURA(?: (?:SIMPLIFICADA|RECTIFICATIVA))?|(?:TAX )?INVOICE|RECHNUNG|FACTURE)$"
)


def invoice_numbers(lines: Sequence[Line]) -> list[str]:
    """Every number behind a label such as `Factura nº`, in order; then, if there is none, the one in the title."""
    found = dict.fromkeys(_labelled_numbers(lines))
    return list(found) or list(dict.fromkeys(_title_numbers(lines)))[:1]


def _labelled_numbers(lines: Sequence[Line]) -> Iterator[str]:
    for i, line in enumerate(lines):
        for match in _NUMBER_LABEL.finditer(line.plain) if _NUMBER_HINT.search(line.folded) else ():
            if _REFERS.search(line.plain, max(0, match.start() - 20), match.end()):
                continue
            if value := _number_at(line.plain, match.end()):
                yield value
            elif match.end() >= len(line.plain) and i + 1 < len(lines) and (below := _whole_number(lines[i + 1].plain)):
                yield below


def _title_numbers(lines: Sequence[Line]) -> Iterator[str]:
    for i, line in enumerate(lines[:80]):
        match = _TITLE.match(line.plain) if _NUMBER_HINT.search(line.folded) else None
        if match is None:
            continue
        if value := _number_at(line.plain, match.end()):
            yield value
        elif match.end() == len(line.plain) and i + 1 < len(lines) and (below := _whole_number(lines[i + 1].plain)):
            yield below


def _number_at(text: str, start: int) -> str | None:
    match = _VALUE.match(text, start)
    return match[0] if match and not _DATE_OR_AMOUNT.fullmatch(match[0]) else None


def _whole_number(text: str) -> str | None:
    match = _VALUE.fullmatch(text)
    return match[0] if match and not _DATE_OR_AMOUNT.fullmatch(text) else None


def supplier(lines: Sequence[Line]) -> tuple[str | None, str | None]:
    """Name and tax id of the supplier: of its own section, or of what stands outside the customer's."""
    name = tax_id = None
    customer = False
    named_section = False
    for i, line in enumerate(lines):
        if _CUSTOMER.match(line.folded):
            customer = True
        elif section := _SUPPLIER.match(line.folded):
            customer, named_section = False, True
            own = line.text[section.end() :].strip() if len(line.text) == len(line.folded) else ""
            name = _name(own) or (_name(lines[i + 1].text) if i + 1 < len(lines) else None)
        if customer:
            continue
        tax_id = tax_id or _tax_id(line)
        if name is None and not named_section and i < 40:
            name = _company(line) or (_name(line.text) if i == 0 else None)
        if name and tax_id:
            break
    return name, tax_id


def _tax_id(line: Line) -> str | None:
    if match := _TAX_ID.search(line.plain):
        country, value = match["country"] or "", re.sub(r"[ .-]", "", match["id"])
        if len(value) >= 7:
            return value if value.startswith(country) else country + value
    match = _SPANISH_ID.search(line.plain)
    return match[0].replace("-", "") if match else None


def _company(line: Line) -> str | None:
    return _name(line.text) if len(line.text) <= 80 and _COMPANY.search(line.plain) else None


def _name(text: str) -> str | None:
    """A line as a name: up to a tax id's label, without titles and numbers."""
    label = _TAX_WORD.search(text)
    name = text[: label.start()].strip(" ,;:-·|") if label else text.strip()
    name = _TITLE_BESIDE.sub("", name)
    good = 2 < len(name) <= 100 and not _NO_NAME.match(name) and sum(map(str.isdigit, name)) <= 4
    return name if good else None
