"""Open on one machine, closed to all others: who asks for it by another name, or from a foreign page, gets nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.websockets import WebSocketDisconnect

from nova_pipelines.database.api_keys import create_key, revoke_key
from nova_pipelines.database.identities import is_loopback, refuse_exposure
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.web.auth import authentication
from nova_pipelines_tests.web.auth.site import Site, running_site

HERE = "http://127.0.0.1:3000"
LIVE = "ws://127.0.0.1:3000/graphql"


@pytest.mark.parametrize(
    "url", [HERE, "http://localhost:3000", "http://[::1]:3000", "http://nova.localhost", "http://127.9.9.9"]
)
def test_this_machine_may_do_everything(open_site: Site, url: str):
    client = open_site.client(base_url=url)
    assert client.get("/whoami").json() == {"name": "open", "role": "admin", "kind": "open", "clients": None}
    assert client.get("/runs").status_code == 200
    query = {"query": 'mutation { deleteRun(runId: "x") { __typename } }'}
    assert client.post("/graphql", json=query).status_code == 200
    assert client.post("/graphql", json=query, headers={"Origin": url}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "10.0.0.1:3000",
        "",
        "[::2]",
        "127.0.0.1@evil",
    ],
)
def test_another_name_that_leads_here_is_refused(open_site: Site, host: str):
    client = open_site.client(base_url=HERE, Host=host)
    for path in ("/whoami", "/runs", "/graphql?query={version}"):
        assert client.get(path).status_code == 403, path
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(LIVE, headers={"Host": host}):
        pytest.fail("it was accepted")
    assert client.get("/").status_code == 200  # what is open to everybody stays so


@pytest.mark.parametrize(
    "said", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}]
)
def test_a_foreign_page_changes_nothing(open_site: Site, said: dict[str, str]):
    client = open_site.client(base_url=HERE, **said)
    assert client.post("/graphql", json={"query": "{ version }"}).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(LIVE):
        pytest.fail("it was accepted")
    with open_site.client(base_url=HERE).websocket_connect(LIVE, headers={"Origin": HERE}) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}


def test_a_form_of_a_foreign_page_is_no_query(open_site: Site):
    """Old browsers say nothing of where a form stands: what a form can send is no GraphQL here."""
    client = open_site.client(base_url=HERE)
    where = "/graphql?query=mutation{reloadWorkspace{__typename}}"
    assert client.post(where, content="", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.get(where).status_code == 405


def test_it_is_closed_by_the_first_key_and_stays_so(
    sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(authentication, "LOOK_SECONDS", 0.0)
    with running_site(sqlite_template, tmp_path, host="::1") as site:
        client = site.client(base_url=HERE)
        assert client.get("/whoami").status_code == 200
        assert refuse_exposure(site.nova, site.settings, "127.0.0.1") is True
        with pytest.raises(
            ConfigurationError, match=r"0\.0\.0\.0 can be reached from other machines.*nova users create"
        ):
            refuse_exposure(site.nova, site.settings, "0.0.0.0")  # noqa: S104
        with site.nova.session() as session:
            create_key(session, name="first", role="viewer", clients=None, by="test", expires_at=None)
        assert client.get("/whoami").status_code == 401
        assert refuse_exposure(site.nova, site.settings, "0.0.0.0") is False  # noqa: S104
        with site.nova.session() as session:
            revoke_key(session, "first")
        assert client.get("/whoami").status_code == 401
        assert refuse_exposure(site.nova, site.settings, "127.0.0.1") is False


def test_bound_elsewhere_it_is_never_open(sqlite_template: Path, tmp_path: Path):
    with running_site(sqlite_template, tmp_path, host="0.0.0.0") as site:  # noqa: S104
        assert site.client(base_url=HERE).get("/whoami").status_code == 401


def test_without_the_database_nobody_is_known_and_what_is_public_answers(sqlite_template: Path, tmp_path: Path):
    with running_site(sqlite_template, tmp_path, host="0.0.0.0") as site:  # noqa: S104
        site.make_keys()
        with site.nova.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE api_keys RENAME TO gone")
        answer = site.client("admin").get("/whoami")
        assert answer.status_code == 503
        assert "api_keys" not in answer.text
        assert answer.headers["retry-after"] == "5"
        assert site.client("admin").get("/").status_code == 200


OWN = ["localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]", "a.localhost"]
OTHERS = ["0.0.0.0", "::", "10.0.0.1", "localhost.com", "", "2130706433"]  # noqa: S104 - compared only


@pytest.mark.parametrize(("host", "own"), [*[(host, True) for host in OWN], *[(host, False) for host in OTHERS]])
def test_what_is_this_machine(host: str, own: bool):
    assert is_loopback(host) is own
