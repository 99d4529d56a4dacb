"""Traces by OpenTelemetry, if an endpoint is set: a span for each request, and one for each launch of a run.

Where none is set nothing of OpenTelemetry is imported. Queries of addresses never get into a span: tokens may be there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp

from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings

#: the standard's own names (OpenTelemetry, "OTLP Exporter Configuration")
VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: asked every few seconds by machines
UNTRACED = "health,metrics"
#: attributes that hold an address with its query, in the old and the new convention
_ADDRESSES = ("http.url", "http.target", "url.full", "url.query")

_tracer: Any = None


class Tracing:
    """The traces of this process. `wrap` the application, `close` at the end."""

    def __init__(self, settings: Settings) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import SERVICE_NAME, Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise ConfigurationError(
                f"traces are asked for, and {error.name} is not installed",
                remedy="pip install 'nova-pipelines[otel]', or unset NOVA_OTEL_ENDPOINT",
            ) from error
        given = settings.nova_otel_endpoint
        # None: the exporter reads the standard's variables
        endpoint = f"{given.rstrip('/')}/v1/traces" if given and not given.endswith("/v1/traces") else given
        name = os.environ.get("OTEL_SERVICE_NAME", "nova-web")
        self.provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=5)))
        global _tracer
        _tracer = self.provider.get_tracer("nova")

    def wrap(self, app: ASGIApp) -> ASGIApp:
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        return OpenTelemetryMiddleware(
            app,
            excluded_urls=UNTRACED,
            tracer_provider=self.provider,
            server_request_hook=_without_query,
            exclude_spans=["receive", "send"],
        )

    def close(self) -> None:
        """Sends what waits, within two seconds."""
        global _tracer
        _tracer = None
        self.provider.force_flush(2_000)
        self.provider.shutdown()


def wanted(settings: Settings) -> bool:
    return bool(settings.nova_otel_endpoint) or any(os.environ.get(name) for name in VARIABLES)


def _without_query(span: Any, scope: dict[str, Any]) -> None:
    for name in _ADDRESSES:
        value = (getattr(span, "attributes", None) or {}).get(name)
        if value:
            span.set_attribute(name, "" if name == "url.query" else str(value).partition("?")[0])
    request_id = (scope.get("state") or {}).get("request_id")
    if request_id:
        span.set_attribute("nova.request_id", request_id)


@contextmanager
def span(name: str, **attributes: Any) -> Iterator[None]:
    """A part of the work. Costs nothing where there are no traces."""
    if _tracer is None:
        yield
        return
    with _tracer.start_as_current_span(name) as current:
        for key, value in attributes.items():
            if value is not None:
                current.set_attribute(f"nova.{key}", value)
        yield
