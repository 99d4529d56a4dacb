"""Numbers in the two forms of `/metrics`. Pure: it asks nobody.

Labels are words of a fixed set, or names that a person has given (mailboxes): never ids, addresses or paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric

from nova_pipelines.database.numbers import Numbers
from nova_pipelines.database.types import utc_now
from nova_pipelines.web.board import State

#: as Prometheus has it: a series for each state, one of them 1
BREAKER_STATES = ("closed", "open", "half_open")


def as_json(numbers: Numbers | None, seconds: Mapping[str, float | None]) -> dict[str, Any]:
    """As the old system had it (docs/monitoring.md), and what this one has more of. Without a database: the rest."""
    databases = {
        name: {"connected": value is not None, "response_time_ms": None if value is None else round(value * 1000, 2)}
        for name, value in seconds.items()
    }
    head = {
        "timestamp": (numbers.at if numbers else utc_now()).isoformat(),
        "database": databases["nova"],
        "facturas": databases["facturas"],
    }
    return head | (_body(numbers) if numbers else {})


def _body(numbers: Numbers) -> dict[str, Any]:
    day, hour, breaker = numbers.day, numbers.hour, numbers.breaker
    total, ended = sum(day.values()), day["completed"] + day["failed"]
    return {
        "executions": {
            "total": total,
            **day,
            "success_rate": round(day["completed"] / ended, 4) if ended else None,
        },
        "error_rate": {
            "period_hours": 1,
            "total_executions": sum(hour.values()),
            "failed_executions": hour["failed"],
            "error_rate": round(hour["failed"] / sum(hour.values()), 4) if sum(hour.values()) else 0.0,
        },
        "circuit_breaker": {
            "state": breaker.state,
            "failure_count": breaker.failure_count,
            "failure_threshold": breaker.failure_threshold,
            "is_healthy": breaker.is_healthy,
        },
        "workflows": {"total_workflows": numbers.workflows, "active_workflows": numbers.active_workflows},
        "queue": {**numbers.queue, "oldest_waiting_seconds": round(numbers.oldest_seconds, 1)},
        "outbox": numbers.outbox,
        "alerts": {"open": sum(numbers.alerts.values()), "by_kind": numbers.alerts},
        "webhooks": numbers.webhooks,
        "sandboxes": {"alive": numbers.sandboxes},
        "mailboxes": [
            {
                "name": view.place.name,
                "backlog": view.backlog,
                "oldest_waiting_seconds": round(view.waits_for(numbers.at).total_seconds(), 1),
                "lag_seconds": None if view.lag_seconds is None else round(view.lag_seconds, 1),
                "last_success": view.last_success_at.isoformat() if view.last_success_at else None,
                "failures": view.failures,
                "quarantined": view.quarantined,
            }
            for view in numbers.mailboxes
        ],
    }


def of_numbers(numbers: Numbers | None) -> Iterator[Metric]:
    """For Prometheus; nothing where the database could not be read."""
    if numbers is None:
        return
    yield _family("nova_executions_day", "Executions made in the last 24 hours", "status", numbers.day)
    yield _family("nova_executions_hour", "Executions made in the last hour", "status", numbers.hour)
    yield _family(
        "nova_queue_executions", "Executions that are not through, by where they stand", "place", numbers.queue
    )
    yield GaugeMetricFamily(
        "nova_queue_oldest_seconds",
        "How long the oldest execution waits that nothing has put off",
        value=numbers.oldest_seconds,
    )
    workflows = {"active": numbers.active_workflows, "archived": numbers.workflows - numbers.active_workflows}
    yield _family("nova_workflows", "Stored workflows", "state", workflows)
    yield _family("nova_outbox_mails", "Outgoing mails by status", "status", numbers.outbox)
    yield _family("nova_alerts_open", "Open alerts by kind", "kind", numbers.alerts)
    yield _family("nova_webhook_deliveries", "Calls of webhooks by status", "status", numbers.webhooks)
    yield GaugeMetricFamily("nova_sandboxes", "Cloud sandboxes that may be alive", value=numbers.sandboxes)
    breaker = numbers.breaker
    states = {state: int(breaker.state == state) for state in BREAKER_STATES}
    yield _family("nova_breaker_state", "State of E2B's circuit breaker: the one that is 1", "state", states)
    yield GaugeMetricFamily("nova_breaker_failures", "Failures of E2B in a row", value=breaker.failure_count)
    yield from _mailboxes(numbers)


def _mailboxes(numbers: Numbers) -> Iterator[Metric]:
    views = {view.place.name: view for view in numbers.mailboxes}
    each = {
        "nova_mailbox_backlog": ("Mails that wait", {name: view.backlog for name, view in views.items()}),
        "nova_mailbox_oldest_seconds": (
            "How long the oldest mail waits",
            {name: view.waits_for(numbers.at).total_seconds() for name, view in views.items()},
        ),
        "nova_mailbox_lag_seconds": (
            "From arrival to the end of the work: the middle one of the last",
            {name: view.lag_seconds for name, view in views.items() if view.lag_seconds is not None},
        ),
        "nova_mailbox_last_success_timestamp_seconds": (
            "When a search last succeeded",
            {name: _epoch(view.last_success_at) for name, view in views.items() if view.last_success_at},
        ),
        "nova_mailbox_failures": ("Failed searches in a row", {name: view.failures for name, view in views.items()}),
        "nova_mailbox_quarantined": ("Mails set aside", {name: view.quarantined for name, view in views.items()}),
    }
    for name, (text, values) in each.items():
        yield _family(name, text, "mailbox", values)


def _epoch(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0


def _family(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def of_states(states: Sequence[State]) -> Iterator[Metric]:
    """What the health checks found last: 1 well, 0 not. One that nobody has asked for yet is not there."""
    known = {state.name: float(state.ok) for state in states if state.ok is not None}
    yield _family(
        "nova_up", "Whether a component was well when it was last looked at (/health looks)", "component", known
    )
