"""The numbers of `/metrics`, as JSON and for Prometheus: read from nova-db at most every few seconds, whoever asks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from nova_pipelines.database.numbers import Numbers, ended_between, read_numbers
from nova_pipelines.database.probing import DatabaseProbe
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.wiring import CLOUD
from nova_pipelines.settings import Settings
from nova_pipelines.web import samples
from nova_pipelines.web.board import Board
from nova_pipelines.web.kept import Kept

#: seconds for which numbers are used again
FRESH_SECONDS = 2.0
#: an execution counts in the histograms so long after its end: its transaction may commit a moment after its time
BEHIND = timedelta(seconds=5)
AT_MOST = 5_000
BUCKETS = (1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 21600, 86400)


class Metrics:
    """Of one web process. May be asked by several threads: one of them reads, the others wait for it."""

    def __init__(self, settings: Settings, board: Board) -> None:
        self.registry = CollectorRegistry()
        self._settings, self._board = settings, board
        self._nova = DatabaseProbe(settings.database_url)
        self._facturas = DatabaseProbe(settings.facturas_database_url)
        self._kept = Kept[None](FRESH_SECONDS)
        self._ended_until = utc_now()
        self.numbers: Numbers | None = None
        #: seconds of the last answer, by database; None: it does not answer
        self.seconds: dict[str, float | None] = {"nova": None, "facturas": None}
        self._latency = Histogram(
            "nova_execution_seconds",
            "From when an execution was made to its end, of those that ended since this process began",
            ["status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._work = Histogram(
            "nova_execution_work_seconds",
            "From when a run took an execution up to its end, of those that ended since this process began",
            ["status"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        ProcessCollector(registry=self.registry)
        self.registry.register(_Samples(self))

    def refresh(self) -> None:
        """Reads the numbers, unless they are fresh. What cannot be read is not there then."""
        self._kept.of(self._read)

    def _read(self) -> None:
        self.numbers = self._read_numbers()
        self.seconds["facturas"] = _seconds(self._facturas)

    def _read_numbers(self) -> Numbers | None:
        settings, began = self._settings, time.monotonic()
        try:
            with self._nova.read() as session:
                session.connection()
                self.seconds["nova"] = time.monotonic() - began
                now = utc_now()
                self._observe(ended_between(session, self._ended_until, now - BEHIND, limit=AT_MOST))
                return read_numbers(
                    session,
                    now=now,
                    breaker=CLOUD,
                    threshold=settings.nova_e2b_breaker_failures,
                    seconds=settings.nova_e2b_breaker_seconds,
                )
        except NovaError:  # the health check says why
            self.seconds["nova"] = None
            return None

    def _observe(self, found: Any) -> None:
        for moment, ended in found:
            self._latency.labels(ended.status).observe(ended.seconds)
            if ended.worked is not None:
                self._work.labels(ended.status).observe(ended.worked)
            self._ended_until = max(self._ended_until, moment)

    async def json(self) -> dict[str, Any]:
        await run_in_threadpool(self.refresh)
        return samples.as_json(self.numbers, self.seconds)

    def prometheus(self, accept: str) -> tuple[bytes, str]:
        """The text and its media type: the plain or the OpenMetrics form, whichever `accept` prefers."""
        self.refresh()
        encode, media_type = choose_encoder(accept)
        return encode(self.registry), media_type

    def samples(self) -> Iterator[Metric]:
        yield from samples.of_numbers(self.numbers)
        database = GaugeMetricFamily("nova_database_seconds", "Time of an answer, connection included", labels=["name"])
        for name, seconds in self.seconds.items():
            if seconds is not None:
                database.add_metric([name], seconds)
        yield database
        yield from samples.of_states(self._board.latest())


class _Samples(Collector):
    """Gives Prometheus's registry what was read last. It asks no database itself."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics.samples()


def _seconds(probe: DatabaseProbe) -> float | None:
    began = time.monotonic()
    try:
        with probe.read() as session:
            session.connection()
    except NovaError:
        return None
    return time.monotonic() - began
