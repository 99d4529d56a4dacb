"""What the E2B backend needs of the world outside it, as interfaces: a circuit breaker and places for sandboxes that
all processes share. They are given to it, since adapters know no database."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

T = TypeVar("T")


class Breaker(Protocol):
    """Keeps calls from a service that is down."""

    def check(self) -> None:
        """Raises Unavailable while no call would be let through."""
        ...

    def call(self, work: Callable[[], T], *, longest_seconds: float) -> T:
        """Does `work`, which takes `longest_seconds` at most, or raises Unavailable."""
        ...


class Places(Protocol):
    """How many sandboxes there may be, how fast they are made, and the record of each."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """What a sandbox carries of whose it is."""
        ...

    def take(self, alive_seconds: float) -> str:
        """A place for a sandbox that lives so long; its mark. Raises Unavailable when none is free in time."""
        ...

    def alive(self, mark: str, sandbox_id: str, alive_seconds: float) -> None:
        """The sandbox is there, or lives longer now: so many seconds from now."""
        ...

    def released(self, mark: str) -> None:
        """Nobody works in it any more, but it could not be ended: the reaper is to do it."""
        ...

    def ended(self, mark: str) -> None:
        """It is certain to be gone."""
        ...


@dataclass(frozen=True, slots=True)
class Gate:
    """Both of them."""

    breaker: Breaker
    places: Places
