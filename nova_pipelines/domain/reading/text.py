"""The text of a document as lines: bounded in size, without invisible characters, with the amounts of each line.

Knows no labels and no meaning.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from nova_pipelines.domain.amounts import Amount, find_amounts

#: what is read of a document, at most: the beginning and, because totals stand there, the end
MAX_CHARS = 300_000
MAX_LINE = 600

#: format characters (zero width, direction, soft hyphen, tags) and controls: not seen on paper, so not read
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x81-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
_FOREIGN_DIGIT = re.compile(r"[^\W0-9a-zA-Z_]")
_COMBINING = re.compile("[\u0300-\u036f]")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True)
class Line:
    """One line. `plain` is without accents, `folded` in lower case too (for labels; lengths may differ from
    `text`). `page` counts from 0.
    """

    text: str
    plain: str
    folded: str
    page: int

    @cached_property
    def amounts(self) -> tuple[Amount, ...]:
        return tuple(find_amounts(self.text)) if any(map(str.isdigit, self.text)) else ()

    @cached_property
    def money(self) -> tuple[Amount, ...]:
        """The amounts that look like money: with decimals, groups or a currency, not digits alone."""
        return tuple(a for a in self.amounts if not a.bare)

    @cached_property
    def only_amounts(self) -> bool:
        """Amounts and their currencies, and not a word."""
        if not self.amounts:
            return False
        rest, last = "", 0
        for amount in self.amounts:
            rest, last = rest + self.text[last : amount.start], amount.end
        return not _LETTER.search(rest + self.text[last:])


def unaccented(text: str) -> str:
    return text if text.isascii() else _COMBINING.sub("", unicodedata.normalize("NFKD", text))


def fold(text: str) -> str:
    """For comparing words: without accents, lower case."""
    return unaccented(text).casefold()


def read_lines(pages: Sequence[str]) -> tuple[list[Line], bool]:
    """The lines that are not empty, and whether something was left out because there was too much of it."""
    kept, cut = _bounded(pages)
    lines: list[Line] = []
    for number, page in kept:
        whole = [stripped for raw in clean(page).splitlines() if (stripped := raw.strip())]
        cut = cut or any(len(text) > MAX_LINE for text in whole)
        texts = [text[:MAX_LINE] for text in whole]
        if not texts:
            continue
        plain = unaccented("\n".join(texts))
        # line by line, the three forms stay in step: neither form makes or removes a line break
        for text, bare, folded in zip(texts, plain.split("\n"), plain.casefold().split("\n"), strict=True):
            lines.append(Line(text, bare, folded, number))
    return lines, cut


def clean(text: str) -> str:
    """Without invisible characters. A digit of another script becomes a mark that no number may touch: refused."""
    if not text.isascii():
        text = text.replace("\x80", "€").replace("\x85", "\n")
        text = _FOREIGN_DIGIT.sub(_refuse_digit, text)
    return _INVISIBLE.sub("", text)


def _refuse_digit(match: re.Match[str]) -> str:
    return "\ufffd" if match[0].isdigit() else match[0]


def _bounded(pages: Sequence[str]) -> tuple[list[tuple[int, str]], bool]:
    """Pages with their numbers; of too long a document half of the allowance from each end."""
    if sum(map(len, pages)) <= MAX_CHARS:
        return list(enumerate(pages)), False
    half = room = MAX_CHARS // 2
    first: list[tuple[int, str]] = []
    for number, page in enumerate(pages):
        first.append((number, page[:room]))
        room -= len(page)
        if room <= 0:
            break
    last: list[tuple[int, str]] = []
    room, stop = half, first[-1][0]
    for number in range(len(pages) - 1, stop - 1, -1):
        page = pages[number] if number > stop else pages[number][len(first[-1][1]) :]
        last.append((number, page[-room:]))
        room -= len(page)
        if room <= 0:
            break
    return first + last[::-1], True
