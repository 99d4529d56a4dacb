"""Dates of a document: day-first unless the document shows otherwise, and none where that cannot be known.

Knows labels of dates, no amounts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

from nova_pipelines.domain.reading.text import Line

_MONTHS = {
    name[:length]: number
    for number, names in enumerate(
        (
            "january enero januar janvier",
            "february febrero februar fevrier",
            "march marzo marz maerz mars",
            "april abril avril",
            "may mayo mai",
            "june junio juni juin",
            "july julio juli juillet",
            "august agosto aout",
            "september septiembre setiembre septembre",
            "october octubre oktober octobre",
            "november noviembre novembre",
            "december diciembre dezember decembre",
        ),
        start=1,
    )
    for name in names.split()
    for length in {3, 4, len(name)}
    if not (length == 3 and name.startswith(("jui",)))
}
_DATE = re.compile(
    r"(?<![\w./-])(?:(?P<y>(?:19|20)[0-9]{2})([-/.])(?P<m>[0-9]{1,2})\2(?P<d>[0-9]{1,2})"
    r"|(?P<a>[0-9]{1,2})(?P<sep>[-/.])(?P<b>[0-9]{1,2})(?P=sep)(?P<yy>(?:19|20)[0-9]{2}|[0-9]{2})"
    r"|(?P<d1>[0-9]{1,2})(?:st|nd|rd|th|º|o|\.|er)?[ -](?:de |of )?(?P<m1>[a-z]{3,10})\.?,?[ -](?:de |del )?"
    r"(?P<y1>(?:19|20)[0-9]{2})"
    r"|(?P<m2>[a-z]{3,10})\.? (?P<d2>[0-9]{1,2})(?:st|nd|rd|th)? ?,? (?P<y2>(?:19|20)[0-9]{2}))(?![\w/-]|\.[0-9])"
)
_ISSUE = re.compile(
    r"fecha de (?:emision|expedicion|la factura|factura)|fecha (?:emision|expedicion|factura)|invoice date|"
    r"date of (?:issue|invoice)|issued?(?: date| at| on)?|bill date|"
    r"(?:rechnung|gutschrift|factura|invoice)\b.{0,80}\b(?:vom|de fecha|dated|del)$|rechnungsdatum|ausstellungsdatum|"
    r"date (?:de|d')\s?(?:la )?(?:facture|emission|facturation)|emitida|data (?:de )?(?:emissio|fattura)"
)
_PLAIN = re.compile(r"^(?:fecha|date|dated|datum|data|le|tax point)$|\b(?:fecha|date|datum)$")
_DUE = re.compile(
    r"venc|\bdue\b|pay(?:ment)? by|payable by|fallig|zahlbar|echeance|scadenza|limite de pago|pagar antes|remit until"
)
_OTHER = re.compile(
    r"entrega|deliver|liefer|leistung|pedido|order|period|shipment|service|associee|desde|hasta|debut|\bfin\b|"
    r"rectificad|operacion|start|end\b|from|albaran|nacimiento|birth|pago|payment|print|order|contrat|original|anterior"
)


@dataclass(frozen=True, slots=True)
class DateReading:
    value: date | None
    doubt: str | None = None


@dataclass(frozen=True, slots=True)
class _Written:
    """One written date: `options` are its readings, `rank` how well its label fits (due: −1, other: −2)."""

    options: tuple[date, ...]
    rank: int
    text: str


def read_dates(lines: Sequence[Line], *, english: bool, today: date | None) -> tuple[DateReading, DateReading]:
    """Issue date and due date. Numeric dates are day-first, except in English text, where only the document's other
    dates can say; a date that stays ambiguous is None with a doubt.
    """
    written = list(_written(lines, english))
    order = _order(written)
    issue = _pick([w for w in written if w.rank >= 0], order, "date of issue")
    due = _pick([w for w in written if w.rank == -1], order, "due date")
    if issue.value and today and issue.value.toordinal() > today.toordinal() + 366:
        issue = DateReading(None, f"The date of issue {issue.value} lies more than a year ahead.")
    return issue, due


def dates_on(line: Line) -> Iterator[tuple[str, tuple[date, ...]]]:
    """The dates of a line as they are written, with what each may mean."""
    for match in _DATE.finditer(line.folded) if any(map(str.isdigit, line.folded)) else ():
        written = line.text[match.start() : match.end()] if len(line.text) == len(line.folded) else match[0]
        # both orders: a date of an English text is found again whichever was chosen
        yield written, (*_options(match, english=True), *_options(match, english=False))


def _written(lines: Sequence[Line], english: bool) -> Iterator[_Written]:
    label_before = ""
    for line in lines:
        position, seen = 0, False
        for match in _DATE.finditer(line.folded) if any(map(str.isdigit, line.folded)) else ():
            options = _options(match, english)
            if not options:
                continue
            label = line.folded[position : match.start()].strip(" :.\t-")
            if not label and not seen:
                label = label_before
            yield _Written(options, _rank(label[-140:]), match[0])
            position, seen = match.end(), True
        label_before = "" if seen else line.folded.strip(" :.\t-")


def _rank(label: str) -> int:
    if _DUE.search(label):
        return -1
    if _ISSUE.search(label):
        return 3
    if _OTHER.search(label):
        return -2
    return 2 if _PLAIN.search(label) else 0


def _options(match: re.Match[str], english: bool) -> tuple[date, ...]:
    if match["y"]:
        return _valid((int(match["y"]), int(match["m"]), int(match["d"])))
    if match["d1"] or match["m2"]:
        month = _MONTHS.get(match["m1"] or match["m2"])
        return _valid((int(match["y1"] or match["y2"]), month or 0, int(match["d1"] or match["d2"])))
    a, b, year = int(match["a"]), int(match["b"]), int(match["yy"])
    year += 2000 if year < 100 else 0
    if english and match["sep"] == "/":
        return tuple(dict.fromkeys(_valid((year, b, a), (year, a, b))))
    return _valid((year, b, a)) or _valid((year, a, b))


def _valid(*parts: tuple[int, int, int]) -> tuple[date, ...]:
    found: list[date] = []
    for year, month, day in parts:
        try:
            found.append(date(year, month, day))
        except ValueError:
            continue  # 31/02, or month 13: not this reading
    return tuple(found)


def _order(written: Sequence[_Written]) -> str | None:
    """`day` or `month` first, if some numeric date of the document shows it."""
    orders = {
        "day" if int(w.text[: w.text.index("/")]) > 12 else "month"
        for w in written
        if len(w.options) == 1 and w.text.count("/") == 2 and not w.text[:4].isdigit() and _both_orders_differ(w.text)
    }
    return orders.pop() if len(orders) == 1 else None


def _both_orders_differ(text: str) -> bool:
    first, second, _ = text.split("/")
    return first != second


def _pick(written: Sequence[_Written], order: str | None, what: str) -> DateReading:
    if not written:
        return DateReading(None)
    best = max(w.rank for w in written)
    chosen = list(dict.fromkeys((w.options, w.text) for w in written if w.rank == best))
    if best == 0 and len({options for options, _ in chosen}) > 1:
        return DateReading(None, f"No date is named as the {what}.")
    options, text = chosen[0]
    ambiguous = len(options) > 1
    if ambiguous and order is None:
        return DateReading(None, f"The {what} {text} may be day or month first.")
    value = options[-1 if order == "month" else 0]
    if len({o for o, _ in chosen}) > 1:
        return DateReading(value, f"There are several dates that may be the {what}; the first was taken.")
    return DateReading(value)
