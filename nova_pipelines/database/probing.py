"""A database that may hang, asked in a bounded time: on a connection of its own, cut when the time is over.

libpq has no time limit for an answer, and a pooled connection to a dead network would keep its thread for ever.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

from sqlalchemy import event, make_url
from sqlalchemy.orm import Session

from nova_pipelines.database.session import Database, require_file

#: libpq takes two seconds at least
CONNECT_SECONDS = 2


class DatabaseProbe:
    """Reading sessions that end within about `seconds`. One at a time."""

    def __init__(self, url: str, *, seconds: float = 2.5) -> None:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})
        self.database = Database(parsed.render_as_string(hide_password=False), pooled=False)
        self.database.was_reached = True  # whatever fails may pass: others decide what it means
        self._seconds = seconds
        self._socket: socket.socket | None = None
        event.listen(self.database.engine, "connect", self._connected)

    def _connected(self, connection: Any, _: object) -> None:
        if hasattr(connection, "fileno"):
            self._forget()
            self._socket = socket.socket(fileno=os.dup(connection.fileno()))

    @contextlib.contextmanager
    def read(self) -> Iterator[Session]:
        """Raises ConfigurationError or TransientError."""
        require_file(self.database)
        watchdog = threading.Timer(self._seconds, self._cut)
        watchdog.daemon = True
        watchdog.start()
        try:
            with self.database.read() as session:
                yield session
        finally:
            watchdog.cancel()
            self._forget()

    def _cut(self) -> None:
        held = self._socket
        if held is not None:
            with contextlib.suppress(OSError):  # closed just now
                held.shutdown(socket.SHUT_RDWR)

    def _forget(self) -> None:
        held, self._socket = self._socket, None
        if held is not None:
            held.close()

    def close(self) -> None:
        self.database.close()
