"""The files that a mail carries, however they were wrapped: in mails within the mail, archives, signed envelopes.

Found by their first bytes and not by what the mail says of them. What cannot be opened is named, so that a person
looks at it. The mail is hostile: parts, nesting and unpacked bytes are bounded.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass, field, replace
from email.message import Message
from typing import IO

from nova_pipelines.adapters import cms, tnef, zip_files
from nova_pipelines.adapters.mail_content import Content, Opened, Scratch
from nova_pipelines.adapters.mail_headers import clean_line, decode_words, raw_value
from nova_pipelines.adapters.mime_sections import (
    PARSER_FAULTS,
    Section,
    sections,
    too_complicated,
    transfer_encoding,
)

MAX_PARTS = 200
#: mails, archives and envelopes inside one another
MAX_DEPTH = 10
#: an archive may hold archives, but those hold no further ones
MAX_ARCHIVES = 2
MAX_FILENAME = 200
MAX_PROBLEMS = 20
HEAD_BYTES = 1024

_MEDIA_TYPE = re.compile(r"[\w.+-]{1,50}/[\w.+-]{1,49}", re.ASCII)
_MIME_ENTITY = re.compile(rb"\s*(?:content-type|mime-version|content-transfer-encoding)[ \t]*:", re.IGNORECASE)
_PGP = re.compile(rb"^-----BEGIN PGP MESSAGE-----", re.MULTILINE)
#: archives that are only recognised
_CLOSED_ARCHIVES = {b"Rar!\x1a\x07": "RAR", b"7z\xbc\xaf\x27\x1c": "7z", b"\x1f\x8b\x08": "gzip", b"BZh": "bzip2"}
_WRAPPERS = (zip_files.SIGNATURE, tnef.SIGNATURE, *_CLOSED_ARCHIVES)
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part or file without parts. `is_body`: text that a mail program shows as the mail itself.

    `depth`: how many mails, archives and envelopes are around it; `zips`: how many of them are ZIP archives.
    """

    filename: str
    media_type: str
    content: Content = field(repr=False)
    head: bytes = field(repr=False)
    depth: int = 0
    zips: int = 0
    is_body: bool = False
    charset: str | None = None

    @property
    def is_pdf(self) -> bool:
        # in a body that speaks of PDF the magic may stand anywhere, and in a forwarded mail too
        text = self.is_body or self.filename.lower().endswith(".eml")
        return self.head.lstrip().startswith(b"%PDF-") if text else is_pdf(self.head)

    @property
    def shown(self) -> str:
        return repr(self.filename or self.media_type)


@dataclass(slots=True)
class Found:
    """`problems`: what could not be opened and why, in words for a person. `encrypted`: by what, if anything is:
    `openpgp`, `smime` or `zip`."""

    leaves: list[Leaf] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    encrypted: str | None = None


def find_parts(file: IO[bytes], size: int, scratch: Scratch) -> Found:
    """All parts and files of a mail in their order. Raises PermanentError for one built to be expensive."""
    search = _Search(scratch)
    search.mail(file, size, depth=0, zips=0)
    return search.found


def is_pdf(content: bytes) -> bool:
    """PDF 32000-1, note 13 of annex H: a reader accepts the header within the first 1024 bytes. But there it also
    stands in what holds a small PDF as it is: an archive, an envelope."""
    head = content[:HEAD_BYTES]
    return b"%PDF-" in head and not head.startswith(_WRAPPERS) and cms.cms_kind(head) is None


class _Search:
    def __init__(self, scratch: Scratch) -> None:
        self.found = Found()
        self._scratch = scratch
        self._count = 0

    def mail(self, file: IO[bytes], size: int, *, depth: int, zips: int) -> None:
        for section in sections(file, size, depth):
            self._counted(section.depth)
            if not section.holder:
                self._take(_leaf(section, zips))
            elif section.headers.get_content_type() == "multipart/encrypted":
                self._encrypted("openpgp")

    def _counted(self, depth: int) -> None:
        self._count += 1
        if self._count > MAX_PARTS or depth > MAX_DEPTH:
            raise too_complicated(f"it has more than {MAX_PARTS} parts or {MAX_DEPTH} mails inside one another")

    def _take(self, leaf: Leaf) -> None:
        if leaf.media_type in ("message/rfc822", "message/global"):  # encoded, or it would be a holder
            self._enter(leaf)
            return
        self.found.leaves.append(leaf)
        if leaf.is_pdf:
            return
        if leaf.filename.lower().endswith(".eml"):
            self._enter(leaf)
        elif leaf.head.startswith(zip_files.SIGNATURE):
            self._zip(leaf)
        elif leaf.head.startswith(tnef.SIGNATURE):
            self._tnef(leaf)
        elif kind := cms.cms_kind(leaf.head):
            self._cms(leaf, kind)
        elif _is_pgp(leaf):
            self._encrypted("openpgp")
        else:
            closed = next((name for magic, name in _CLOSED_ARCHIVES.items() if leaf.head.startswith(magic)), None)
            if closed:
                self._problem(f"{leaf.shown} is a {closed} archive, which NOVA does not open")

    def _enter(self, leaf: Leaf) -> None:
        self._counted(leaf.depth + 1)
        self.mail(*self._scratch.file(leaf.content.pieces()), depth=leaf.depth + 1, zips=leaf.zips)

    # -- archives and envelopes ----------------------------------------------------------------------------

    def _zip(self, leaf: Leaf) -> None:
        if leaf.zips >= MAX_ARCHIVES:
            self._problem(f"{leaf.shown} is an archive within archives, which NOVA does not open")
            return
        try:
            for entry in zip_files.zip_entries(*self._scratch.file(leaf.content.pieces())):
                name = safe_filename(entry.name)
                if entry.problem:
                    self._problem(f"{name!r} in the archive {leaf.shown} {entry.problem}")
                    if entry.problem == zip_files.ENCRYPTED:
                        self.found.encrypted = self.found.encrypted or "zip"
                else:
                    self._zip_entry(leaf, entry, name)
        except _ZIP_FAULTS as error:
            reason = str(error) if isinstance(error, ValueError) else "it is damaged"
            self._problem(f"the archive {leaf.shown} cannot be opened: {clean_line(reason, 300)}")

    def _zip_entry(self, leaf: Leaf, entry: zip_files.ZipFileEntry, name: str) -> None:
        content = Opened(entry.opened)
        head = content.head(HEAD_BYTES)
        if _is_interesting(head, name):
            # read to its end now: a file that is damaged further on is said with the archive
            file, size = self._scratch.file(content.pieces())
            self._inner(leaf, name, Content(file, ((0, size),)), zips=leaf.zips + 1)

    def _tnef(self, leaf: Leaf) -> None:
        file, size = self._scratch.file(leaf.content.pieces())
        try:
            for inner in tnef.tnef_files(file, size):
                self._inner(leaf, safe_filename(inner.name), Content(file, ((inner.start, inner.end),)))
        except ValueError as error:
            self._problem(f"Outlook's container {leaf.shown} cannot be opened: {error}")

    def _cms(self, leaf: Leaf, kind: cms.Kind) -> None:
        if kind == "encrypted":
            self._encrypted("smime")
            return
        file, size = self._scratch.file(leaf.content.pieces())
        try:
            content = Content(file, cms.signed_content(file, size))
        except ValueError as error:
            self._problem(f"the signed file {leaf.shown} cannot be opened: {error}")
            return
        if _MIME_ENTITY.match(content.head(HEAD_BYTES)):  # the mail itself in an envelope, at the same depth
            self._counted(leaf.depth)
            self.mail(*self._scratch.file(content.pieces()), depth=leaf.depth, zips=leaf.zips)
        elif content.ranges:
            self._inner(leaf, re.sub(r"\.p7m$", "", leaf.filename, flags=re.IGNORECASE), content)

    def _inner(self, outer: Leaf, name: str, content: Content, *, zips: int | None = None) -> None:
        self._counted(outer.depth + 1)
        head = content.head(HEAD_BYTES)
        media_type = "application/pdf" if is_pdf(head) else "application/octet-stream"
        zips = outer.zips if zips is None else zips
        self._take(Leaf(name, media_type, content, head, depth=outer.depth + 1, zips=zips))

    def _encrypted(self, how: str) -> None:
        names = {"openpgp": "OpenPGP", "smime": "S/MIME"}
        self.found.encrypted = self.found.encrypted or how
        self._problem(f"the mail or a part of it is encrypted with {names[how]}, which NOVA cannot read")

    def _problem(self, text: str) -> None:
        if text not in self.found.problems and len(self.found.problems) < MAX_PROBLEMS:
            self.found.problems.append(text)


def _is_pgp(leaf: Leaf) -> bool:
    binary = leaf.filename.lower().endswith((".pgp", ".gpg")) and leaf.head[:1] >= b"\x80"
    return binary or _PGP.search(leaf.head) is not None


def _is_interesting(head: bytes, name: str) -> bool:
    """Whether a file of an archive may be or hold an invoice."""
    endings = (".eml", ".pgp", ".gpg")
    return (
        is_pdf(head)
        or head.startswith(_WRAPPERS)
        or name.lower().endswith(endings)
        or cms.cms_kind(head) is not None
        or _PGP.search(head) is not None
    )


# -- one part ----------------------------------------------------------------------------------------------


def _leaf(section: Section, zips: int) -> Leaf:
    part = section.headers
    content = Content(section.file, ((section.start, section.end),), transfer_encoding(part))
    filename, media_type = _filename(part), _media_type(part)
    disposition = (raw_value(part, "Content-Disposition") or "").strip().lower()
    plain_text = media_type in ("text/plain", "text/html")
    shown = plain_text and not filename and not disposition.startswith("attachment")
    # delivery reports are told by their own text; they carry no document
    report = media_type in ("message/delivery-status", "message/disposition-notification")
    leaf = Leaf(filename, media_type, content, content.head(HEAD_BYTES), section.depth, zips, shown or report)
    return replace(leaf, charset=_charset(part)) if shown else leaf


def _media_type(part: Message) -> str:
    claimed = part.get_content_type().lower()
    return claimed if _MEDIA_TYPE.fullmatch(claimed) else "application/octet-stream"


def _charset(part: Message) -> str | None:
    try:
        return part.get_content_charset()
    except PARSER_FAULTS:
        return None


def _filename(part: Message) -> str:
    """The safe file name of a part, RFC 2231 or (against the standards, but usual) RFC 2047; maybe empty."""
    for header in ("Content-Disposition", "Content-Type"):
        value = raw_value(part, header)
        if value is not None:  # with bytes beyond ASCII decoded: the stdlib would make U+FFFD of them
            part.replace_header(header, value)
    try:
        name = part.get_filename()
    except PARSER_FAULTS:
        return ""
    return safe_filename(decode_words(name)) if name else ""


def safe_filename(name: str) -> str:
    """A bare file name for any system: no folders, no control or direction characters, at most 200
    characters with its ending kept. Empty when nothing is left."""
    bare = clean_line(name, 4096).replace("\\", "/").rsplit("/", 1)[-1]
    bare = re.sub("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", "", bare)
    bare = re.sub(r'[<>:"|?*]', "_", bare).strip(" .")
    if len(bare) <= MAX_FILENAME:
        return bare
    stem, dot, ending = bare.rpartition(".")
    if not dot or len(ending) > 10:
        return bare[:MAX_FILENAME]
    return stem[: MAX_FILENAME - len(ending) - 1] + dot + ending
