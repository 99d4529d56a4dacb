"""schemathesis over the OpenAPI document: all checks, single requests and sequences that use each other's answers.

`make fuzz` looks for longer (NOVA_FUZZ_EXAMPLES).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova_pipelines.database.api_keys import create_key
from nova_pipelines.web.dagster_ui import Dagster
from nova_pipelines_tests.web.api.conftest import Web, web_on_sqlite

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("NOVA_FUZZ_EXAMPLES", "5")


@pytest.fixture
def web(
    sqlite_template: Path, dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Web, str]]:
    """Authenticated as in service, and its Dagster well as far as health is concerned; with the key of an admin."""
    monkeypatch.setattr(Dagster, "ping_code_server", lambda _: None)
    monkeypatch.setattr(Dagster, "location_error", lambda _: None)
    monkeypatch.setattr(Dagster, "heartbeats", lambda _: {"SENSOR": time.time()})
    with web_on_sqlite(sqlite_template, dagster_home, tmp_path, authenticated=True) as made:
        with made.services.databases.nova.session() as session:
            _, key = create_key(session, name="fuzz", role="admin", clients=None, by="test", expires_at=None)
        made.client.headers["Authorization"] = f"Bearer {key}"
        yield made, key


def test_the_api_is_as_it_is_documented(web: tuple[Web, str], tmp_path: Path):
    site, key = web
    site.customer()
    site.execution(site.workflow(), "idom", amount=1)
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(CONFIG), "run", f"{site.client.base_url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {key}"]
    options = ["--checks", "all", "--max-examples", EXAMPLES, "--continue-on-failure", "--no-color", "--seed", "1"]
    # a stream of an execution that waits has no end, and a request may wait for one
    options += ["--request-timeout", "100", "--exclude-path-regex", "/events$"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NOVA_")}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=3_600
    )
    assert done.returncode == 0, done.stdout[-60_000:] + done.stderr[-5_000:]
