"""The files in a `winmail.dat`: Outlook's own container for attachments (TNEF, [MS-OXTNEF]).

Read attribute by attribute, so that nothing of it is held in memory. Not by tnefparse (last release 2021): it
takes the whole file into memory several times over, and the file is hostile.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

SIGNATURE = struct.pack("<I", 0x223E9F78)
MAX_ATTRIBUTES = 2_000
_HEADER = struct.Struct("<BII")  # level, attribute, length
_RENDERING, _TITLE, _DATA, _PROPERTIES = 0x00069002, 0x00018010, 0x0006800F, 0x00069005
_LONG_FILENAME, _DATA_VALUE = 0x3707, 0x3701
_UNICODE, _OBJECT, _SEVERAL = 0x001F, 0x000D, 0x1000
_MAX_VALUES = 500  # of one attachment; some 20 are usual
#: bytes of a value by its MAPI type; what is not here has a length of its own
_FIXED = {0x0002: 4, 0x0003: 4, 0x0004: 4, 0x000A: 4, 0x000B: 4}
_FIXED |= dict.fromkeys((0x0005, 0x0006, 0x0007, 0x0014, 0x0040), 8) | {0x0048: 16}
_COUNTED = (0x001E, 0x001F, 0x0102, 0x000D)


@dataclass(slots=True)
class TnefFile:
    """An attachment: its name, maybe empty, and where its bytes lie in the TNEF file."""

    name: str = ""
    start: int = 0
    end: int = 0


def tnef_files(file: IO[bytes], size: int) -> Iterator[TnefFile]:
    """The attachments in their order; a mail within the mail is one that is TNEF itself.

    What is cut off or damaged ends the list: what was found before it counts. Raises ValueError for a file that
    is no TNEF or has more attributes than any mail.
    """
    file.seek(0)
    if file.read(6)[:4] != SIGNATURE:
        raise ValueError("it does not begin as TNEF does")
    current: TnefFile | None = None
    position, count = 6, 0
    while position + _HEADER.size <= size:
        count += 1
        if count > MAX_ATTRIBUTES:
            raise ValueError(f"it has more than {MAX_ATTRIBUTES} attributes")
        file.seek(position)
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size:
            break
        level, attribute, length = _HEADER.unpack(header)
        start, end = position + _HEADER.size, position + _HEADER.size + length
        if level not in (1, 2) or end > size:
            break
        if attribute == _RENDERING:
            yield from _complete(current)
            current = TnefFile()
        elif level == 2 and current is not None:
            _note(current, file, attribute, start, end)
        position = end + 2  # a checksum follows, which programs get wrong
    yield from _complete(current)


def _complete(current: TnefFile | None) -> Iterator[TnefFile]:
    if current and current.end > current.start:
        yield current


def _note(current: TnefFile, file: IO[bytes], attribute: int, start: int, end: int) -> None:
    file.seek(start)
    if attribute == _TITLE:
        current.name = current.name or _text(file.read(min(end - start, 1024)))
    elif attribute == _DATA:
        current.start, current.end = start, end
    elif attribute == _PROPERTIES:
        for name, kind, value_start, value_end in _values(file, start, end):
            if name == _LONG_FILENAME:
                file.seek(value_start)
                raw = file.read(min(value_end - value_start, 2048))
                current.name = _text(raw, "utf-16-le" if kind == _UNICODE else "cp1252") or current.name
            elif name == _DATA_VALUE and current.end == 0 and value_end <= end:
                # an object is another TNEF file, after the id of an interface
                current.start, current.end = value_start + (16 if kind == _OBJECT else 0), value_end


def _values(file: IO[bytes], start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Of each property ([MS-OXTNEF] 2.1.3.4) with a length of its own: id, type, from, to.

    Stops without a word at what it cannot read: there is no document behind it that could be told from noise.
    """
    position, left = start + 4, _MAX_VALUES
    try:
        for _ in range(min(_number(file, start), _MAX_VALUES)):
            word = _number(file, position)
            kind, name = word & 0xFFFF, word >> 16
            position += 4
            if name >= 0x8000:
                position = _after_name(file, position)
            values = 1
            if kind & _SEVERAL or kind in _COUNTED:
                values = _number(file, position)
                position += 4
            base = kind & ~_SEVERAL
            if base in _FIXED:
                position += _FIXED[base] * values
                continue
            left -= values
            if base not in _COUNTED or left < 0:
                return
            for _ in range(values):
                length = _number(file, position)
                position += 4
                yield name, base, position, position + length
                position += length + -length % 4
            if position > end:
                return
    except struct.error:
        return


def _number(file: IO[bytes], position: int) -> int:
    file.seek(position)
    return struct.unpack("<I", file.read(4))[0]


def _after_name(file: IO[bytes], position: int) -> int:
    """Past the name of a property that has one: a GUID and a number, or a GUID and a text."""
    kind, length = _number(file, position + 16), _number(file, position + 20)
    return position + 24 + (length + -length % 4 if kind == 1 else 0)


def _text(raw: bytes, charset: str = "cp1252") -> str:
    return raw.decode(charset, "replace").partition("\0")[0]
