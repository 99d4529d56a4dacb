"""Asks a running Dagster web service for a run, by GraphQL over HTTP, with nothing of Dagster in this process."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from nova_pipelines.cli.live import LOCATION
from nova_pipelines.compiler.feeds import Feed
from nova_pipelines.compiler.starting import Asked
from nova_pipelines.compiler.tags import RUN_KEY, run_config, run_tags
from nova_pipelines.database.run_requests import Batch

#: the web service asks the code server for the job's plan first. Well below run_requests.WATCH_PATIENCE
ASK_SECONDS = 20.0
#: the name of the one repository of the code location
REPOSITORY = "__repository__"
#: answers after which Dagster has made no run
NO_RUN = {
    "InvalidStepError",
    "InvalidOutputError",
    "RunConfigValidationInvalid",
    "PipelineNotFoundError",
    "ConflictingExecutionParamsError",
    "NoModeProvidedError",
    "PresetNotFoundError",
    "InvalidSubsetError",
    "UnauthorizedError",
}

_LAUNCH = """mutation NovaLaunch($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } } }
}"""


def ask_for_run(url: str | None, feed: Feed, batch: Batch, *, seconds: float = ASK_SECONDS) -> Asked:
    """Asks the web service at `url` for the run of a batch. Never raises for what the service says or does."""
    if url is None:
        return Asked("refused", "no Dagster web service is known: start `nova up`, or set NOVA_DAGSTER_URL")
    tags = run_tags(batch.executions, batch.slug) | {RUN_KEY: batch.key}
    params = {
        "selector": {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "pipelineName": feed.job_name},
        "runConfigData": run_config(feed.start, batch.executions),
        "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
    }
    body = json.dumps({"query": _LAUNCH, "variables": {"params": params}}).encode()
    headers = {"Content-Type": "application/json"}
    try:
        request = urllib.request.Request(f"{url}/graphql", data=body, headers=headers)  # noqa: S310 - from the settings
        with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
            found = json.load(answer)
        return _asked(found["data"]["launchRun"])
    except urllib.error.HTTPError as error:
        return Asked("unknown", f"{url} answered with HTTP status {error.code}")
    except urllib.error.URLError as error:
        refused = isinstance(error.reason, ConnectionRefusedError)
        return Asked("refused" if refused else "unknown", f"{url} cannot be reached: {error.reason}")
    except (OSError, http.client.HTTPException) as error:
        return Asked("unknown", f"{url} did not answer: {error or type(error).__name__}")
    except (ValueError, KeyError, TypeError):
        return Asked("unknown", f"{url} gave no answer of a Dagster web service")


def _asked(answer: dict[str, Any]) -> Asked:
    kind = answer["__typename"]
    if kind == "LaunchRunSuccess":
        return Asked("started", answer["run"]["runId"])
    texts = [answer.get("message") or "", *(error["message"] for error in answer.get("errors") or [])]
    text = f"{kind}: {'; '.join(text for text in texts if text)}"[:500]
    return Asked("refused" if kind in NO_RUN else "unknown", text)
