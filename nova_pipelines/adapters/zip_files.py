"""The files in a ZIP archive, with every bound that a hostile one needs. Unpacks only when content is asked for."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

SIGNATURE = b"PK\x03\x04"
MAX_ENTRIES = 1000
MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_TOTAL_BYTES = 200 * 1024 * 1024
#: deflate reaches 1032; texts 10, drawings 50
MAX_RATIO = 200
#: smaller files may be as regular as they like
_RATIO_FROM_BYTES = 1024 * 1024
_MAX_DIRECTORY_BYTES = 1024 * 1024
_END = struct.Struct("<4s4H2LH")
_MARKS_64 = b"PK\x06\x07"
_ENCRYPTED_FLAG = 0x1
ENCRYPTED = "is encrypted"
#: files that are ZIP archives but no archives to a user: OpenXML, OpenDocument and EPUB, Java
_DOCUMENTS = frozenset({"[Content_Types].xml", "mimetype", "META-INF/MANIFEST.MF"})


@dataclass(frozen=True, slots=True)
class ZipFileEntry:
    """A file of the archive. `problem`: why it cannot be opened; then `opened` is not to be called."""

    name: str
    opened: Callable[[], IO[bytes]] = field(repr=False)
    problem: str | None = None


def zip_entries(file: IO[bytes], size: int) -> Iterator[ZipFileEntry]:
    """The archive's files; none of an office document, which is an archive only inside.

    Raises ValueError, in words for a user, when the archive is damaged or built to be expensive.
    """
    _check_directory(file, size)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, OverflowError) as error:
        raise ValueError("it is damaged") from error
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if any(info.filename in _DOCUMENTS for info in infos):
        return
    _check_sizes(infos)
    for info in infos:
        yield ZipFileEntry(info.filename, _opener(archive, info), _problem(info))


def _opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: archive.open(info)


def _check_directory(file: IO[bytes], size: int) -> None:
    """Before zipfile reads it: the list of files is read whole, and its size is the sender's choice."""
    file.seek(max(0, size - 65_557))
    tail = file.read(65_557)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise ValueError("it is damaged: its list of files is missing")
    _, _, _, _, count, directory_bytes, _, _ = _END.unpack_from(tail, place)
    if _MARKS_64 in tail[max(0, place - 20) : place]:
        raise ValueError("it is a ZIP64 archive, which only files over 4 GB need")
    if count > MAX_ENTRIES or directory_bytes > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"it holds {count} files, more than the {MAX_ENTRIES} allowed")


def _check_sizes(infos: list[zipfile.ZipInfo]) -> None:
    total = sum(info.file_size for info in infos)
    packed = sum(info.compress_size for info in infos)
    if len(infos) > MAX_ENTRIES:
        raise ValueError(f"it holds {len(infos)} files, more than the {MAX_ENTRIES} allowed")
    if total > MAX_TOTAL_BYTES or any(info.file_size > MAX_FILE_BYTES for info in infos):
        raise ValueError(
            f"it unpacks to {total} bytes (a ZIP bomb?); allowed are {MAX_FILE_BYTES} for a file and "
            f"{MAX_TOTAL_BYTES} in all"
        )
    for info in infos:
        if info.file_size > _RATIO_FROM_BYTES and info.file_size > MAX_RATIO * max(1, info.compress_size):
            raise ValueError(
                f"{info.filename[:80]!r} unpacks from {info.compress_size} to {info.file_size} bytes (a ZIP bomb?)"
            )
    if total > _RATIO_FROM_BYTES and total > MAX_RATIO * max(1, packed):
        raise ValueError(f"it unpacks from {packed} to {total} bytes (a ZIP bomb?)")


def _problem(info: zipfile.ZipInfo) -> str | None:
    if info.flag_bits & _ENCRYPTED_FLAG:
        return ENCRYPTED
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is compressed in a way that NOVA does not open"
    return None
