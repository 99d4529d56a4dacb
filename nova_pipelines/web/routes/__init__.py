"""NOVA's HTTP API: one module for each thing that it is about."""

from nova_pipelines.web import pages
from nova_pipelines.web.routes import (
    about,
    approvals,
    clients,
    credentials,
    execute,
    executions,
    health,
    invoices,
    mailboxes,
    metrics,
    progress,
    versions,
    workflows,
)

ROUTERS = (
    about.router,
    clients.router,
    credentials.router,
    workflows.router,
    versions.router,
    execute.router,
    executions.router,
    progress.router,
    invoices.router,
    mailboxes.router,
    approvals.router,
    health.router,
    metrics.router,
    *pages.ROUTERS,
)
