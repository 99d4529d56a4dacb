"""The file NOVA_HOME/secret.key: one Fernet key a line, newest first, for its owner alone."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from nova_pipelines.database.failures import folder_failure
from nova_pipelines.database.session import private_folder
from nova_pipelines.domain.errors import ConfigurationError


def read_keys(path: Path) -> list[str]:
    """The keys of the file. Raises ConfigurationError when it is missing, empty or open to others."""
    try:
        with path.open("rb") as file:
            _refuse_readers(path, os.fstat(file.fileno()))
            keys = file.read(65536).decode("ascii", "replace").split()
    except OSError as error:
        raise ConfigurationError(
            f"the key file {path} cannot be read: {error.strerror or error}",
            remedy="put it back from your backup: without it the stored credentials cannot be decrypted",
        ) from error
    if not keys:
        raise ConfigurationError(f"the key file {path} is empty", remedy="put it back from your backup")
    return keys


def _refuse_readers(path: Path, status: os.stat_result) -> None:
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise ConfigurationError(
            f"the key file {path} has mode {mode}: others than its owner may use it",
            remedy=f"run `chmod 600 {path}`, and `nova keys rotate` if somebody may have read it",
        )


def create(path: Path, key: str) -> None:
    """Makes the file with one key; leaves one that is there, or that another process makes meanwhile."""
    private_folder(path.parent)
    with _written_aside(path, [key]) as aside:
        try:
            # unlike a rename, a link never replaces a file; and it appears with all its content
            os.link(aside, path)
        except FileExistsError:
            return
    _sync_folder(path)


def replace(path: Path, keys: Sequence[str]) -> None:
    """Puts other keys in the place of the file, at once or not at all."""
    with _written_aside(path, keys) as aside:
        aside.replace(path)
    _sync_folder(path)


@contextmanager
def _written_aside(path: Path, keys: Sequence[str]) -> Iterator[Path]:
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # O_EXCL, mode 0600
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write("".join(f"{key}\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
            yield aside
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise folder_failure(path, error) from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
