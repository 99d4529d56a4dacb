"""Lengths of time as people write them: `90`, `"15m"`, `"36h"`, `"3d"`, `"2w"`."""

from __future__ import annotations

import re

_WRITTEN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(s|m|h|d|w)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds_of(given: object) -> float:
    """Seconds of a number, or of a text with its unit. Raises ValueError."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    found = _WRITTEN.fullmatch(given.strip().lower()) if isinstance(given, str) else None
    if found is None:
        raise ValueError('must be seconds, or a text such as "36h" or "3d" (s, m, h, d, w)')
    return float(found[1]) * _SECONDS[found[2]]


def written(seconds: float) -> str:
    """The shortest way to write it: `3d`, `90m`, `45s`."""
    whole = round(seconds)
    unit = next((unit for unit in ("d", "h", "m") if whole and whole % _SECONDS[unit] == 0), "s")
    return f"{whole // _SECONDS[unit]}{unit}"
