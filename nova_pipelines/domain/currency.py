"""Currencies: the codes of ISO 4217 with their minor units, and the marks that stand beside written amounts.

Knows no amounts.
"""

from __future__ import annotations

from nova_pipelines.domain.errors import PermanentError


def _words(text: str) -> list[str]:
    return text.split()


#: ISO 4217 list one (active codes, and HRK and BGN, which stand on invoices that are still kept)
CODES = frozenset(
    _words(
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF "
        "CHF CLF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GNF GTQ "
        "GYD HKD HNL HRK HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP "
        "LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB "
        "PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL "
        "THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XCG XOF XPF YER ZAR ZMW ZWG"
    )
)
#: minor units (ISO 4217) where they are not 2
_MINOR_UNITS = {
    **dict.fromkeys(_words("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"), 0),
    **dict.fromkeys(_words("BHD IQD JOD KWD LYD OMR TND"), 3),
    "CLF": 4,
}
#: codes that are also words in capitals: too risky to be taken for a mark in running text
_WORDS = frozenset({"ALL", "TOP", "MOP", "CUP"})

#: `$` alone: the dollar and the peso countries. The usual one stands first.
DOLLARS = ("USD", "MXN", "CAD", "AUD", "ARS", "CLP", "COP", "SGD", "HKD", "NZD", "UYU", "DOP", "TWD")
_SYMBOLS: dict[str, tuple[str, ...]] = {
    "€": ("EUR",), "£": ("GBP",), "$": DOLLARS, "¥": ("JPY", "CNY"), "₹": ("INR",), "₽": ("RUB",), "₺": ("TRY",),
    "₩": ("KRW",), "₪": ("ILS",), "₫": ("VND",), "₴": ("UAH",), "₦": ("NGN",), "฿": ("THB",), "US$": ("USD",),
    "MX$": ("MXN",), "MEX$": ("MXN",), "CA$": ("CAD",), "C$": ("CAD",), "AU$": ("AUD",), "A$": ("AUD",),
    "NZ$": ("NZD",), "HK$": ("HKD",), "S$": ("SGD",), "R$": ("BRL",), "zł": ("PLN",), "Kč": ("CZK",), "Ft": ("HUF",),
    "kr": ("SEK", "NOK", "DKK"), "kr.": ("DKK", "SEK", "NOK"), "lei": ("RON",), "SFr.": ("CHF",), "Fr.": ("CHF",),
    "Rs": ("INR", "PKR", "LKR"), "Rs.": ("INR", "PKR", "LKR"),
}  # fmt: skip
#: the sign that may be printed for a currency without being taken for another
SYMBOL_OF = {"EUR": "€", "GBP": "£"}

_MARKS: dict[str, tuple[str, ...]] = {
    **_SYMBOLS,
    **{code: (code,) for code in CODES - _WORDS},
    **{word: ("EUR",) for euro in ("eur", "euro", "euros") for word in (euro, euro.title(), euro.upper())},
}
_LONGEST = max(map(len, _MARKS))
_FIRST = frozenset(mark[0] for mark in _MARKS)
_LAST = frozenset(mark[-1] for mark in _MARKS)


def currencies_of(mark: str) -> tuple[str, ...]:
    """The codes that a mark may stand for, the usual one first; empty if it is none."""
    return _MARKS.get(mark, ())


def mark_before(text: str, end: int, floor: int) -> tuple[int, tuple[str, ...]] | None:
    """Start and currencies of the mark that ends at `end`; the usual currency first, one where it is certain."""
    if end <= floor or text[end - 1] not in _LAST:
        return None
    for start in range(max(floor, end - _LONGEST), end):
        found = _MARKS.get(text[start:end])
        if found and not (text[start].isalpha() and start > 0 and text[start - 1].isalpha()):
            return start, found
    return None


def mark_after(text: str, start: int) -> tuple[int, tuple[str, ...]] | None:
    """End and currencies of the mark that begins at `start`."""
    if text[start : start + 1] not in _FIRST:
        return None
    for end in range(min(len(text), start + _LONGEST), start, -1):
        found = _MARKS.get(text[start:end])
        if found and not (text[end - 1].isalpha() and text[end : end + 1].isalpha()):
            return end, found
    return None


def check_currency(code: str) -> str:
    """`code` itself. Raises PermanentError if it is no code of ISO 4217."""
    if code not in CODES:
        raise PermanentError(
            f"currency {code[:20]!r} is not a code of ISO 4217", remedy="use three capital letters such as EUR"
        )
    return code


def minor_units(code: str) -> int:
    """Decimal places of a currency's amounts: JPY 0, EUR 2, KWD 3."""
    return _MINOR_UNITS.get(check_currency(code), 2)
