"""What kind of document it is, which currency it declares and which language it is in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from nova_pipelines.domain.currency import CODES
from nova_pipelines.domain.reading.text import Line

_INVOICE = re.compile(r"\b(?:factura|facturas|fra|invoice|rechnung\w*|\w+rechnung|facture|fattura|fatura|faktura)\b")
_NOT_INVOICE = re.compile(
    r"^(?:presupuesto|proforma|pro-forma|pro forma|albaran|quote|quotation|estimate|oferta|angebot|devis|preventivo|"
    r"pedido|purchase order|order confirmation|confirmacion de pedido|auftragsbestatigung|lieferschein|delivery note|"
    r"recordatorio|reminder|mahnung|zahlungserinnerung|statement|extracto|contrato|contract|nomina|payslip)\b"
)
_PROFORMA = re.compile(
    r"\b(?:factura|invoice|rechnung|facture)\s+(?:pro[- ]?forma)|\bpro[- ]?forma\s+(?:invoice|factura|rechnung)|"
    r"\bno es una factura|\bnot an? (?:tax )?invoice|\bthis is not an invoice|\bkeine rechnung|"
    r"\bsin validez (?:fiscal|contable)|\bn'est pas une facture"
)
_CREDIT = re.compile(
    r"^(?:factura (?:de )?abono|factura rectificativa|abono|nota de (?:credito|abono)|credit (?:note|memo)|gutschrift|"
    r"rechnungskorrektur|korrekturrechnung|avoir|facture d'avoir|nota di credito|corrective invoice)\b"
)
#: a word that names the currency (`Moneda: EUR`, `Importes en euros`), or a column's head (`Importe (€)`, `Netto EUR`)
_DECLARATION = re.compile(
    r"\b(?:(?:importe|precio|total|amount|price|betrag|preis|montant|prix|netto|brutto|mwst|ht|ttc|p\.u\.)"
    r"[ .:]{0,2}\(?(?P<column>€|[a-z]{3}\b)(?![ \xa0]{0,2}[-0-9])|"
    r"(?:moneda|divisa|currency|devise|wahrung|valuta|waluta|"
    r"(?:importes?|precios?|cantidades|amounts?|prices|betrage|montants?)(?: \w+)? (?:in|en))\b(?P<rest>.{0,60}))"
)
_CODE = re.compile(r"\b[A-Z]{3}\b")
_EURO = re.compile(r"\beuros?\b", re.IGNORECASE)
_ENGLISH = re.compile(r"\b(?:invoice|date|amount|due|bill|number|tax|payment|total due)\b")
_OTHER = re.compile(
    r"\b(?:factura|fecha|importe|iva|cliente|vencimiento|rechnung\w*|datum|betrag|menge|mwst|ust|facture|montant|tva|"
    r"date d'|emission|echeance|fattura|data)\b"
)


@dataclass(frozen=True, slots=True)
class Document:
    """`declared`: codes that the document names as its currency. `credit`: the words of a credit note's title."""

    is_invoice: bool
    not_invoice: str | None
    credit: str | None
    declared: tuple[str, ...]
    english: bool


def describe(lines: Sequence[Line]) -> Document:
    head = [line.folded for line in lines[:60]]
    text = "\n".join(line.folded for line in lines)
    says_invoice = _INVOICE.search(text) is not None
    credit = next((m[0] for line in head if (m := _CREDIT.match(line))), None)
    other = next((m[0] for line in head if (m := _NOT_INVOICE.match(line))), None)
    denied = _PROFORMA.search(text)
    start = text[:6_000]
    return Document(
        is_invoice=says_invoice or credit is not None,
        # an invoice may name the order or the quote it goes back to
        not_invoice=denied[0] if denied else (other if not says_invoice and credit is None else None),
        credit=credit,
        declared=_declared(text, "\n".join(line.plain for line in lines)),
        english=len(_ENGLISH.findall(start)) > len(_OTHER.findall(start)),
    )


def _declared(folded: str, plain: str) -> tuple[str, ...]:
    """The codes after `Moneda:`, `Currency`, `Importes en` … (`Currency Mexican Peso (MXN)`, `Devise: euro`)."""
    found: dict[str, None] = {}
    for match in _DECLARATION.finditer(folded):
        group = "rest" if match["column"] is None else "column"
        # codes count in capitals only; casefold keeps the places in nearly every text
        words = plain[slice(*match.span(group))] if len(plain) == len(folded) else match[group].upper()
        found.update(dict.fromkeys(code for code in _CODE.findall(words) if code in CODES))
        if "€" in words or (group == "rest" and _EURO.search(words)):
            found["EUR"] = None
    return tuple(found)
