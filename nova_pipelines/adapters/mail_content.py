"""The bytes of a part of a mail, read and decoded in pieces when they are asked for: never whole in memory.

Knows transfer encodings (RFC 2045, 6) and temporary files, and nothing of headers or of what the bytes mean.
"""

from __future__ import annotations

import binascii
import re
import string
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from types import TracebackType
from typing import IO, Any, Self

from nova_pipelines.domain.errors import PermanentError, TransientError

PIECE_BYTES = 64 * 1024
#: a temporary file is kept in memory up to this size
_SPOOL_BYTES = 64 * 1024
#: all that one mail may unpack to: decoded archives and mails within the mail
MAX_SCRATCH_BYTES = 256 * 1024 * 1024

_ALPHABET = (string.ascii_letters + string.digits + "+/").encode()
_NOT_BASE64 = bytes(set(range(256)) - set(_ALPHABET + b"="))


class Scratch:
    """Temporary files of one mail; use it in a `with`. Together they are at most `limit` bytes.

    `in_memory`: they are no files then, and need no closing.
    """

    def __init__(self, limit: int = MAX_SCRATCH_BYTES, *, in_memory: bool = False) -> None:
        self._left, self._in_memory = limit, in_memory
        self._files: list[IO[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._files:
            self._files.pop().close()

    def file(self, pieces: Iterable[bytes]) -> tuple[IO[bytes], int]:
        """A seekable file with these bytes, and its size.

        Raises PermanentError over the limit, and TransientError when they cannot be written (a full disk).
        """
        made: Any = BytesIO() if self._in_memory else tempfile.SpooledTemporaryFile(_SPOOL_BYTES)  # noqa: SIM115
        self._files.append(made)
        size = 0
        for piece in pieces:
            size += len(piece)
            self._left -= len(piece)
            if self._left < 0:
                raise PermanentError(
                    "the mail unpacks to more than NOVA keeps at once", remedy="look at the mail in the mailbox"
                )
            _write(made, piece)
        return made, size


def _write(file: IO[bytes], piece: bytes) -> None:
    try:
        file.write(piece)
    except OSError as error:
        raise TransientError(
            f"a mail cannot be unpacked into {tempfile.gettempdir()}: {error.strerror or error}",
            remedy="free disk space there, or set TMPDIR to a folder that has some; nothing was lost",
        ) from error


@dataclass(frozen=True, slots=True)
class Content:
    """What stands in `ranges` (from, to) of a file under a transfer encoding. The file must stay open, and nobody
    else may rely on its position."""

    file: IO[bytes] = field(repr=False)
    ranges: tuple[tuple[int, int], ...]
    encoding: str = ""

    def pieces(self) -> Iterator[bytes]:
        return _DECODERS.get(self.encoding, _as_it_is)(self._raw())

    def head(self, size: int) -> bytes:
        """The first bytes, `size` at most."""
        found = b""
        for piece in self.pieces():
            found += piece
            if len(found) >= size:
                break
        return found[:size]

    def _raw(self) -> Iterator[bytes]:
        for start, end in self.ranges:
            position = start
            while position < end:
                self.file.seek(position)
                piece = self.file.read(min(PIECE_BYTES, end - position))
                if not piece:
                    return
                position += len(piece)
                yield piece


@dataclass(frozen=True, slots=True)
class Opened:
    """Content that another reader gives, such as a file within an archive; `opened` makes a new reader of it."""

    opened: Callable[[], IO[bytes]] = field(repr=False)

    def pieces(self) -> Iterator[bytes]:
        with self.opened() as reader:
            while piece := reader.read(PIECE_BYTES):
                yield piece

    def head(self, size: int) -> bytes:
        with self.opened() as reader:
            return reader.read(size)


def _as_it_is(raw: Iterator[bytes]) -> Iterator[bytes]:
    return raw


def _base64(raw: Iterator[bytes]) -> Iterator[bytes]:
    """As the stdlib does without `validate`: what is not of the alphabet is skipped, padding is the end."""
    rest = b""
    for piece in raw:
        data = rest + piece.translate(None, _NOT_BASE64)
        start = 0
        while (pad := data.find(b"=", start)) >= 0:
            if pad % 4 >= 2:
                yield _decoded(data[:pad])
                return
            data = data[:pad] + data[pad:].lstrip(b"=")
            start = pad
        whole = len(data) - len(data) % 4
        yield binascii.a2b_base64(data[:whole])
        rest = data[whole:]
    yield _decoded(rest)


def _decoded(data: bytes) -> bytes:
    """Base64 whose padding is missing; a last character alone (6 bits) is no byte."""
    usable = data[:-1] if len(data) % 4 == 1 else data
    return binascii.a2b_base64(usable + b"=" * (-len(usable) % 4))


def _quoted_printable(raw: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in raw:
        data = rest + piece
        cut = data.rfind(b"\n") + 1
        if not cut and len(data) > PIECE_BYTES:  # a line without end: not cut within `=XX`
            cut = len(data) - 2
            cut = data.rfind(b"=", cut - 2, cut) if b"=" in data[cut - 2 : cut] else cut
        yield binascii.a2b_qp(data[:cut])
        rest = data[cut:]
    yield binascii.a2b_qp(rest)


def _uuencoded(raw: Iterator[bytes]) -> Iterator[bytes]:
    """The lines between `begin` and `end`; a line that is broken is left out, as the stdlib does."""
    begun = False
    for line in _lines(raw):
        if not begun:
            begun = re.match(rb"begin [0-7]+ ", line) is not None
        elif line.strip() == b"end":
            return
        else:
            yield _uu_line(line)


def _uu_line(line: bytes) -> bytes:
    if not line.strip(b"\r\n"):
        return b""
    try:
        return binascii.a2b_uu(line)
    except binascii.Error:  # some programs count the line's length wrong: the stdlib's own workaround
        count = (((line[0] - 32) & 63) * 4 + 5) // 3
        try:
            return binascii.a2b_uu(line[:count])
        except binascii.Error:
            return b""


def _lines(raw: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in raw:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
        if len(rest) > PIECE_BYTES:
            rest = b""  # no line of uuencoded data is that long
    yield rest


_DECODERS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "base64": _base64,
    "quoted-printable": _quoted_printable,
} | dict.fromkeys(("x-uuencode", "uuencode", "uue", "x-uue"), _uuencoded)
