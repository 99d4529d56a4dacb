"""NOVA's HTTP API: one module for each thing that it is about."""

from nova_pipelines.web import pages
from nova_pipelines.web.routes import about, approvals, health, metrics

ROUTERS = (about.router, approvals.router, health.router, metrics.router, *pages.ROUTERS)
