"""What is running: the state file of `nova up`, and questions to Dagster's web service over HTTP."""

from __future__ import annotations

import json
import os
import urllib.request
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nova_pipelines.compiler.dagster_calls import LOCATION, STATUS, DagsterStatus, read_status
from nova_pipelines.settings import Settings

#: a reload builds every job: seconds for a thousand of them
RELOAD_SECONDS = 180


@dataclass(frozen=True, slots=True)
class UpState:
    """What `nova up` writes down once everything answers."""

    url: str
    pid: int
    code_host: str
    code_port: int
    dagster_home: str


def state_path(settings: Settings) -> Path:
    return settings.nova_home / "up.json"


def write_state(settings: Settings, state: UpState) -> None:
    path = state_path(settings)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(asdict(state), indent=2) + "\n", encoding="utf-8")
    aside.replace(path)


def read_state(settings: Settings) -> UpState | None:
    """The state that `nova up` left; None if there is none or its process is gone."""
    try:
        state = UpState(**json.loads(state_path(settings).read_text(encoding="utf-8")))
        os.kill(state.pid, 0)
    except (OSError, ValueError, TypeError):
        return None
    return state


def dagster_url(settings: Settings) -> str | None:
    """Where Dagster's web service should be found: NOVA_DAGSTER_URL, else what `nova up` wrote down."""
    if settings.nova_dagster_url:
        return settings.nova_dagster_url.rstrip("/")
    state = read_state(settings)
    return state.url if state else None


def ask_status(url: str, settings: Settings, *, seconds: float = 10.0) -> DagsterStatus:
    """Asks a running web service. Raises OSError or ValueError when it gives no such answer."""
    body = json.dumps({"query": STATUS}).encode()
    headers = {"Content-Type": "application/json"} | _authorization(settings)
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{url} is no http address")
    request = urllib.request.Request(f"{url}/graphql", data=body, headers=headers)  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=seconds) as answer:  # noqa: S310
        data: Any = json.load(answer)
    try:
        return read_status(data["data"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{url} is no Dagster web service") from error


def _authorization(settings: Settings) -> dict[str, str]:
    """By which the web service knows that this is a program of NOVA."""
    from nova_pipelines.database.secrets import internal_token

    return {"Authorization": f"Bearer {internal_token(settings)}"}


def reload_location(url: str, settings: Settings) -> str | None:
    """Has the code server read the stored workflows again. None: done; else why not.

    Raises OSError when nothing answers there.
    """
    parts = urlsplit(url)
    headers = _authorization(settings)
    request = urllib.request.Request(f"{url}/server_info", headers=headers)  # noqa: S310 - a URL of the settings
    with urllib.request.urlopen(request, timeout=5):  # noqa: S310
        pass  # an answer at all: importing the client below takes a second
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError, ReloadRepositoryLocationStatus

    try:
        client = DagsterGraphQLClient(
            parts.hostname or "127.0.0.1",
            port_number=parts.port,
            use_https=parts.scheme == "https",
            timeout=RELOAD_SECONDS,
            headers=headers,
            path_prefix=parts.path,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Dagster 1.13 calls gql 4 in gql 3's way
            info = client.reload_repository_location(LOCATION)
    except DagsterGraphQLClientError as error:
        return str(error.__cause__ or error)  # its own text repeats the query
    if info.status is ReloadRepositoryLocationStatus.SUCCESS:
        return None
    return info.message or "the code server gave no reason"
