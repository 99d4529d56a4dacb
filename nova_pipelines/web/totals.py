"""How many rows a list has, without counting all of them for every page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable

#: so many are counted exactly each time; of more, the number may be KEPT seconds old
EXACT = 1_000
KEPT = 10.0
#: lists whose number is kept
_MOST = 1_000


class Totals:
    """Numbers of rows by list and filter. One thread counts a list, others that ask meanwhile wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[float, int]] = {}
        self._counting: dict[Hashable, threading.Lock] = {}

    def of(self, key: Hashable, up_to: Callable[[int | None], int]) -> int:
        """`up_to(n)` counts, n rows at most; None: all."""
        if (known := self._fresh(key)) is not None:
            return known
        few = up_to(EXACT + 1)
        if few <= EXACT:
            return few
        with self._lock:
            counting = self._counting.setdefault(key, threading.Lock())
        with counting:
            if (known := self._fresh(key)) is not None:
                return known
            total = up_to(None)
            with self._lock:
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[key] = time.monotonic() + KEPT, total
                self._counting.pop(key, None)
            return total

    def _fresh(self, key: Hashable) -> int | None:
        known = self._known.get(key)
        return known[1] if known is not None and known[0] > time.monotonic() else None
