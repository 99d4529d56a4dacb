"""What NOVA asks a Dagster web service, as GraphQL: a run, the state of the code location and the daemons, a reload.

Texts and the reading of their answers only: over HTTP (`cli`) or in the web process itself (`web`), others send them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from nova_pipelines.compiler.tags import RUN_KEY, run_config, run_tags
from nova_pipelines.database.run_requests import Batch

LOCATION = "nova"
#: the name of the one repository of the code location
REPOSITORY = "__repository__"
#: the file in NOVA_HOME that the daemon holds locked for as long as it lives (adapters/life_lock.py)
DAEMON_LOCK = "daemon.lock"
#: the revision of the catalog that a code location has loaded: in its reconstruction metadata and its repository's
STATE_KEY = "nova/catalog_revision"
#: a daemon gives a sign of life every 30 seconds
SILENT_SECONDS = 120

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


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of asking for a run. "refused": it is certain that there will be none; "unknown": nobody knows."""

    outcome: Literal["started", "refused", "unknown"]
    #: the run's id, or why there is none
    text: str


LAUNCH = """mutation NovaLaunch($params: ExecutionParams!) {
  launchRun(executionParams: $params) { __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on Error { message }
    ... on RunConfigValidationInvalid { errors { message } } }
}"""

TERMINATE = """mutation NovaTerminate($run: String!) {
  terminateRun(runId: $run, terminatePolicy: SAFE_TERMINATE) { __typename ... on Error { message }
    ... on TerminateRunFailure { message } ... on RunNotFoundError { message } ... on PythonError { message } }
}"""

STATUS = """query NovaStatus {
  workspaceOrError { __typename ... on Workspace { locationEntries { name loadStatus locationOrLoadError {
    __typename ... on PythonError { message } } } } }
  instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } }
}"""


@dataclass(frozen=True, slots=True)
class DagsterStatus:
    """What the web service says of itself and of the others. `location_error`: why no job is loaded."""

    location_loaded: bool
    location_error: str | None
    #: daemon type → time of its last sign of life (epoch seconds)
    daemons: dict[str, float]

    @property
    def location_settled(self) -> bool:
        return self.location_loaded or self.location_error is not None

    def silent_daemons(self) -> list[str]:
        """Daemons without a sign of life for so long that they are gone."""
        oldest = time.time() - SILENT_SECONDS
        return sorted(name for name, seen in self.daemons.items() if seen < oldest)

    def daemons_alive_since(self, moment: float) -> bool:
        return bool(self.daemons) and all(seen >= moment for seen in self.daemons.values())


def launch_variables(job_name: str, start: str, batch: Batch) -> dict[str, Any]:
    """The variables of LAUNCH for the run of a batch. `start`: the name of the job's first step."""
    tags = run_tags(batch.executions, batch.slug) | {RUN_KEY: batch.key}
    return {
        "params": {
            "selector": {"repositoryLocationName": LOCATION, "repositoryName": REPOSITORY, "pipelineName": job_name},
            "runConfigData": run_config(start, batch.executions),
            "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
        }
    }


def read_launch(data: Any) -> Asked:
    """The answer to LAUNCH. Raises KeyError or TypeError where it is none."""
    answer: dict[str, Any] = data["launchRun"]
    kind: str = answer["__typename"]
    if kind == "LaunchRunSuccess":
        return Asked("started", answer["run"]["runId"])
    errors: list[dict[str, str]] = answer.get("errors") or []
    texts: list[str] = [answer.get("message") or "", *(error["message"] for error in errors)]
    text = f"{kind}: {'; '.join(text for text in texts if text)}"[:500]
    return Asked("refused" if kind in NO_RUN else "unknown", text)


def read_status(data: Any) -> DagsterStatus:
    """The answer to STATUS. Raises KeyError or TypeError where it is none."""
    entries: dict[str, dict[str, Any]] = {
        entry["name"]: entry for entry in data["workspaceOrError"].get("locationEntries", [])
    }
    entry = entries.get(LOCATION)
    found: dict[str, Any] = (entry or {}).get("locationOrLoadError") or {}
    message = found.get("message") if found.get("__typename") == "PythonError" else None
    daemons: dict[str, float] = {
        status["daemonType"]: float(status["lastHeartbeatTime"] or 0)
        for status in data["instance"]["daemonHealth"]["allDaemonStatuses"]
        if status["required"]
    }
    loaded = bool(entry) and entry["loadStatus"] == "LOADED" and found.get("__typename") == "RepositoryLocation"
    return DagsterStatus(loaded, message, daemons)
