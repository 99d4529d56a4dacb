"""How many rows a list has, without counting all of them for every page."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from nova_pipelines.web.kept import Kept

#: so many are counted exactly each time; of more, the number may be KEPT seconds old
EXACT = 1_000
KEPT = 10.0


class Totals:
    """Numbers of rows by list and filter."""

    def __init__(self) -> None:
        self._kept = Kept[int](KEPT)

    def of(self, key: Hashable, up_to: Callable[[int | None], int]) -> int:
        """`up_to(n)` counts, n rows at most; None: all."""
        if known := self._kept.fresh(key):
            return known[0]
        few = up_to(EXACT + 1)
        return few if few <= EXACT else self._kept.of(lambda: up_to(None), key)
