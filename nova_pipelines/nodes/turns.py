"""Turns at something that only a few may do at once, strictly in the order of asking."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Self


class Turns:
    """`at_once` turns at a time. Who gives one back and asks again stands behind all who wait already."""

    def __init__(self, at_once: int) -> None:
        self._lock = threading.Lock()
        self._free = at_once
        self._queue: deque[threading.Event] = deque()
        self._taken: set[Turn] = set()

    def take(self) -> Turn:
        """Waits for a turn; use it in a `with`."""
        mine = threading.Event()
        with self._lock:
            if self._free and not self._queue:
                self._free -= 1
                mine.set()
            else:
                self._queue.append(mine)
        mine.wait()
        turn = Turn(self)
        with self._lock:
            self._taken.add(turn)
        return turn

    def lend(self, seconds: float) -> int:
        """Gives the places of turns that last longer than this to others; those who hold them go on beside.

        So one that hangs keeps nobody waiting. Returns how many places were lent.
        """
        oldest = time.monotonic() - seconds
        with self._lock:
            late = [turn for turn in self._taken if turn.since < oldest]
        return sum(self.give_back(turn) for turn in late)

    def give_back(self, turn: Turn) -> bool:
        """Hands the place to the first who waits. False: it was given back already."""
        with self._lock:
            if turn not in self._taken:
                return False
            self._taken.remove(turn)
            if self._queue:
                self._queue.popleft().set()
            else:
                self._free += 1
            return True


class Turn:
    """A turn that was taken."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.since = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turns.give_back(self)
