"""Fixtures of the crash tests."""

from nova_pipelines_tests.crash.engine import dagster_template, engine

__all__ = ["dagster_template", "engine"]
