"""What takes long to read and is asked for by many: read once, and used for all who ask within a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Kept(Generic[T]):
    """One value, at most `seconds` old. One thread reads it, others wait for it; a failure is kept for nobody."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._found: tuple[float, T] | None = None

    def of(self, read: Callable[[], T]) -> T:
        with self._lock:
            if self._found is None or self._found[0] <= time.monotonic():
                self._found = time.monotonic() + self._seconds, read()
            return self._found[1]
