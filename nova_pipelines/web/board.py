"""Checks of components, asked by many and done by few: one check of a component at a time, each in a bounded time.

A check that hangs keeps one thread, and whoever asks meanwhile hears at once that it hangs. Knows no component.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from nova_pipelines.domain.errors import ConfigurationError, CredentialError, NovaError

log = logging.getLogger("nova.health")
#: a check that has hung for so long is given up, and another one is begun, so many times at most: what it waits for
#: may never answer on its old connection
GIVE_UP_SECONDS, MAX_GIVEN_UP = 20.0, 3


@dataclass(frozen=True, slots=True)
class Good:
    """What a check found: one word for everybody, and more for those who may know."""

    word: str
    detail: str = ""


class Bad(NovaError):
    """A component is not well: `word` and `reason` are for everybody and hold no host, `message` is not."""

    def __init__(self, word: str, reason: str, detail: str | None = None) -> None:
        super().__init__(detail or reason)
        self.short, self.reason = word, reason


@dataclass(frozen=True, slots=True)
class Check:
    """`needed`: without it NOVA is down, not degraded. `fresh`: for so many seconds an answer is used again."""

    name: str
    run: Callable[[], Good]
    needed: bool = False
    fresh: float = 1.0


@dataclass(frozen=True, slots=True)
class State:
    """The last answer of a check. `ok` None: there is none yet. `at`: monotonic seconds."""

    name: str
    needed: bool
    ok: bool | None
    word: str
    reason: str | None = None
    detail: str = ""
    seconds: float = 0.0
    at: float = 0.0


class _Watched:
    """One component: its last state, and the one check of it that may be under way."""

    def __init__(self, check: Check) -> None:
        self.check = check
        self.last: State | None = None
        self._lock = threading.Lock()
        self._flight: Future[State] | None = None
        self._begun = 0.0
        self._given_up = 0

    def ask(self) -> Future[State] | None:
        """The check that is under way, or a new one; None: the last answer is fresh enough."""
        now = time.monotonic()
        with self._lock:
            if self._flight is not None and not self._flight.done():
                if now - self._begun < GIVE_UP_SECONDS or self._given_up >= MAX_GIVEN_UP:
                    return self._flight
                self._given_up += 1
            elif self.last is not None and self.last.ok is not None and now - self.last.at < self.check.fresh:
                return None
            self._flight, self._begun = Future(), now
            # a daemon thread: one that hangs in a system call must not keep the process
            target, name = self._run, f"check {self.check.name}"
            threading.Thread(target=target, args=(self._flight,), name=name, daemon=True).start()
            return self._flight

    def _run(self, flight: Future[State]) -> None:
        began = time.monotonic()
        state = self._state(began)
        with self._lock:
            if flight is self._flight:
                before, self.last = self.last, state
                if (before.ok if before else True) != state.ok:
                    log.log(logging.INFO if state.ok else logging.WARNING, "%s: %s", state.name, state.detail)
            else:  # it was given up; its thread ends now
                self._given_up -= 1
        flight.set_result(state)

    def _state(self, began: float) -> State:
        name, needed = self.check.name, self.check.needed
        try:
            good = self.check.run()
            ok, word, reason, detail = True, good.word, None, good.detail or good.word
        except Bad as bad:
            ok, word, reason, detail = False, bad.short, bad.reason, str(bad)
        except (ConfigurationError, CredentialError) as error:
            ok, word, reason, detail = False, "unreachable", "it cannot be reached as it is set", str(error)
        except NovaError as error:
            ok, word, reason, detail = False, "unreachable", "it does not answer", str(error)
        except Exception as error:
            log.exception("unexpected error in the check of %s", name)
            ok, word, reason, detail = False, "unknown", "its check failed", f"{type(error).__name__}: {error}"
        now = time.monotonic()
        return State(name, needed, ok, word, reason, detail, round(now - began, 4), now)

    def hangs_for(self) -> float:
        """How long the check has been under way; 0: none is."""
        with self._lock:
            under_way = self._flight is not None and not self._flight.done()
            return time.monotonic() - self._begun if under_way else 0.0


class Board:
    """All components. `look` is for the event loop; `latest` may be called from anywhere."""

    def __init__(self, checks: Sequence[Check], *, seconds: float = 3.0) -> None:
        self._watched = [_Watched(check) for check in checks]
        self._seconds = seconds

    async def look(self) -> list[State]:
        """The state of every component, in order, within `seconds` whatever any of them does."""
        waiting = []
        for one in self._watched:
            flight = one.ask()
            # one that hangs already is not waited for again, but for a blink: it may have been begun just now
            if flight is not None and one.hangs_for() < self._seconds:
                waiting.append(asyncio.wrap_future(flight))
        if waiting:
            await asyncio.wait(waiting, timeout=self._seconds)
        return self.latest()

    async def glance(self) -> list[State]:
        """The last states, while those that have grown old are asked again behind them; the first time as `look`."""
        if any(one.last is None for one in self._watched):
            return await self.look()
        for one in self._watched:
            one.ask()
        return self.latest()

    def latest(self) -> list[State]:
        """The last states, without asking anybody."""
        return [self._state(one) for one in self._watched]

    def _state(self, one: _Watched) -> State:
        name, needed, hangs = one.check.name, one.check.needed, one.hangs_for()
        if hangs >= self._seconds - 0.05 and (needed or one.last is not None):
            reason = f"no answer within {self._seconds:g} s"
            return State(name, needed, False, "no answer", reason, reason, round(hangs, 3), time.monotonic())
        return one.last or State(name, needed, None, "checking", detail="its first check is under way")
