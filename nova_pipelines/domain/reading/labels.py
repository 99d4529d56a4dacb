"""What the words beside an amount say that it is: total, net, tax …, in Spanish, English, German and French.

A label is judged by all of its words: one unknown word (`cuota mensual total`) and it is no label. So a rule cannot
match inside running text, and what is not understood is left to a person. Knows no amounts.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import lru_cache


class Kind(Enum):
    TOTAL = "total"
    DUE = "amount due"
    AMOUNT = "amount"  # `Importe: …`: a total only if there is nothing else
    NET = "net amount"
    TAX = "tax"
    TAX_INSIDE = "tax that may be inside the net amount"  # `IVA incluido: 21,00`
    WITHHELD = "withheld tax"
    PREPAID = "prepayment"
    ADDED = "surcharge, expense or discount"
    OTHER = "other"


#: the kinds that may be the total
PAYABLE = frozenset({Kind.TOTAL, Kind.DUE})


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TOTAL = _words(
    "total totales totals totale gesamtbetrag gesamtsumme gesamt rechnungsbetrag rechnungssumme rechnungsendbetrag "
    "rechnungsbeitrag endbetrag endsumme bruttosumme bruttobetrag brutto"
)
_DUE = _words(
    "pagar due payable pay payer abonar zahlbetrag zahlen percibir balance outstanding owed owing pendiente adeudado "
    "liquido cobrar ingresar"
)
_AMOUNT = _words("importe import amount betrag montant")
_INCLUDED = _words("incl incluido incluidos incluida incluidas inc including included inclusive inkl inklusive con "
                   "with ttc brutto einschl einschliesslich mit")  # fmt: skip
_NET = _words(
    "subtotal subtotales sub base bases imponible imponibles neto neta net netto nettobetrag nettosumme "
    "gesamtnettobetrag ht sin antes before excl excluding excluded exclusive without ohne hors zwischensumme sum "
    "suma somme no not non warenwert positionssumme bruto bruta gravable gravada taxable tributable warenbetrag"
)
_TAX = _words(
    "iva i.v.a vat tax taxes impuesto impuestos cuota cuotas mwst ust umsatzsteuer mehrwertsteuer steuer "
    "steuerbetrag steuern tva taxe igic ipsi gst pst hst qst cgst sgst igst sales versicherungsteuer "
    "versicherungssteuer"
)
_WITHHELD = _words("irpf i.r.p.f retencion retenciones retenido withholding withheld retained ret reten")
_PREPAID = _words(
    "pagado pagada pagados anticipo anticipos anticipado anticipos cuenta entregado entrega entregas paid prepaid "
    "prepayment deposit advance advances received anzahlung anzahlungen vorauszahlung vorauszahlungen erhaltene "
    "acompte acomptes cobrado abonado senal payments paye verse"
)
_ADDED = _words(
    "recargo equivalencia suplidos portes envio gastos shipping freight delivery handling descuento dto discount "
    "rabatt remise versand versandkosten redondeo rounding tasas surcharge"
)
#: `sum` alone is the net amount, `sum total` is not
_SUM = _words("sum suma somme")
#: words that change nothing
_NEUTRAL = _words(
    "fra bill rechnung facture fattura fatura de del la el los las a al an en in the this that for of to your su "
    "importe import amount betrag montant valor value eur euro euros eu us usd general final grand overall document "
    "documento now ahora y and und et e este esta es is be must by c please invoiced facturado der die das zu zum "
    "ce cette du des le les aplicado aplicada repercutido zzgl zuzuglich plus mas pago payment operacion todo "
    "rechnungs facturation resto reste restante remaining mit mxn gbp chf cop sgd pln amt d o imp tipo rate "
    "reducido standard on as prix precio price summe factura invoice concepto s.e.u.o seuo compra recibo credit "
    "credito abono rectificativa nota note gutschrift"
)
_BEFORE = _words("sin antes before without ohne no not")
_MONTHS = _words(
    "january february march april may june july august september october november december enero febrero marzo abril "
    "mayo junio julio agosto septiembre octubre noviembre diciembre"
)
#: words that must stand in a label for it to be one at all: a quick look before the careful one
_ANCHORS = _TOTAL | _DUE | _AMOUNT | _NET | _TAX | _WITHHELD | _PREPAID | _ADDED
_KNOWN = _ANCHORS | _INCLUDED | _NEUTRAL | _MONTHS
_PRICE_WORDS = _TOTAL | _DUE | _AMOUNT | _words("summe precio price")
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|\.(?=[^\W\d_]))*")
_SIN_IVA = re.compile(r"\bs\s?/\s?(?=iva|imp)")
_CON_IVA = re.compile(r"\bc\s?/\s?(?=iva|imp)")
MAX_WORDS = 12
MAX_LABEL = 120


@lru_cache(maxsize=4096)
def classify(label: str) -> Kind:
    """The kind that a folded label names; OTHER if any word of it is not known."""
    if not label or len(label) > MAX_LABEL:
        return Kind.OTHER
    words = _WORD.findall(_CON_IVA.sub("con ", _SIN_IVA.sub("sin ", label)))
    if not words or len(words) > MAX_WORDS or not _KNOWN.issuperset(words):
        return Kind.OTHER
    return _kind(set(words), words)


def _kind(words: set[str], ordered: list[str]) -> Kind:
    """The order matters: `total pagado` is a prepayment, `neto a pagar` is due, `total IVA` is a tax."""
    if words & _PREPAID and not words & {"pendiente", "resto", "reste", "restante", "remaining", "balance"}:
        return Kind.PREPAID
    if words & _WITHHELD:
        return Kind.OTHER if words & (_INCLUDED | _BEFORE) else Kind.WITHHELD
    if words & _ADDED:
        return Kind.OTHER if words & (_DUE | _INCLUDED | _TAX) else Kind.ADDED
    if words & _TAX and words & _INCLUDED and words & _PRICE_WORDS and not words & (_NET - {"neto", "netto"}):
        return Kind.TOTAL
    if words & _DUE:
        return Kind.DUE
    if words & (_NET - _SUM if words & _TOTAL else _NET):
        return Kind.NET
    if words & _TAX:
        return Kind.TAX_INSIDE if words & _INCLUDED else Kind.TAX
    if words & _TOTAL or {"summe", "gesamt"} <= words or "ttc" in words:
        return Kind.TOTAL
    return Kind.AMOUNT if words & _AMOUNT and len(ordered) <= 4 else Kind.OTHER


def speaks_of_tax_on_top(tail: str) -> bool:
    """Words after an amount that make it a net one: `1.000,00 € + IVA`, `IVA no incluido`."""
    words = set(_WORD.findall(tail)[:MAX_WORDS])
    return bool(words & _TAX) and not (words & _INCLUDED and not words & _BEFORE)


def is_table_head(label: str) -> bool:
    """A line of several labels (`Base imponible  IVA  Cuota  Total`) that ends in the total's."""
    words = _WORD.findall(label)[:30]
    if not words or not set(words) & (_NET | _TAX):
        return False
    return bool(set(words[-3:]) & _TOTAL) and not set(words[-2:]) & (_NET | _TAX | _PREPAID | _WITHHELD)
