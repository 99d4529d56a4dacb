"""NOVA's HTTP API: one module for each thing that it is about."""

from nova_pipelines.web.routes import (
    about,
    clients,
    credentials,
    execute,
    executions,
    invoices,
    mailboxes,
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
)
