"""Remembers that the self-test of the local sandbox has passed: in this process, and in a file for the next one.
The mark changes with anything that the protection rests on, a restart of the machine among it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
from pathlib import Path

from nova_pipelines.adapters.sandbox.bubblewrap import GUEST_FOLDER

FILE = "sandbox-self-test.json"
_passed: set[str] = set()


def fingerprint(description: str) -> str:
    """Of the sandbox's own description, the kernel's start, the namespaces and rights of this process, and the code."""
    parts = [description, sys.version, os.uname().release, str(os.getresuid()), str(os.getresgid())]
    parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    parts += [str((Path("/proc/self/ns") / name).readlink()) for name in ("mnt", "net", "pid", "user")]
    status = Path("/proc/self/status").read_text().splitlines()
    parts += [line for line in status if line.startswith(("Cap", "NoNewPrivs", "Seccomp"))]
    parts += [path.read_text() for path in (*sorted(GUEST_FOLDER.glob("*.py")), *_own_modules())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _own_modules() -> list[Path]:
    return [Path(__file__).with_name(name) for name in ("self_test.py", "local_guest.py", "zygote.py")]


def known(mark: str, folder: Path | None) -> bool:
    """Whether it has passed. A file that others can write counts for nothing."""
    if mark not in _passed and folder and mark in _read(folder / FILE):
        _passed.add(mark)
    return mark in _passed


def remember(mark: str, folder: Path | None) -> None:
    """In this process, and in the folder when it is there and writable: without it, others test for themselves."""
    _passed.add(mark)
    if not folder or not os.access(folder, os.W_OK | os.X_OK):
        return
    # a few marks: root and user, or several environments, may share the folder
    marks = [*[old for old in _read(folder / FILE) if old != mark][-9:], mark]
    part = folder / f"{FILE}.{os.getpid()}"
    part.write_text(json.dumps({"passed": marks}))
    part.chmod(0o644)
    part.replace(folder / FILE)


def _read(path: Path) -> list[str]:
    try:
        state = path.stat()
        if state.st_uid not in {os.geteuid(), 0} or stat.S_IMODE(state.st_mode) & 0o022:
            return []
        passed = json.loads(path.read_text())["passed"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or none of ours: test again
        return []
    return [mark for mark in passed if isinstance(mark, str)] if isinstance(passed, list) else []
