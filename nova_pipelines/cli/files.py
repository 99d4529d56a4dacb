"""Reading the files that a user names. Whatever is wrong with one becomes a clear error."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import BinaryIO

from nova_pipelines.domain.errors import DefinitionError, Problem
from nova_pipelines.domain.text import MAX_FILE_BYTES

STDIN = "-"


def source_name(file: str) -> str:
    """How a file is called in messages."""
    return "<stdin>" if file == STDIN else file


def read_text(file: str) -> str:
    """The text of a definition file (`-`: stdin). Raises DefinitionError that names the file.

    Reads no more than a definition may have, and nothing that is no plain file or pipe.
    """
    source = source_name(file)
    try:
        if file == STDIN:
            data = _bounded(sys.stdin.buffer)
        else:
            path = Path(file)
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise _problem(source, "is a folder: name the files in it")
            if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
                raise _problem(source, "is no file: a device or socket is not read")
            with path.open("rb") as stream:
                data = _bounded(stream)
    except FileNotFoundError:
        raise _problem(source, "there is no such file: check its path") from None
    except PermissionError:
        raise _problem(source, "may not be read by this user: change its permissions") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _problem(source, f"cannot be read: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise _problem(source, f"more than {MAX_FILE_BYTES:,} bytes: move data out of the definition")
    return _decode(data, source)


def _bounded(stream: BinaryIO) -> bytes:
    return stream.read(MAX_FILE_BYTES + 1)


def _decode(data: bytes, source: str) -> str:
    if b"\x00" in data:
        raise _problem(source, "is a binary file: a definition is JSON or YAML text in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        reason = f"is not UTF-8 text (byte 0x{data[error.start]:02x}): save the file as UTF-8"
        raise DefinitionError([Problem(f"line {line} column {column}", reason)], source=source) from None


def _problem(source: str, reason: str) -> DefinitionError:
    return DefinitionError([Problem("", reason)], source=source)
