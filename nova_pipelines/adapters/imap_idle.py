"""IDLE (RFC 2177) on an open mailbox: waits for news, and for a call from this side, and never without an end.

What a server says while it idles is not looked at: that it says something is reason enough to search.
"""

from __future__ import annotations

import contextlib
import imaplib
import select
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

from imap_tools import idle as _idle  # noqa: F401 # makes IDLE known to imaplib before Python 3.14

from nova_pipelines.adapters.imap import Mailbox

#: answers that end an IDLE come at once; a server that says so much in between floods
MOST_LINES = 10_000
#: seconds until the system asks the other side for a sign of life, between two such, and how many may be missed:
#: a router that forgot the connection is noticed within two minutes
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}


class Bell:
    """Wakes a thread that waits for the network. `ring` may be called by any thread."""

    def __init__(self) -> None:
        self._hear, self._ring = socket.socketpair()
        self._hear.setblocking(False)
        self._ring.setblocking(False)

    def fileno(self) -> int:
        return self._hear.fileno()

    def ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it rings already; closed: nobody waits
            self._ring.send(b"!")

    def wait(self, seconds: float) -> bool:
        """Waits for a ring, at most so long. True: it rang."""
        rang = bool(_ready([self.fileno()], seconds))
        self.silence()
        return rang

    def silence(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._hear.recv(4096):
                pass

    def close(self) -> None:
        self._hear.close()
        self._ring.close()


class WatchedMailbox(Mailbox):
    """A mailbox whose connection is kept for hours."""

    def __enter__(self) -> Self:
        super().__enter__()
        self._refused_idle = False
        _keep_alive(self._client.sock)
        return self

    @property
    def can_idle(self) -> bool:
        return "IDLE" in self._client.capabilities and not self._refused_idle

    def idle(self, seconds: float, bell: Bell) -> bool:
        """Waits in the open folder until the server says something (True), the time is over or the bell rings.

        Each answer of the server is waited for as long as any other. Raises TransientError when the connection
        is broken, also silently: then the server does not confirm the end of IDLE.
        """
        with self._talking("wait for new mail"):
            tag = self._client._command("IDLE")
            if not self._until_continued(tag):
                self._refused_idle = True
                return False
            news = self._news(seconds, bell)
            self._client.send(b"DONE\r\n")
            self._until_tagged(tag)
        return news

    def abandon(self) -> None:
        """Cuts the connection, from any thread: whoever waits for the server gets a TransientError."""
        connection = self._connection
        if connection:
            with contextlib.suppress(OSError):  # closed already
                socket.socket.shutdown(connection.client.sock, socket.SHUT_RDWR)

    def _until_continued(self, tag: Any) -> bool:
        """True when the server idles, False when it refuses to (some promise it and do not)."""
        for _ in self._bounded():
            if self._client._get_response() is None:
                return True
            if self._client.tagged_commands[tag]:
                del self._client.tagged_commands[tag]
                return False
        return False

    def _news(self, seconds: float, bell: Bell) -> bool:
        sock = self._client.sock
        if _buffered(self._client):
            return True
        return sock.fileno() in _ready([sock.fileno(), bell.fileno()], seconds)

    def _until_tagged(self, tag: Any) -> None:
        for _ in self._bounded():
            self._client._get_response()
            if self._client.tagged_commands[tag]:
                del self._client.tagged_commands[tag]
                return

    def _bounded(self) -> Iterator[int]:
        """Turns of a loop over answers; ends the connection when there are too many, or it takes too long."""
        deadline = time.monotonic() + self._config.timeout_seconds
        for number in range(MOST_LINES):
            if time.monotonic() > deadline:
                break
            yield number
        raise imaplib.IMAP4.abort("it goes on talking and does not answer")


def _buffered(client: Any) -> bool:
    """Whether something was read from the socket already, with the answer before it: poll would not tell."""
    sock = client.sock
    if getattr(client, "_readbuf", None) or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
        return True
    file = getattr(client, "_file", None) or client.file  # the name changes with Python 3.14
    seconds = sock.gettimeout()
    sock.settimeout(0)
    try:
        return bool(file.peek(1))
    except (ssl.SSLWantReadError, BlockingIOError):
        return False
    finally:
        sock.settimeout(seconds)


def _ready(descriptors: Sequence[int], seconds: float) -> set[int]:
    """Which of these can be read (or are broken), at most after `seconds`."""
    poller = select.poll()  # select() knows no more than 1024
    for descriptor in descriptors:
        poller.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poller.poll(max(0.0, seconds) * 1000)}


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not all systems let a program choose
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
