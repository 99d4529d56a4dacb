"""The whole application in this process behind a real socket, on both databases, with whoever a test wants to be."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.requests import HTTPConnection

from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import Settings, load_settings
from nova_pipelines.web.access import Principal, Refusal, Role
from nova_pipelines.web.app import create_app
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.dagster_ui import Dagster
from nova_pipelines_tests.cli.conftest import arithmetic
from nova_pipelines_tests.fixtures.postgres import clean_environment, sqlite_url

OPEN = Principal("open", "admin", "open")


class As:
    """In place of keys and sessions: the principal that the header `x-as` names, else the open one."""

    def __init__(self) -> None:
        self.principals: dict[str, Principal | Refusal] = {"": OPEN, "nobody": Refusal()}

    def __call__(self, connection: HTTPConnection) -> Principal | Refusal:
        return self.principals[connection.headers.get("x-as", "")]


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serves an application in a thread, on a free port of loopback: its address."""
    config = uvicorn.Config(app, port=0, log_level="error", ws="none", timeout_graceful_shutdown=2, log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


@dataclass
class Web:
    """A client of the application, and what is behind it."""

    app: FastAPI
    gate: As
    settings: Settings
    services: Services
    dagster: Dagster
    client: httpx.Client
    others: list[httpx.Client] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:  # web.get, web.post …
        return getattr(self.client, name)

    def limited(self, *slugs: str, role: Role = "admin") -> httpx.Client:
        """Somebody who sees these clients only."""
        name = f"{role}-{'-'.join(slugs)}"
        self.gate.principals[name] = Principal(name, role, "key", frozenset(slugs), id=7)
        return self.somebody(name)

    def somebody(self, name: str) -> httpx.Client:
        made = httpx.Client(base_url=self.client.base_url, headers={"x-as": name}, timeout=60)
        self.others.append(made)
        return made

    def workflow(self, name: str = "Double It", factor: int = 2) -> dict[str, Any]:
        answer = self.client.post("/workflows", content=arithmetic(name, factor))
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    def customer(self, slug: str = "idom") -> dict[str, Any]:
        answer = self.client.post("/clients", json={"name": slug.upper(), "slug": slug})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def execution(self, workflow: dict[str, Any], client: str | None = None, **context: Any) -> dict[str, Any]:
        body = {"initial_context": context} | ({"client_slug": client} if client else {})
        answer = self.client.post(f"/workflows/{workflow['id']}/execute", json=body)
        assert answer.status_code == 202, answer.text
        return answer.json()


@contextmanager
def open_web(settings: Settings, home: Path, *, authenticated: bool = False) -> Iterator[Web]:
    """Without a code location: what is begun stays pending, as while the code server is away.

    `authenticated`: who asks is found as in service, by keys.
    """
    workspace = home / "workspace.yaml"
    workspace.write_text(json.dumps({"load_from": []}))
    services = build_services(settings)
    with Dagster(workspace) as dagster:
        gate = As()
        app = create_app(WebContext(settings, services, dagster), authenticate=None if authenticated else gate)
        with serving(app) as url, httpx.Client(base_url=url, timeout=60) as client:
            web = Web(app, gate, settings, services, dagster, client)
            yield web
            for other in web.others:
                other.close()
    services.close()
    services.databases.close()


@pytest.fixture(scope="session")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One instance for all tests: to make its databases takes seconds."""
    return tmp_path_factory.mktemp("dagster")


@pytest.fixture
def web(
    database_settings: Settings, dagster_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Web]:
    """On SQLite and on PostgreSQL."""
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
    with open_web(database_settings, tmp_path) as made:
        yield made


@contextmanager
def web_on_sqlite(template: Path, dagster_home: Path, home: Path, *, authenticated: bool = False) -> Iterator[Web]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clean_environment(monkeypatch)
        for name in ("nova", "facturas"):
            shutil.copyfile(template / f"{name}.db", home / f"{name}.db")
        monkeypatch.setenv("NOVA_HOME", str(home))
        monkeypatch.setenv("DAGSTER_HOME", str(dagster_home))
        monkeypatch.setenv("DATABASE_URL", sqlite_url(home / "nova.db"))
        monkeypatch.setenv("FACTURAS_DATABASE_URL", sqlite_url(home / "facturas.db"))
        with open_web(load_settings(), home, authenticated=authenticated) as made:
            yield made


@pytest.fixture(scope="module")
def shared_web(sqlite_template: Path, dagster_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """On SQLite, one for all tests of a module."""
    with web_on_sqlite(sqlite_template, dagster_home, tmp_path_factory.mktemp("web")) as made:
        yield made
