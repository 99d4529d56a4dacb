"""Reads that take milliseconds, a few at a time: twenty threads that want Python's one lock at once take half as long
again as four that take turns. What may take longer (posts, launches) has FastAPI's own threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar, cast

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

READERS = 4

_limiter: RunVar[CapacityLimiter] = RunVar("nova-reads")
_Route = TypeVar("_Route", bound=Callable[..., Any])


def reads(route: _Route) -> _Route:
    """A route that only reads its database, to be run in turn with its like."""

    @wraps(route)
    async def in_turn(**given: Any) -> Any:
        try:
            limiter = _limiter.get()
        except LookupError:
            limiter = CapacityLimiter(READERS)
            _limiter.set(limiter)
        return await to_thread.run_sync(partial(route, **given), limiter=limiter)

    return cast("_Route", in_turn)
