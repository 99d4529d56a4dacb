"""What takes long to read and is asked for by many: read once, and used for all who ask within a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """Values by key, each used for `seconds` after it was read; `most` of them at most.

    One thread reads a value, and others that ask for the same one wait for it. A failure is kept for nobody.
    """

    def __init__(self, seconds: float, *, most: int = 1_000) -> None:
        self._seconds, self._most = seconds, most
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, T]] = {}
        self._reading: dict[Hashable, threading.Lock] = {}

    def fresh(self, key: Hashable = None) -> tuple[T] | None:
        """The value alone in a tuple; None if none is kept, or it is too old."""
        known = self._known.get(key)
        return (known[1],) if known is not None and time.monotonic() < known[0] + self._seconds else None

    def of(self, read: Callable[[], T], key: Hashable = None) -> T:
        if found := self.fresh(key):
            return found[0]
        with self._lock:
            if key not in self._reading and len(self._reading) >= self._most:
                self._reading.clear()
                self._known.clear()
            reading = self._reading.setdefault(key, threading.Lock())
        with reading:
            if found := self.fresh(key):  # read by somebody else meanwhile
                return found[0]
            value = read()
            self._known[key] = time.monotonic(), value
            return value
