"""Tells who follows an execution that something has happened to it: one thread looks for all of them.

A follower is a coroutine and holds no thread. What has happened it reads for itself.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import select

from nova_pipelines.database.nova import Execution
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import NovaError

log = logging.getLogger("nova.web.follow")

#: seconds between two looks while somebody follows
LOOK = 0.25
#: followers at once: of this process, and of one principal
MAX_FOLLOWERS, MAX_EACH = 500, 50
#: executions in one query
_CHUNK = 500

State = tuple[str, int]  # status, length of the chain


class TooMany(Exception):
    """There is no place for another follower."""


class Follower:
    """Somebody who follows one execution. Wait for `changed`, clear it, and read."""

    def __init__(self, execution_id: int) -> None:
        self.execution_id = execution_id
        self.changed = asyncio.Event()
        self.state: State | None = None
        self._loop = asyncio.get_running_loop()

    def tell(self, state: State) -> None:
        """Called by the thread that looks."""
        if state != self.state:
            self.state = state
            self._loop.call_soon_threadsafe(self.changed.set)


class Watch(threading.Thread):
    """Looks at the executions that are followed."""

    def __init__(self, nova: Database) -> None:
        super().__init__(name="follow", daemon=True)
        self._nova = nova
        self._changed = threading.Condition()
        self._followers: dict[Follower, str] = {}
        self._stopping = False

    def has_room(self, who: str) -> bool:
        """Whether this principal may follow another execution now."""
        mine = sum(1 for other in list(self._followers.values()) if other == who)
        return len(self._followers) < MAX_FOLLOWERS and mine < MAX_EACH

    @contextmanager
    def follow(self, execution_id: int, who: str) -> Iterator[Follower]:
        """To be entered in a coroutine. Raises TooMany."""
        follower = Follower(execution_id)
        with self._changed:
            if not self.has_room(who):
                raise TooMany
            self._followers[follower] = who
            self._changed.notify()
        try:
            yield follower
        finally:
            with self._changed:
                self._followers.pop(follower, None)

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._followers or self._stopping)
                if not self._stopping:
                    self._changed.wait(LOOK)
                if self._stopping:
                    return
                followers = list(self._followers)
            try:
                self._look(followers)
            except NovaError as error:
                log.warning("%s", error)
            except Exception:
                log.exception("could not look at executions")

    def _look(self, followers: list[Follower]) -> None:
        numbers = sorted({follower.execution_id for follower in followers})
        states: dict[int, State] = {}
        with self._nova.read() as session:
            for begin in range(0, len(numbers), _CHUNK):
                query = select(Execution.id, Execution.status, Execution.chain_length)
                found = session.execute(query.where(Execution.id.in_(numbers[begin : begin + _CHUNK])))
                states |= {number: (status, length) for number, status, length in found}
        for follower in followers:
            state = states.get(follower.execution_id)
            if state is not None:
                try:
                    follower.tell(state)
                except RuntimeError:  # its event loop has ended, and it with it
                    continue
