"""The parts of a mail as places in its file, found in one pass over it (RFC 2046, 5.1).

The stdlib's parser holds the whole mail several times over and compares each line with each boundary; here only
headers are in memory, and the time is linear. Knows nothing of what parts contain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import errors
from email.message import Message
from typing import IO

from nova_pipelines.adapters.mail_headers import parse_headers, raw_value
from nova_pipelines.domain.errors import PermanentError

MAX_HEADERS = 2000
#: of one part
MAX_HEADER_BYTES = 256 * 1024
#: a Content-Type longer than this would cost the stdlib quadratic time
MAX_PARAMETER_BYTES = 8 * 1024
MAX_BOUNDARY = 1000
#: lines that begin like a boundary; each costs a microsecond or two
MAX_DASHED_LINES = 500_000

_WINDOW = 64 * 1024
_DASHED = re.compile(rb"--[^\r\n]{0,%d}" % (MAX_BOUNDARY + 200))
# what the stdlib's parser takes for a header line
_HEADER_LINE = re.compile(rb"From |[\x21-\x39\x3b-\x7e]*:|[ \t]")
_LONG_HEADER = re.compile(
    rb"(?:^|[\r\n])content-(?:type|disposition)[ \t]*:((?:[^\r\n]+|(?:\r\n|\r|\n)[ \t])*+)", re.IGNORECASE
)
#: what the stdlib's parameter decoding was seen to raise on hostile input
PARSER_FAULTS = (errors.MessageError, ValueError, LookupError, TypeError, AttributeError)
_ENTERED = ("message/rfc822", "message/global", "message/news")


@dataclass(frozen=True, slots=True)
class Section:
    """A part: its headers, and where its content lies in `file`. `holder`: it only holds the parts that follow.

    `depth`: in how many mails within the mail it stands.
    """

    headers: Message
    file: IO[bytes] = field(repr=False)
    start: int
    end: int
    depth: int
    holder: bool


@dataclass(frozen=True, slots=True)
class _Delimiter:
    start: int
    end: int
    level: int
    closing: bool


def sections(file: IO[bytes], size: int, depth: int = 0) -> Iterator[Section]:
    """All parts of the mail in `file`, in their order, holders before what they hold.

    Raises PermanentError for headers out of all proportion. How many parts are too many is the caller's matter.
    """
    return _Walk(file, size).run(depth)


def transfer_encoding(part: Message) -> str:
    """The bare word: the stdlib does not decode `base64 ` or `base64;`."""
    found = re.match(r"[\w-]+", (raw_value(part, "Content-Transfer-Encoding") or "").strip())
    return found.group().lower() if found else ""


class _Walk:
    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size
        #: delimiters of the multiparts that are open, and their levels; the outermost of equal ones counts
        self._open: dict[bytes, int] = {}
        #: of each open multipart: its depth, and whether it is a digest
        self._levels: list[tuple[int, bool]] = []
        self._dashed = 0

    def run(self, depth: int) -> Iterator[Section]:
        headers, position = self._headers(0, digest=False)
        while True:
            if _entered(headers):
                yield Section(headers, self._file, position, position, depth, holder=True)
                depth += 1
                headers, position = self._headers(position, digest=False)
                continue
            level = self._enter(headers, depth)
            delimiter = self._delimiter(position)
            # a multipart whose boundary never comes is a part like any other
            holder = delimiter is not None and delimiter.level == level and not delimiter.closing
            if not holder and (delimiter is None or delimiter.level != level):
                self._leave_to(level)
            yield Section(headers, self._file, position, self._body_end(position, delimiter), depth, holder)
            while delimiter and delimiter.closing:  # after it, text that nobody shows
                self._leave_to(delimiter.level)
                delimiter = self._delimiter(delimiter.end)
            if delimiter is None:
                return
            self._leave_to(delimiter.level + 1)
            depth, digest = self._levels[delimiter.level]
            headers, position = self._headers(delimiter.end, digest=digest)

    def _enter(self, headers: Message, depth: int) -> int:
        """The level of the multipart that begins here; of what is none, the number of those that are open."""
        level = len(self._levels)
        boundary = _boundary(headers)
        if boundary:
            self._open.setdefault(b"--" + boundary, level)
            self._levels.append((depth, headers.get_content_type() == "multipart/digest"))
        return level

    def _leave_to(self, level: int) -> None:
        del self._levels[level:]
        self._open = {line: at for line, at in self._open.items() if at < level}

    def _headers(self, start: int, *, digest: bool) -> tuple[Message, int]:
        """The headers that begin at `start`, and where the content begins."""
        self._file.seek(start)
        block = self._file.read(min(MAX_HEADER_BYTES + 1, self._size - start))
        length = 0
        position = start
        for count, line in enumerate(_lines(block)):
            position = start + length
            bare = line.rstrip(b"\r\n")
            if not bare:
                position += len(line)
                break
            if not _HEADER_LINE.match(line) or (bare.startswith(b"--") and self._level(bare)):
                break
            length += len(line)
            if count >= MAX_HEADERS or length > MAX_HEADER_BYTES:
                raise too_complicated(
                    f"a part has more than {MAX_HEADERS} lines or {MAX_HEADER_BYTES} bytes of headers"
                )
            position = start + length
        head = block[:length]
        for header in _LONG_HEADER.finditer(head):
            if len(header.group(1)) > MAX_PARAMETER_BYTES:
                raise too_complicated(f"it has a Content-Type or Content-Disposition of {len(header.group(1))} bytes")
        message = parse_headers(head)
        if digest:
            message.set_default_type("message/rfc822")
        return message, position

    def _level(self, line: bytes) -> tuple[int, bool] | None:
        """Whose delimiter a line (without its end) is, and whether it closes."""
        bare = line.rstrip(b" \t")
        for text, closing in ((bare, False), (bare[:-2] if bare.endswith(b"--") else b"", True)):
            if text in self._open:
                return self._open[text], closing
        return None

    def _delimiter(self, start: int) -> _Delimiter | None:
        """The first line from `start` on, itself the beginning of a line, that is a delimiter of an open multipart."""
        position = start
        while self._open and position < self._size:
            self._file.seek(position)
            window = self._file.read(min(_WINDOW, self._size - position))
            if not window:
                return None
            last = position + len(window) >= self._size
            resume = position + len(window)
            for match in _DASHED.finditer(window):
                if match.end() == len(window) and not last and match.start() > 0:
                    resume = position + match.start() - 1  # the line goes on in the next window
                    break
                if match.start() == 0 and position != start:
                    continue  # of a later window the first byte only shows what stands before the second
                if match.start() > 0 and window[match.start() - 1] not in b"\r\n":
                    continue
                self._count()
                level = self._level(match.group())
                if level:
                    return self._found(position + match.start(), position + match.end(), *level)
            else:
                resume -= 0 if last else 2  # `\n-` may be the beginning of one
            position = resume
        return None

    def _found(self, start: int, end: int, level: int, closing: bool) -> _Delimiter:
        self._file.seek(end)
        following = self._file.read(2)
        newline = 2 if following == b"\r\n" else 1 if following[:1] in (b"\r", b"\n") else 0
        return _Delimiter(start, min(end + newline, self._size), level, closing)

    def _count(self) -> None:
        self._dashed += 1
        if self._dashed > MAX_DASHED_LINES:
            raise too_complicated(f"it has more than {MAX_DASHED_LINES} lines that look like boundaries")

    def _body_end(self, begin: int, delimiter: _Delimiter | None) -> int:
        """The line end before a delimiter belongs to the delimiter."""
        if delimiter is None:
            return self._size
        before = max(begin, delimiter.start - 2)
        self._file.seek(before)
        tail = self._file.read(delimiter.start - before)
        newline = 2 if tail == b"\r\n" else 1 if tail.endswith((b"\n", b"\r")) else 0
        return delimiter.start - newline


def _entered(headers: Message) -> bool:
    """A mail within the mail. RFC 2046, 5.2.1 forbids to encode one; some programs do, and then it is a file."""
    encoded = transfer_encoding(headers) in ("base64", "quoted-printable")
    return headers.get_content_type() in _ENTERED and not encoded


def _boundary(headers: Message) -> bytes | None:
    if headers.get_content_maintype() != "multipart":
        return None
    try:
        boundary = headers.get_boundary()
    except PARSER_FAULTS:
        return None
    encoded = boundary.encode("utf-8", "surrogateescape") if boundary else None
    if encoded and len(encoded) > MAX_BOUNDARY:
        raise too_complicated(f"it has a boundary of {len(encoded)} bytes")
    return encoded


def _lines(block: bytes) -> Iterator[bytes]:
    """Lines with their ends, one after another: most blocks are read no further than their first empty line."""
    for match in re.finditer(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", block):
        yield match.group()


def too_complicated(what: str) -> PermanentError:
    return PermanentError(f"the mail is too complicated to be read: {what}", remedy="look at the mail in the mailbox")
