"""NOVA's HTTP API: one module for each thing that it is about."""

from nova_pipelines.web.routes import about, health, metrics

ROUTERS = (about.router, health.router, metrics.router)
