"""S/MIME and other CMS files (RFC 5652): what they are, and the content of signed ones.

Reads only the outer structure, DER or BER with lengths left open. Checks no signature and decrypts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, Literal

_OID = bytes.fromhex("06092a864886f70d0107")  # 1.2.840.113549.1.7.x: x is the kind
_AUTHENTICATED = bytes.fromhex("060b2a864886f70d0109100117")  # authEnvelopedData, RFC 5083
_SEQUENCE, _EXPLICIT, _OCTETS, _CONSTRUCTED_OCTETS = 0x30, 0xA0, 0x04, 0x24
#: pieces of a content written as a stream
MAX_PIECES = 100_000

Kind = Literal["signed", "encrypted"]


@dataclass(frozen=True, slots=True)
class _Element:
    tag: int
    start: int
    #: None: up to the end-of-contents mark
    end: int | None


def cms_kind(head: bytes) -> Kind | None:
    """What the first 100 bytes of a file say that it is; None: no CMS file, or one that holds no content."""
    if head[:1] != b"\x30":
        return None
    begin = head[:30]
    place = begin.find(_OID)
    if 0 < place <= 10 and len(begin) > place + len(_OID):
        return {2: "signed", 3: "encrypted", 6: "encrypted"}.get(begin[place + len(_OID)])  # type: ignore[return-value]
    return "encrypted" if 0 < begin.find(_AUTHENTICATED) <= 10 else None


def signed_content(file: IO[bytes], size: int) -> tuple[tuple[int, int], ...]:
    """Where the content lies in a signed file; empty if it is only a signature of something else.

    Raises ValueError when the structure is broken.
    """
    outer = _element(file, 0, size, _SEQUENCE)
    kind = _element(file, outer.start, size)
    wrapper = _element(file, _after(kind), size, _EXPLICIT)
    signed = _element(file, wrapper.start, size, _SEQUENCE)
    version = _element(file, signed.start, size)
    digests = _element(file, _after(version), size)
    content = _element(file, _skip(file, digests, size), size, _SEQUENCE)
    content_kind = _element(file, content.start, size)
    place = _after(content_kind)
    if content.end is not None and place >= content.end:
        return ()
    explicit = _element(file, place, size)
    if explicit.tag != _EXPLICIT:
        return ()
    return _octets(file, _element(file, explicit.start, size), size)


def _octets(file: IO[bytes], element: _Element, size: int) -> tuple[tuple[int, int], ...]:
    if element.tag == _OCTETS:
        return ((element.start, _after(element)),)
    if element.tag != _CONSTRUCTED_OCTETS:
        raise ValueError("its content is no octet string")
    found: list[tuple[int, int]] = []
    position = element.start
    while element.end is None or position < element.end:
        piece = _element(file, position, size)
        if piece.tag == 0 and element.end is None:
            break
        if piece.tag != _OCTETS or len(found) >= MAX_PIECES:
            raise ValueError("its content is written in a way that is not supported")
        found.append((piece.start, _after(piece)))
        position = _after(piece)
    return tuple(found)


def _element(file: IO[bytes], position: int, size: int, expected: int | None = None) -> _Element:
    file.seek(position)
    head = file.read(10)
    if len(head) < 2 or (expected is not None and head[0] != expected) or head[0] & 0x1F == 0x1F:
        raise ValueError("it is damaged or cut off")
    tag, length = head[0], head[1]
    if length == 0x80:
        return _Element(tag, position + 2, None)
    count = length & 0x7F if length & 0x80 else 0
    if count > 8 or len(head) < 2 + count:
        raise ValueError("it is damaged or cut off")
    start = position + 2 + count
    end = start + (int.from_bytes(head[2 : 2 + count], "big") if count else length)
    if end > size:
        raise ValueError("it is damaged or cut off")
    return _Element(tag, start, end)


def _after(element: _Element) -> int:
    if element.end is None:
        raise ValueError("it is written in a way that is not supported")
    return element.end


def _skip(file: IO[bytes], element: _Element, size: int) -> int:
    """Past an element whose length may have been left open; of its parts all have one."""
    if element.end is not None:
        return element.end
    position = element.start
    for _ in range(100):
        part = _element(file, position, size)
        position = _after(part)
        if part.tag == 0:
            return position
    raise ValueError("it is written in a way that is not supported")
