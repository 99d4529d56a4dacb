"""What a warm run worker has imported before it is forked. Imports only: nothing is opened, no thread started."""

import gc

import alembic.script.revision
import dagster._core.execution.api
import dagster._core.storage.event_log.sqlite.consolidated_sqlite_event_log
import dagster._core.storage.noop_compute_log_manager
import dagster._core.storage.root
import dagster._core.storage.runs.sqlite.sqlite_run_storage
import dagster._core.storage.schedules.sqlite.sqlite_schedule_storage
import dagster._grpc.impl
import sqlalchemy.dialects.sqlite

import nova_pipelines.adapters.sandbox.local
import nova_pipelines.orchestration.assets
import nova_pipelines.orchestration.checks
import nova_pipelines.orchestration.repository

MODULES = (
    alembic.script.revision,
    dagster._core.execution.api,
    dagster._grpc.impl,
    sqlalchemy.dialects.sqlite,
    nova_pipelines.orchestration.repository,
)
# what is imported stays for ever: the collector of a forked worker need not look at it (nor copy its pages)
gc.collect()
gc.freeze()
