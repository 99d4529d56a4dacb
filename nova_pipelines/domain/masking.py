"""Hides secrets in texts and plain data: the spellings in which a secret may appear, and a mask in their place.

A mask keeps secrets out of records, not away from code: code that takes a secret apart gets past it.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, cast
from urllib.parse import quote, quote_plus

MASK = "•••"
#: a shorter secret could not be told from other text that happens to hold the same characters
MIN_SECRET = 6
#: the same for pieces of base64: eight characters occur by chance in no document
_MIN_BASE64 = 8
#: the beginning of a secret that a cut text ends with is hidden from this many characters on
_MIN_BEGINNING = 3
#: what marks a cut in a text
CUT = "…"
#: base64 is wrapped at 76 characters in mails and by `base64.encodebytes`
_WRAP = r"(?:\r?\n[ \t]*)?"


def spellings(secret: str) -> frozenset[str]:
    """A secret in clear, in URLs, in JSON and Python literals, in HTML, in hex, and in base64 at any place of a
    longer text. Spellings too short to be told from other text are left out."""
    return frozenset(text for text in {*_plain(secret), *_base64(secret)} if len(text) >= MIN_SECRET)


def _plain(secret: str) -> set[str]:
    raw = secret.encode("utf-8", "surrogatepass")
    compact = "".join(secret.split())  # app passwords are shown in groups
    escaped = json.dumps(secret)[1:-1]
    quoted = {quote(secret, errors="replace"), quote(secret, safe="", errors="replace")}
    quoted.add(quote_plus(secret, errors="replace"))
    return {
        *(secret, compact, html.escape(secret), raw.hex(), raw.hex().upper()),
        *quoted,
        *(re.sub(r"%[0-9A-F]{2}", lambda found: found[0].lower(), text) for text in quoted),
        *(escaped, json.dumps(escaped)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]),
        *(repr(secret)[1:-1], repr(raw)[2:-1]),
    }


def _base64(secret: str) -> set[str]:
    """Both alphabets. Within a longer text three places differ, and the characters at both ends depend on what
    stands around: those between them are the same wherever it stands."""
    raw = secret.encode("utf-8", "surrogatepass")
    found: set[str] = set()
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        found.add(encode(raw).decode().rstrip("="))
        for before in range(3):
            first, last = -(-8 * before // 6), 8 * (before + len(raw)) // 6
            piece = encode(b"\0" * before + raw).decode()[first:last]
            found |= {piece} if len(piece) >= _MIN_BASE64 else set()
    return found


class Masker:
    """Puts a mask in the place of some secrets. `repr` shows none of them."""

    def __init__(self, secrets: Iterable[str]) -> None:
        forms = set[str]().union(*(spellings(secret) for secret in secrets if secret))
        # the longest first: where one holds another, nothing of it may be left over
        self._forms = sorted(forms, key=lambda form: (-len(form), form))
        self._pattern = _pattern(tuple(self._forms)) if forms else None

    def __repr__(self) -> str:
        return f"Masker({len(self._forms)} spellings)"

    def text(self, text: str) -> str:
        """`text` with every spelling masked."""
        if self._pattern is None:
            return text
        flat = _LINE_END.sub("", text) if "\n" in text else text
        # most texts hold none, and looking for each is faster than the pattern
        found = any(form in text or form in flat for form in self._forms)
        return self._pattern.sub(MASK, text) if found else text

    def cut_text(self, text: str, *, at_end: bool = False) -> str:
        """The same for a text of which parts were cut off: where `…` stands, or (`at_end`) at its end alone.

        What is left of a spelling before a cut is masked too.
        """
        text = self.text(text)
        if at_end:
            return self._without_beginning(text.rstrip("\ufffd"))  # half a character, as it was decoded
        parts = text.split(CUT)
        return CUT.join([*map(self._without_beginning, parts[:-1]), parts[-1]])

    def _without_beginning(self, part: str) -> str:
        for form in self._forms:
            for length in range(len(form) - 1, _MIN_BEGINNING - 1, -1):
                if part.endswith(form[:length]):
                    return part[:-length] + MASK
        return part

    def data(self, value: Any) -> Any:
        """Plain JSON data with every spelling masked, in values and in keys."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.data(inner) for inner in cast("list[Any]", value)]
        if isinstance(value, dict):
            return self._object(cast("dict[str, Any]", value))
        return value

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        masked: dict[str, Any] = {}
        for key, inner in value.items():
            name = self.text(key)
            while name in masked:  # two keys that differ in what is masked
                name += "'"
            masked[name] = self.data(inner)
        return masked


_LINE_END = re.compile(r"\r?\n[ \t]*")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]+")


@lru_cache(maxsize=16)
def _pattern(forms: tuple[str, ...]) -> re.Pattern[str]:
    wrapped = (_WRAP.join(map(re.escape, form)) if _BASE64.fullmatch(form) else re.escape(form) for form in forms)
    return re.compile("|".join(wrapped))
