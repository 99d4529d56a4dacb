"""schemathesis over the OpenAPI document: all checks, single requests and sequences that use each other's answers.

`make fuzz` looks for longer (NOVA_FUZZ_EXAMPLES).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nova_pipelines_tests.web.api.conftest import Web

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = os.environ.get("NOVA_FUZZ_EXAMPLES", "5")


def test_the_api_is_as_it_is_documented(shared_web: Web, tmp_path: Path):
    shared_web.customer()
    shared_web.execution(shared_web.workflow(), "idom", amount=1)
    program = Path(sys.executable).with_name("schemathesis")
    command = [str(program), "--config-file", str(CONFIG), "run", f"{shared_web.client.base_url}/openapi.json"]
    options = ["--checks", "all", "--max-examples", EXAMPLES, "--continue-on-failure", "--no-color", "--seed", "1"]
    # a stream of an execution that waits has no end, and a request may wait for one
    options += ["--request-timeout", "100", "--exclude-path-regex", "/events$"]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NOVA_")}
    done = subprocess.run(
        [*command, *options], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=3_600
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
