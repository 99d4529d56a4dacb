"""The life of one E2B sandbox as its session sees it, and the meter of what it bills. Monotonic seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import e2b


@dataclass(slots=True)
class Life:
    """A sandbox from before it is asked for. E2B ends it by itself at its life's end, never before `until`."""

    mark: str
    until: float = 0.0
    born: float = field(default_factory=time.monotonic)
    #: E2B may have made it, whether its answer came or not
    begun: bool = False
    sandbox: e2b.AsyncSandbox | None = None

    def left(self) -> float:
        """Seconds that are certain to be left of it."""
        return self.until - time.monotonic()

    def age(self) -> float:
        return time.monotonic() - self.born


class Meter:
    """Seconds of life that no outcome has been charged with yet. E2B bills life, used or not."""

    def __init__(self) -> None:
        self._owed = 0.0
        self._since: float | None = None

    def start(self) -> None:
        self._since = time.monotonic()

    def stop(self) -> None:
        """The sandbox is gone; what it has cost is still owed."""
        if self._since is not None:
            self._owed += time.monotonic() - self._since
            self._since = None

    def forget(self) -> None:
        """There was no sandbox after all."""
        self._since = None

    def take(self) -> float:
        """All that is owed until now."""
        running = self._since is not None
        self.stop()
        owed, self._owed = self._owed, 0.0
        if running:
            self.start()
        return owed
