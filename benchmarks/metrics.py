"""`/metrics` and `/health` with 100,000 executions and 1,000,000 rows of the chain of work, on PostgreSQL.

    python -m benchmarks.metrics [executions]

Prints the time of each read of the numbers, of whole answers, and how the slowest query is planned.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import event, text

from nova_pipelines.database.migrate import migrate
from nova_pipelines.database.numbers import read_numbers
from nova_pipelines.database.session import Database
from nova_pipelines.database.workflows import publish
from nova_pipelines.web import metrics
from nova_pipelines_tests.fixtures.postgres import settings_for
from nova_pipelines_tests.fixtures.tcp_postgres import TcpPostgres
from nova_pipelines_tests.web.operated import OPEN, operated
from nova_pipelines_tests.web.test_metrics import FILL

CHAIN = """
INSERT INTO chain_of_work (execution_id, seq, node_id, node_type, input_context, output_result, execution_time, status,
  timestamp, prev_hash, hash)
SELECT e, s, 'node-' || s, 'action', '{}', '{}', 0.1, 'success', now(), '', md5(e || '-' || s)
FROM generate_series(1, :count) e, generate_series(1, 10) s
"""


def main(count: int) -> None:
    with TcpPostgres() as server, server.database("p4ss") as made, tempfile.TemporaryDirectory() as folder:
        url = f"postgresql://{made.user}:p4ss@127.0.0.1:{made.port}/{made.name}"
        settings = settings_for(url, f"sqlite:///{folder}/f.db").model_copy(update={"nova_home": Path(folder)})
        migrate(settings)
        nova = Database(settings.database_url)
        with nova.session() as session:
            version = publish(
                session, name="W", job_name="w", description=None, definition={}, source="{}", source_format="json"
            )
            ids = {"workflow": version.workflow_id, "version": version.id}
        for statement, values in ((FILL, ids), (CHAIN, {})):
            began = time.perf_counter()
            with nova.session() as session:
                session.execute(text(statement), {"count": count, **values})
            print(f"filled in {time.perf_counter() - began:.1f} s")
        with nova.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))
        slowest(nova)
        for path, fresh in (("/metrics", 0.0), ("/metrics", metrics.FRESH_SECONDS), ("/health", 1.0)):
            metrics.FRESH_SECONDS = fresh
            with operated(settings, principal=OPEN) as (client, _, _):
                client.get("/metrics")
                times = []
                for _ in range(40):
                    began = time.perf_counter()
                    client.get(path, headers={"Accept": "text/plain"})
                    times.append(1000 * (time.perf_counter() - began))
            quantile = statistics.quantiles(times, n=20)
            print(f"{path} (numbers used for {fresh} s): median {quantile[9]:.1f} ms, p95 {quantile[18]:.1f} ms")
        nova.close()


def slowest(nova: Database) -> None:
    """The queries of one read, with their times, and the plan of the slowest."""
    found: list[tuple[float, str, Any]] = []

    @event.listens_for(nova.engine, "before_cursor_execute")
    def before(connection, *_):
        connection.info["began"] = time.perf_counter()

    @event.listens_for(nova.engine, "after_cursor_execute")
    def after(connection, _cursor, statement, parameters, *_):
        found.append((time.perf_counter() - connection.info["began"], statement, parameters))

    whole = 0.0
    for _ in range(3):
        found.clear()
        began = time.perf_counter()
        with nova.read() as session:
            read_numbers(session, now=datetime.now(UTC), breaker="e2b", threshold=5, seconds=300)
        whole = time.perf_counter() - began
    print(f"all numbers: {1000 * whole:.1f} ms in {len(found)} queries")
    for seconds, statement, parameters in sorted(found, key=lambda one: -one[0])[:3]:
        print(f"{1000 * seconds:.1f} ms: {' '.join(statement.split())[:160]}")
        with nova.engine.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS) {statement}", parameters)
            print("\n".join(f"    {row[0]}" for row in rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
