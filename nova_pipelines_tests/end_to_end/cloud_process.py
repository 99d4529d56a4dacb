"""A process for `test_cloud`: for each number on stdin it runs so many jobs in E2B and prints what came of each."""

from __future__ import annotations

import sys

from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> None:
    with build_services(load_settings()) as services, services.databases:
        say("ready")
        for line in sys.stdin:
            for _ in range(int(line)):
                try:
                    say(str(services.run_job(Job()).status))
                except NovaError as error:
                    say(type(error).__name__)


if __name__ == "__main__":
    main()
