"""Errors of the web service to Sentry, if SENTRY_DSN is set: what was logged as an error, nothing of the request.

No bodies, headers, cookies, queries, variables or names of people; texts are masked as in the log.
"""

from __future__ import annotations

from typing import Any

from nova_pipelines.adapters.logs import Redactor
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings

#: of an event, what could hold something of somebody
DROPPED = ("request", "user", "server_name", "extra", "breadcrumbs", "modules")


def start(settings: Settings, redactor: Redactor, version: str) -> None:
    """Does nothing where SENTRY_DSN is not set, and imports nothing. Raises ConfigurationError."""
    if settings.sentry_dsn is None:
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.logging import LoggingIntegration
        from sentry_sdk.utils import BadDsn
    except ImportError as error:
        raise ConfigurationError(
            "SENTRY_DSN is set, and sentry-sdk is not installed",
            remedy="pip install 'nova-pipelines[sentry]', or unset SENTRY_DSN",
        ) from error

    def scrub(event: Any, _hint: Any) -> Any:
        return redactor.data({key: value for key, value in event.items() if key not in DROPPED})

    try:
        sentry_sdk.init(
            dsn=settings.sentry_dsn.get_secret_value(),
            release=f"nova-pipelines@{version}",
            max_request_body_size="never",
            include_local_variables=False,
            include_source_context=False,
            max_breadcrumbs=0,
            traces_sample_rate=None,
            auto_session_tracking=False,
            auto_enabling_integrations=False,
            default_integrations=False,
            integrations=[LoggingIntegration()],
            before_send=scrub,
        )
    except BadDsn:
        raise ConfigurationError("SENTRY_DSN is no DSN of Sentry", remedy="copy it again, or unset it") from None


def stop(settings: Settings) -> None:
    """Sends what waits, within a second."""
    if settings.sentry_dsn is not None:
        import sentry_sdk

        sentry_sdk.flush(1.0)
