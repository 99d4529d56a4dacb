"""Request ids, the log without secrets, traces and errors to those who collect them, and the limits of one client."""

from __future__ import annotations

import gzip
import io
import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import structlog
from fastapi import Request

from nova_pipelines.adapters import logs
from nova_pipelines.domain.masking import MASK
from nova_pipelines.settings import Settings
from nova_pipelines.web import sentry, tracing
from nova_pipelines.web.access import Principal
from nova_pipelines.web.limits import Limits
from nova_pipelines_tests.fixtures.postgres import settings_for
from nova_pipelines_tests.web.operated import OPEN, operated

SECRET = "hush-hush-1234"


@pytest.fixture
def settings(sqlite_template, tmp_path) -> Settings:
    made = settings_for(
        f"sqlite:///{sqlite_template}/nova.db",
        f"sqlite:///{sqlite_template}/facturas.db",
        nova_alert_webhook_secret=SECRET,
    )
    return made.model_copy(update={"nova_home": tmp_path})


@contextmanager
def written(settings: Settings, form: str = "json") -> Iterator[io.StringIO]:
    """What is logged meanwhile; the log of the tests is put back afterwards."""
    root, stream = logging.getLogger(), io.StringIO()
    handlers, level = root.handlers[:], root.level
    logs.set_up(settings, stream=stream, form=form)  # type: ignore[arg-type]
    try:
        yield stream
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()


def lines(stream: io.StringIO, logger: str) -> list[dict]:
    return [line for line in map(json.loads, stream.getvalue().splitlines()) if line["logger"] == logger]


def broken(thing: str, token: str = "") -> None:
    logging.getLogger("nova.test").info("at work")
    raise RuntimeError(f"{thing} with password={SECRET} and Authorization: Bearer abcdef123456")


def test_a_request_is_one_line_and_everything_in_it_has_its_id(settings: Settings):
    ana = Principal("ana", "operator", "key")
    with written(settings) as stream, operated(settings, principal=ana, more=("/x/{execution_id}", ok)) as (client, *_):
        answer = client.get("/x/7?token=t0ken-in-a-url&plain=word", headers={"X-Request-ID": "abc-123"})
    assert answer.headers["x-request-id"] == "abc-123"
    (line,) = lines(stream, "nova.access")
    expected = {"level": "info", "request_id": "abc-123", "method": "GET", "path": "/x/7", "status": 200}
    assert (expected | {"principal": "ana", "role": "operator", "execution_id": "7"}).items() <= line.items()
    assert lines(stream, "nova.test")[0]["request_id"] == "abc-123"
    assert "t0ken" not in stream.getvalue()
    assert "plain=word" not in stream.getvalue()


def ok() -> dict:
    logging.getLogger("nova.test").info("at work")
    return {}


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "{}", "-a", "a;b=c"])
def test_an_id_that_is_none_is_replaced(settings: Settings, given: str):
    with operated(settings) as (client, *_):
        answer = client.get("/health/live", headers={"X-Request-ID": given})
    assert len(answer.headers["x-request-id"]) == 32


def test_an_unexpected_error_is_a_problem_with_its_id_and_the_log_says_why_without_secrets(settings: Settings):
    with written(settings) as stream, operated(settings, more=("/approve/{token}/{thing}", broken)) as (client, *_):
        answer = client.get("/approve/t0ken-of-a-link/it")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    (error,) = lines(stream, "nova.web")
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "RuntimeError: it with password=" in error["exception"]
    (access,) = lines(stream, "nova.access")
    assert (access["path"], access["status"], access["level"]) == (f"/approve/{MASK}/it", 500, "warning")
    for secret in (SECRET, "abcdef123456", "t0ken-of-a-link"):
        assert secret not in stream.getvalue()
        assert secret not in answer.text


def test_in_a_terminal_it_is_plain(settings: Settings):
    with written(settings, "plain") as stream:
        logging.getLogger("nova.x").info("hello %s", "you", extra={"url": f"https://u:{SECRET}@h/"})
    assert "hello you" in stream.getvalue()
    assert not stream.getvalue().startswith("{")
    assert SECRET not in stream.getvalue()


def test_a_websocket_is_logged_without_its_query(settings: Settings, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "uvicorn.error")  # whoever served in this process before may have made it quieter
    with written(settings) as stream:
        logging.getLogger("uvicorn.error").info('%s - "WebSocket %s" [accepted]', "1.2.3.4:5", "/graphql?ticket=zzz")
    assert "zzz" not in stream.getvalue()
    assert "/graphql" in stream.getvalue()


# limits of one client


async def reading(request: Request) -> dict:
    return {"bytes": len(await request.body())}


def test_a_body_that_is_too_big_is_refused_told_or_not(settings: Settings):
    def in_pieces() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 1024 * 1024

    with operated(settings, more=("/read", reading)) as (client, *_):
        assert client.post("/read", content=b"x" * 1000).json() == {"bytes": 1000}
        told = client.post("/read", content=b"x", headers={"Content-Length": str(17 * 1024 * 1024)})
        untold = client.post("/read", content=in_pieces())
    assert (told.status_code, untold.status_code) == (413, 413)
    assert untold.headers["content-type"] == "application/problem+json"


def test_a_body_that_does_not_come_is_given_up():
    import anyio

    sent: list[dict] = []

    async def application(scope, receive, send):
        assert (await receive())["type"] == "http.request"
        assert (await receive())["type"] == "http.disconnect"

    async def receive():
        if not hasattr(receive, "begun"):
            receive.begun = True  # type: ignore[attr-defined]
            return {"type": "http.request", "body": b"a", "more_body": True}
        await anyio.sleep(30)
        return {"type": "http.request", "body": b"b", "more_body": False}

    async def send(message):
        sent.append(message)

    limited = Limits(application, piece_seconds=0.1)
    anyio.run(limited, {"type": "http", "headers": [], "method": "POST", "path": "/"}, receive, send)
    assert sent[0]["status"] == 408


# collectors


class Sink:
    """Keeps what is posted to it: an OTLP collector, or Sentry's ingest."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, bytes]] = []
        self.came = threading.Event()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                sink.calls.append((self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")
                sink.came.set()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def sink():
    made = Sink()
    yield made
    made.close()


def test_a_collector_gets_spans_of_requests_and_launches_without_queries(settings: Settings, sink: Sink):
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
    from starlette.testclient import TestClient

    def work() -> dict:
        with tracing.span("nova.launch", job="word", executions=2, nothing=None):
            return {}

    traced = settings.model_copy(update={"nova_otel_endpoint": f"http://127.0.0.1:{sink.port}"})
    assert tracing.wanted(traced)
    traces = tracing.Tracing(traced)
    with operated(traced, more=("/jobs-of/{number}", work)) as (_, _, app):
        client = TestClient(traces.wrap(app))  # whose lifespan has begun
        assert client.get("/jobs-of/7?token=t0ken-in-a-url").status_code == 200
        client.get("/health/live")
        traces.close()
    assert sink.came.wait(5)
    spans = []
    for path, body in sink.calls:
        assert path == "/v1/traces"
        assert b"t0ken" not in body
        got = ExportTraceServiceRequest.FromString(body)
        spans += [span for resource in got.resource_spans for scope in resource.scope_spans for span in scope.spans]
    assert sorted(span.name.partition(" ")[0] for span in spans) == ["GET", "nova.launch"]
    launch = next(span for span in spans if span.name == "nova.launch")
    request = next(span for span in spans if span.name != "nova.launch")
    assert launch.parent_span_id == request.span_id
    assert {attribute.key for attribute in launch.attributes} == {"nova.job", "nova.executions"}


def test_what_nobody_has_asked_for_is_not_imported():
    """Without an endpoint nothing of telemetry; openpyxl, which brings numpy (20 MB), by an export only."""
    names = ("opentelemetry.sdk", "opentelemetry.instrumentation", "sentry_sdk", "numpy", "openpyxl")
    code = f"import sys, nova_pipelines.web.server; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_sentry_gets_the_error_and_no_secret(settings: Settings, sink: Sink):
    import sentry_sdk

    told = settings.model_copy(update={"sentry_dsn": settings.nova_alert_webhook_secret.__class__(
        f"http://publickey@127.0.0.1:{sink.port}/7"
    )})  # fmt: skip
    sentry.start(told, logs.Redactor(told), "0.1")
    try:
        with operated(told, principal=OPEN, more=("/x/{thing}", broken)) as (client, *_):
            client.get("/x/it?token=t0ken-in-a-url", headers={"Authorization": "Bearer k3y-of-ana-0001"})
        sentry.stop(told)
        assert sink.came.wait(5)
    finally:
        sentry_sdk.init()  # off again
    bodies = b"\n".join(body for _, body in sink.calls).decode()
    assert sink.calls[0][0] == "/api/7/envelope/"
    assert "RuntimeError" in bodies
    for secret in (SECRET, "abcdef123456", "t0ken-in-a-url", "k3y-of-ana-0001"):
        assert secret not in bodies
