"""The document store: bytes under their SHA-256, in a folder by default, elsewhere by URL (s3://…, gs://…).

Knows nothing of mails or invoices. What was stored is never changed; a damaged document is found when read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, cast

from upath import UPath

from nova_pipelines.domain.errors import ConfigurationError, NotFound, PermanentError, TransientError

_SHA256 = re.compile(r"[0-9a-f]{64}")
#: the folder, within a store that is one, of documents that are being written
_INCOMING = ".incoming"
_ABANDONED_SECONDS = 24 * 3600


class Incoming:
    """A document on its way into a store. `file` may also be read; only `write` adds to it."""

    def __init__(
        self, file: IO[bytes], path: Path | None, access: Callable[[str], AbstractContextManager[None]]
    ) -> None:
        self.file, self.path, self.size = file, path, 0
        self._access = access
        self._digest = hashlib.sha256()

    def write(self, piece: bytes) -> None:
        """Raises TransientError when the disk is full."""
        with self._access("write"):
            self.file.seek(self.size)
            self.file.write(piece)
            self.file.flush()
        self.size += len(piece)
        self._digest.update(piece)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


class DocumentStore:
    """Content-addressed: `ab/cd/<sha256>` below the URL. Any number of processes may use one store."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError when the URL's file system is not known or not installed."""
        #: the URL without a password, for messages
        self.shown = re.sub(r"//[^/@]*@", "//", url)
        try:
            path = UPath(url)
            _ = path.fs  # loads the driver: a missing one is reported here and not in the middle of a run
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"the document store {self.shown} cannot be opened: {error}",
                remedy="give a folder, or install the package that serves this kind of URL (s3fs for s3://)",
            ) from error
        local = path.protocol in ("", "file", "local")
        self._folder: Path | None = Path(path.path).absolute() if local else None
        self._root: UPath | Path = self._folder or path
        self._swept = False

    def __repr__(self) -> str:
        return f"DocumentStore({self.shown!r})"

    def put(self, content: bytes) -> str:
        """Stores the bytes and returns their SHA-256 in hex. Raises as `keep`."""
        with self.incoming() as document:
            document.write(content)
            return self.keep(document)

    def put_pieces(self, pieces: Iterable[bytes]) -> tuple[str, int]:
        """Stores what comes in pieces, never whole in memory: SHA-256 in hex and size. Raises as `keep`."""
        with self.incoming() as document:
            for piece in pieces:
                document.write(piece)
            return self.keep(document), document.size

    @contextlib.contextmanager
    def incoming(self) -> Iterator[Incoming]:
        """A document that is being written: in a file of its own on the store's own disk where that is a folder,
        so that `keep` only renames it. What is not kept is gone at the end of the `with`."""
        with self._access("write"):
            if self._folder:
                folder = self._folder / _INCOMING
                folder.mkdir(parents=True, exist_ok=True)
                self._sweep(folder)
                made = tempfile.NamedTemporaryFile(dir=folder, delete=False)  # noqa: SIM115 # closed below
            else:
                made = tempfile.TemporaryFile()  # noqa: SIM115 # closed below
        path = Path(made.name) if self._folder else None
        try:
            with made:
                yield Incoming(made, path, self._access)
        finally:
            if path:
                path.unlink(missing_ok=True)

    def keep(self, document: Incoming) -> str:
        """Puts an incoming document under its SHA-256, which is returned. Keeping the same again changes nothing.

        Raises TransientError (full disk, network) and ConfigurationError (no permission). A document that exists
        but is damaged is replaced.
        """
        sha256 = document.sha256
        with self._access("write"):
            if self._hash_of(sha256) != sha256:
                self._write(sha256, document)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Raises NotFound if it is not there, PermanentError if its bytes no longer have this hash."""
        with self._access("read"):
            content = self._read(sha256)
        if content is None:
            raise NotFound(
                f"the document {sha256[:64]} is not in the store {self.shown}",
                remedy="check that this is the store it was put in, and restore it from the backup",
            )
        if hashlib.sha256(content).hexdigest() != sha256:
            raise PermanentError(
                f"the document {self.uri(sha256)} is damaged: its content has another hash",
                remedy="restore it from the backup, or store the mail again",
            )
        return content

    def exists(self, sha256: str) -> bool:
        with self._access("read"):
            return self._path(sha256).is_file()

    def uri(self, sha256: str) -> str:
        """A link that a person can open (`file:///…`, `s3://…`), without credentials."""
        path = self._path(sha256)
        return path.as_uri() if self._folder else re.sub(r"//[^/@]*@", "//", str(path))

    def check(self) -> None:
        """Writes, reads and removes a probe. Raises as `put`."""
        content = secrets.token_bytes(32)
        with self._access("write to and read from"):
            self._root.mkdir(parents=True, exist_ok=True)
            probe = self._root / f".probe-{secrets.token_hex(8)}"
            try:
                probe.write_bytes(content)
                intact = probe.read_bytes() == content
            finally:
                probe.unlink(missing_ok=True)
        if not intact:
            raise ConfigurationError(
                f"the document store {self.shown} gives back other bytes than were written",
                remedy="check the disk or the service behind it",
            )

    def _path(self, sha256: str) -> UPath | Path:
        if not _SHA256.fullmatch(sha256):  # also keeps `../` out of paths
            raise NotFound(f"{sha256[:80]!r} is no SHA-256 of a document", remedy="give 64 hex digits")
        return self._root / sha256[:2] / sha256[2:4] / sha256

    def _read(self, sha256: str) -> bytes | None:
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def _hash_of(self, sha256: str) -> str | None:
        """What the document that lies under a hash really has for one; None: there is none."""
        try:
            digest = hashlib.sha256()
            with self._path(sha256).open("rb") as file:
                while piece := file.read(256 * 1024):
                    digest.update(piece)
            return digest.hexdigest()
        except FileNotFoundError:
            return None

    def _write(self, sha256: str, document: Incoming) -> None:
        path = self._path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(path, Path) and document.path:
            # under the final name there is at any moment nothing or the whole, also after a loss of power
            document.file.flush()
            os.fsync(document.file.fileno())
            document.path.replace(path)
            # the entries of all three folders: they may be new as well
            for folder in (path.parent, path.parent.parent, path.parent.parent.parent):
                _sync_folder(folder)
        else:  # object stores show an object only when it is complete
            document.file.seek(0)
            with path.open("wb") as target:
                shutil.copyfileobj(document.file, cast("IO[bytes]", target), 1024 * 1024)

    def _sweep(self, folder: Path) -> None:
        """Removes, once for each store, what killed processes left half written more than a day ago."""
        if self._swept:
            return
        self._swept = True
        for left in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # somebody else's, who is done with it
                if left.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                    left.unlink()

    @contextlib.contextmanager
    def _access(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            message = f"cannot {doing} the document store {self.shown}: {reason}"
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise TransientError(message, remedy="free or add disk space; nothing was lost") from error
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR):
                raise ConfigurationError(
                    message, remedy="give this user write permission, or choose another folder"
                ) from error
            raise TransientError(message, remedy="check the disk or the network; it is tried again") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
