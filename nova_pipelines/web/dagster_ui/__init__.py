"""Dagster in the web process: its UI and GraphQL as an ASGI application, and GraphQL for NOVA's own routes.

All private parts of Dagster that the web service needs stand here. The version is pinned exactly (pyproject.toml).
"""

from nova_pipelines.web.dagster_ui.host import Dagster
from nova_pipelines.web.dagster_ui.webserver import Guard

__all__ = ["Dagster", "Guard"]
