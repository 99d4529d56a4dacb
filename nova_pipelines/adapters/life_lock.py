"""A lock on a file that a program holds as long as it lives: the kernel lets go of it at its end, whatever ended it.

Who can see the file, also from another container on the same machine, knows at once whether the program lives.
Standard library only: the keeper uses it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

#: names the file to the keeper
VARIABLE = "NOVA_LIFE_LOCK"


def take(path: Path) -> int:
    """An open file that holds the lock; whoever inherits it holds it too. Several programs may hold it together.

    Raises OSError.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        os.utime(handle)  # its time is when the program started
    except OSError:
        os.close(handle)
        raise
    return handle


def held_since(path: Path) -> float | None:
    """When the program that holds the lock was started (epoch seconds); None: nobody holds it.

    Raises FileNotFoundError where no program ever did, OSError where that cannot be told.
    """
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.fstat(handle).st_mtime
    else:
        return None
    finally:
        os.close(handle)
