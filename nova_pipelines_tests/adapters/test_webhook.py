"""The webhook: signed, bounded in time and size, to one place only, and without its secrets in any message."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import ssl
import time
import traceback
from contextlib import contextmanager
from threading import Thread

import pytest

from nova_pipelines.adapters.webhook import WebhookConfig, post
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, PermanentError, TransientError
from nova_pipelines_tests.fixtures.certificate import make_certificate
from nova_pipelines_tests.fixtures.sockets import black_hole, closed_port, talking_server

SECRET = "s3cret-of-the-hook"
DATA = {"alerts": [{"message": "el buzón está mudo"}]}


def call(url, *, seconds=10.0, ca_file=None):
    return post(WebhookConfig(url, SECRET, ca_file, seconds), DATA, moment=1_800_000_000, delivery="d-1")


def refusal(kind, url, **options):
    with pytest.raises(kind) as caught:
        call(url, **options)
    shown = "".join(traceback.format_exception(caught.value)) + repr(WebhookConfig(url, SECRET))
    assert SECRET not in shown
    assert "t0ken-of-the-url" not in shown
    assert caught.value.remedy
    return caught.value.message


def test_the_body_is_json_and_signed_with_its_time(hooks):
    assert call(hooks.url) == 204
    (posted,) = hooks.calls
    assert posted.json == DATA
    assert posted.path == "/hook?token=t0ken-of-the-url"
    assert posted.headers["content-type"] == "application/json"
    assert posted.headers["x-nova-delivery"] == "d-1"
    expected = hmac.new(SECRET.encode(), b"1800000000." + posted.body, hashlib.sha256).hexdigest()
    assert posted.headers["x-nova-signature"] == f"t=1800000000,v1={expected}"


def test_without_a_secret_there_is_no_signature(hooks):
    post(WebhookConfig(hooks.url), DATA, moment=1, delivery="d")
    assert "x-nova-signature" not in hooks.calls[0].headers


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, PermanentError),
        (401, CredentialError),
        (404, PermanentError),
        (429, TransientError),
        (503, TransientError),
    ],
)
def test_an_answer_decides_what_becomes_of_it(hooks, status, kind):
    hooks.status, hooks.answer = status, b"no \x1b[31mway\r\nhere" + b"x" * 100_000
    message = refusal(kind, hooks.url)
    assert f"answered {status}: no [31mway here" in message
    assert len(message) < 400


def test_a_redirect_is_not_followed(hooks):
    hooks.status, hooks.headers = 302, {"Location": hooks.url.replace("/hook", "/elsewhere")}
    refusal(PermanentError, hooks.url)
    assert [posted.path.partition("?")[0] for posted in hooks.calls] == ["/hook"]


def test_what_does_not_answer_is_left_in_time():
    with closed_port() as port:
        assert f":{port} refused" in refusal(TransientError, f"http://127.0.0.1:{port}/")
    with black_hole() as port:
        began = time.monotonic()
        assert "did not answer within 0.3 s" in refusal(TransientError, f"http://127.0.0.1:{port}/", seconds=0.3)
        assert time.monotonic() - began < 5


def test_an_answer_that_trickles_is_cut():
    def trickle(client):
        client.recv(65536)
        try:
            while True:  # each byte is in time, the whole never is
                client.sendall(b"HTTP/1.1 200 OK\r\nX: "[:1])
                time.sleep(0.02)
        except OSError:
            return

    with talking_server(trickle) as port:
        began = time.monotonic()
        refusal(TransientError, f"http://127.0.0.1:{port}/", seconds=0.4)
        assert time.monotonic() - began < 5


def read_call(client: socket.socket) -> None:
    """The whole call: its head and its body come in two pieces, and who closes before the second resets the line."""
    body = json.dumps(DATA, ensure_ascii=False).encode()
    received = b""
    while not received.endswith(body):
        piece = client.recv(65536)
        if not piece:
            return
        received += piece


def test_what_is_not_http_is_said():
    def another_protocol(client):
        read_call(client)
        client.sendall(b"220 smtp ready\r\n")

    with talking_server(another_protocol) as port:
        assert "not HTTP" in refusal(TransientError, f"http://127.0.0.1:{port}/")


def test_who_hangs_up_without_an_answer_is_not_taken_for_another_protocol():
    with talking_server(read_call) as port:
        assert "closed the connection without an answer" in refusal(TransientError, f"http://127.0.0.1:{port}/")


@contextmanager
def tls_server(folder):
    """Answers one call with 204, over TLS."""
    cert, key = make_certificate(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def talk(client):
        try:
            with context.wrap_socket(client, server_side=True) as secure:
                read_call(secure)
                secure.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")
        except ssl.SSLError:
            return  # the client did not like the certificate

    with talking_server(talk) as port:
        yield port, cert


def test_the_certificate_is_verified(tmp_path):
    with tls_server(tmp_path) as (port, cert):
        assert "cannot be verified" in refusal(ConfigurationError, f"https://127.0.0.1:{port}/")
        assert call(f"https://127.0.0.1:{port}/", ca_file=str(cert)) == 204


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/", "http:///x"])
def test_only_http_is_called(url):
    refusal(ConfigurationError, url)


def test_many_calls_leave_no_thread_behind(hooks):
    import threading

    before = {thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)}
    for _ in range(5):
        call(hooks.url)
    for timer in {thread for thread in threading.enumerate() if isinstance(thread, Thread)} - before:
        if isinstance(timer, threading.Timer):
            timer.join(5)
            assert not timer.is_alive()
