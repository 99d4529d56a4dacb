"""Asks a running Dagster web service for a run, by GraphQL over HTTP, with nothing of Dagster in this process."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request

from nova_pipelines.compiler.dagster_calls import LAUNCH, Asked, launch_variables, read_launch
from nova_pipelines.compiler.feeds import Feed
from nova_pipelines.database.run_requests import Batch

#: the web service asks the code server for the job's plan first. Well below run_requests.WATCH_PATIENCE
ASK_SECONDS = 20.0


def ask_for_run(
    url: str | None, feed: Feed, batch: Batch, *, token: str | None = None, seconds: float = ASK_SECONDS
) -> Asked:
    """Asks the web service at `url` for the run of a batch. Never raises for what the service says or does.

    `token`: by which it knows that this is a program of NOVA (`secrets.internal_token`).
    """
    if url is None:
        return Asked("refused", "no Dagster web service is known: start `nova up`, or set NOVA_DAGSTER_URL")
    variables = launch_variables(feed.job_name, feed.start, batch)
    body = json.dumps({"query": LAUNCH, "variables": variables}).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    try:
        request = urllib.request.Request(f"{url}/graphql", data=body, headers=headers)  # noqa: S310 - from the settings
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            found = json.load(answer)
        return read_launch(found["data"])
    except urllib.error.HTTPError as error:
        # whoever is not let in is certain to have started nothing
        refused = error.code in (401, 403)
        return Asked("refused" if refused else "unknown", f"{url} answered with HTTP status {error.code}")
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        return Asked("refused" if refused else "unknown", f"{url} cannot be reached: {error.reason}")
    except (OSError, http.client.HTTPException) as error:
        return Asked("unknown", f"{url} did not answer: {error or type(error).__name__}")
    except (ValueError, KeyError, TypeError):
        return Asked("unknown", f"{url} gave no answer of a Dagster web service")
