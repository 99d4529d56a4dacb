"""The real uvicorn on a port: slow and greedy clients are sent away, and it ends in time whatever is open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from nova_pipelines.cli.up import free_port


class Server:
    def __init__(self) -> None:
        self.port = free_port("127.0.0.1")
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "nova_pipelines_tests.web.served", str(self.port)],
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, "it did not start"
                assert self.process.poll() is None, "it ended"
                time.sleep(0.05)

    def open(self, first: bytes) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.sendall(first)
        return connection

    def works(self) -> None:
        with self.open(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc") as connection:
            assert b"200 OK" in connection.recv(1000)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.process.kill()
    made.process.wait()
    assert made.process.stderr is not None
    made.process.stderr.close()


def answer(connection: socket.socket, seconds: float = 6) -> bytes:
    """Everything until the server hangs up. Fails if it does not."""
    connection.settimeout(seconds)
    found = b""
    while (piece := connection.recv(65536)) and len(found) < 50_000_000:
        found += piece
    return found


def trickle(connection: socket.socket, data: bytes, every: float = 0.2, seconds: float = 6) -> float:
    """Sends byte after byte, again and again, until the server hangs up; how long it took."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for byte in data:
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                return time.monotonic() - began
            time.sleep(every)
    return seconds


@pytest.mark.parametrize(
    "head",
    [b"", b"GET / HTTP/1.1\r\nHost: x\r\n", b"GET", b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"],
    ids=["nothing", "half a head", "a word", "after a request"],
)
def test_a_head_that_trickles_is_cut_off(server: Server, head: bytes):
    with server.open(head) as connection:
        assert trickle(connection, b"X-a: b\r\n") < 5
    server.works()


def test_a_head_that_is_too_big_is_refused(server: Server):
    with server.open(b"GET / HTTP/1.1\r\nHost: x\r\nX-big: ") as connection:
        try:
            for _ in range(64):
                connection.sendall(b"x" * 65536)
        except OSError:
            pass
        else:
            assert b" 431 " in answer(connection)[:40]
    server.works()


def test_a_body_that_does_not_come_is_answered(server: Server):
    with server.open(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc") as connection:
        connection.settimeout(8)
        assert b"408 Request Timeout" in connection.recv(1000)
    server.works()


def test_a_client_that_reads_nothing_is_cut_off(server: Server):
    with server.open(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n") as connection:
        time.sleep(3.5)  # the server's patience, and some more
        try:
            size = len(answer(connection))
        except ConnectionResetError:
            size = 0
    assert size < 30_000_000, "what the kernels of both sides had in their buffers, and no more"
    server.works()


def test_nonsense_is_400_and_the_next_one_is_served(server: Server):
    with server.open(b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03 hello\r\n\r\n") as connection:
        assert b"400 Bad Request" in answer(connection)
    server.works()


def test_it_ends_within_two_seconds_with_everything_open():
    server = Server()
    streams = [server.open(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(3)]
    waiting = [server.open(b"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n"), server.open(b"GET /half")]
    unread = server.open(b"GET /flood HTTP/1.1\r\nHost: x\r\n\r\n")
    with connect(f"ws://127.0.0.1:{server.port}/ws") as websocket:
        websocket.send("hello")
        assert websocket.recv() == "hello"
        assert all(stream.recv(100) for stream in streams)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        deadline = began + 8
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{server.port}/", timeout=1)
            except urllib.error.HTTPError:
                pass
            except OSError:
                break
            assert time.monotonic() < deadline
        # of uvicorn; what is left (threads that hang) is ended by os._exit in server.main
        for stream in streams:
            answer(stream, 5)
        took = time.monotonic() - began
    for connection in (*streams, *waiting, unread):
        connection.close()
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    assert server.process.stderr is not None
    log = server.process.stderr.read().decode()
    server.process.stderr.close()
    assert took < 2.5, log


def test_the_collector_of_cycles_is_on_again_and_leaves_the_start_alone():
    say = """
import contextlib, gc, runpy, sys
sys.argv = ["web", "--help"]
with contextlib.suppress(SystemExit):
    runpy.run_module("nova_pipelines.web", run_name="__main__")
off = not gc.isenabled()
from nova_pipelines.web.server import settle_memory
settle_memory()
print(off, gc.isenabled(), gc.get_freeze_count() > 100_000, len(gc.get_objects()) < 1_000)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", say], capture_output=True, text=True, timeout=120)
    assert done.stdout.endswith("\nTrue True True True\n"), done.stdout + done.stderr
