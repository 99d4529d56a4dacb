"""The variables of running NOVA: logs, traces, errors, health and webhooks. Part of `settings.Settings`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings


class OperationSettings(BaseSettings):
    """Fields only; `Settings` says how they are read."""

    #: JSON for programs, plain for people; None: plain in a terminal, else JSON
    nova_log_format: Literal["json", "plain"] | None = None
    #: where traces go to (OTLP over HTTP, such as http://127.0.0.1:4318); the OTEL_… variables are read as well
    nova_otel_endpoint: str | None = None
    #: errors of the web service are sent there
    sentry_dsn: SecretStr | None = None

    #: seconds without a heartbeat of Dagster after which its daemon counts as stopped, where its lock cannot be seen
    nova_health_daemon_seconds: float = Field(120, ge=35, le=3600)

    #: webhooks may call plain http, and addresses that are not public (loopback, private networks)
    nova_webhook_private: bool = False
    #: for how long a call that fails is tried again
    nova_webhook_give_up_hours: float = Field(72, gt=0, le=720)
