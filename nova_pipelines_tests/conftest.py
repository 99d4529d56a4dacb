"""Fixtures for all tests, and the rule that CI skips nothing."""

from __future__ import annotations

import os
import signal

import pytest

pytest_plugins = [
    "nova_pipelines_tests.fixtures.postgres",
    "nova_pipelines_tests.fixtures.dovecot",
    "nova_pipelines_tests.fixtures.smtp_sink",
    "nova_pipelines_tests.fixtures.world",
    "nova_pipelines_tests.fixtures.e2b",
    "nova_pipelines_tests.fixtures.webhooks",
    "nova_pipelines_tests.fixtures.oauth_mailbox",
]

os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # in the background of a shell: what tests start would inherit that, and Ctrl-C would not end it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Under CI=true a skipped test is a failed one: nothing may hide there."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("CI") == "true" and report.skipped and "e2b_live" not in item.keywords:
        report.outcome = "failed"
        report.longrepr = f"skipped under CI=true: {report.longrepr}"
