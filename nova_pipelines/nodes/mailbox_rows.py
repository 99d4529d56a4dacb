"""The health of a mailbox as plain data, for the command line and the HTTP API."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from nova_pipelines.database.mailbox_views import MailboxView
from nova_pipelines.nodes.alerts import Limits


def mailbox_row(view: MailboxView, limits: Limits, now: datetime) -> dict[str, Any]:
    """`silent`: no search has succeeded for longer than the limit. Seconds, times aware."""
    place = view.place
    plain: tuple[str, ...] = ("last_success_at", "last_attempt_at", "error_kind", "error", "failing_since", "failures")
    counts = ("backlog", "on_server", "seen", "stored", "in_work", "quarantined", "refused", "lag_seconds")
    return {
        "name": place.name,
        "client": place.client,
        "label": place.label,
        "folder": place.folder,
        **{name: getattr(view, name) for name in (*plain, "next_attempt_at", *counts)},
        "silent": view.silent_for(now) > limits.silent,
        "silent_seconds": round(view.silent_for(now).total_seconds()),
        "oldest_waits_seconds": round(view.waits_for(now).total_seconds()),
    }
