"""A watcher reduced to what it does to the database: takes batches in a loop and prints them. A process of its own."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from nova_pipelines.database.run_requests import WATCHED, reserve
from nova_pipelines.database.session import Database


def main(url: str, stop: str) -> None:
    nova, taken = Database(url), []
    with nova.read() as session:
        session.connection()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while not Path(f"{stop}.go").exists():
        time.sleep(0.001)
    while not Path(stop).exists():
        batches = reserve(nova, 1, prefix=WATCHED, max_batch=2, max_waiting=1000)
        taken += [list(batch.executions) for batch in batches]
    json.dump(taken, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
