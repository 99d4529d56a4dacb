"""NOVA's whole application in this process, with a Dagster instance of its own, keys and people of every kind."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from starlette.exceptions import StarletteDeprecationWarning

from nova_pipelines.cli.dagster_home import prepare_dagster_home
from nova_pipelines.database.api_keys import create_key, revoke_key
from nova_pipelines.database.audit_log import newest_entries
from nova_pipelines.database.auth_tables import ApiKey, AuditEntry
from nova_pipelines.database.clients import add_client
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.users import create_user, hash_password
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import Settings, load_settings
from nova_pipelines.web.app import create_app
from nova_pipelines.web.context import WebContext
from nova_pipelines.web.dagster_ui import Dagster
from nova_pipelines_tests.fixtures.postgres import clean_environment, sqlite_url

HOME = "http://nova.example"
#: the address of its websocket: TestClient forgets `base_url` there
LIVE = "ws://nova.example/graphql"
PASSWORD = "correct horse battery staple"
with warnings.catch_warnings():  # Starlette would rather have httpx2
    warnings.simplefilter("ignore", StarletteDeprecationWarning)
    from starlette.testclient import TestClient

#: name of a key → role, and the only clients that it sees
KEYS = {
    "viewer": ("viewer", None),
    "operator": ("operator", None),
    "admin": ("admin", None),
    "of another client": ("admin", ["other"]),
    "expired": ("admin", None),
    "revoked": ("admin", None),
}


@dataclass
class Site:
    app: FastAPI
    settings: Settings
    nova: Database
    #: one event loop for all requests: to start a thread and a loop for each takes as long as to answer it
    portal: BlockingPortal
    keys: dict[str, str] = field(default_factory=dict, repr=False)

    def client(self, key: str | None = None, *, base_url: str = HOME, **headers: str) -> TestClient:
        """Somebody with a key of this name, or a browser that has none. Follows no redirect."""
        if key is not None:
            headers["Authorization"] = f"Bearer {self.keys.get(key, key)}"
        made = TestClient(
            self.app, base_url=base_url, headers=headers, follow_redirects=False, raise_server_exceptions=False
        )
        made.portal = self.portal
        return made

    def browser(self, login: str | None = None, password: str = PASSWORD, **headers: str) -> TestClient:
        """A browser, which says where its requests come from; logged in as `login`."""
        client = self.client(**{"Origin": HOME, "Accept": "text/html", **headers})
        if login is not None:
            assert log_in(client, login, password).status_code == 303
        return client

    def make_keys(self) -> None:
        with self.nova.session() as session:
            add_client(session, name="IDOM", slug="idom")
            add_client(session, name="Other", slug="other")
            for name, (role, clients) in KEYS.items():
                ends = utc_now() + timedelta(days=1)
                key, token = create_key(session, name=name, role=role, clients=clients, by="test", expires_at=ends)
                self.keys[name] = token
                if name == "expired":
                    key.expires_at = utc_now() - timedelta(seconds=1)
            revoke_key(session, "revoked")

    def make_user(self, login: str, role: str = "viewer", clients: list[str] | None = None) -> None:
        with self.nova.session() as session:
            create_user(session, login=login, password_hash=_hash(), role=role, clients=clients)

    def audit(self, limit: int = 50) -> list[AuditEntry]:
        with self.nova.read() as session:
            return newest_entries(session, limit=limit)

    def key(self, name: str) -> ApiKey:
        with self.nova.read() as session:
            return session.query(ApiKey).filter_by(name=name).one()


_hashes: list[str] = []


def _hash() -> str:
    if not _hashes:
        _hashes.append(hash_password(PASSWORD))  # a tenth of a second
    return _hashes[0]


def log_in(client: TestClient, login: str, password: str = PASSWORD, **more: str):
    return client.post("/login", data={"login": login, "password": password, **more})


@contextmanager
def running_site(template: Path, home: Path, *, host: str = "0.0.0.0", **env: str) -> Iterator[Site]:  # noqa: S104
    """`host`: where it would listen. Its environment is this process's while it runs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clean_environment(monkeypatch)
        folder = home / "home"
        folder.mkdir(mode=0o700)
        for name in ("nova", "facturas"):
            shutil.copyfile(template / f"{name}.db", folder / f"{name}.db")
            monkeypatch.setenv(
                "DATABASE_URL" if name == "nova" else "FACTURAS_DATABASE_URL", sqlite_url(folder / f"{name}.db")
            )
        monkeypatch.setenv("NOVA_HOME", str(folder))
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        monkeypatch.setenv("DAGSTER_HOME", str(prepare_dagster_home(settings)))
        workspace = folder / "workspace.yaml"
        workspace.write_text("load_from: []\n")
        services = build_services(settings)
        with Dagster(workspace) as dagster, start_blocking_portal() as portal:
            app = create_app(WebContext(settings, services, dagster), host=host)
            yield Site(app, settings, services.databases.nova, portal)
        services.close()
        services.databases.close()
