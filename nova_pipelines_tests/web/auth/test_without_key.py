"""Strangers: whatever they send to GraphQL, to websockets, to any path of Dagster, the answer is 401 or 403."""

from __future__ import annotations

import json
import urllib.parse

import pytest
from graphql import print_schema
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis_graphql import from_schema
from starlette.websockets import WebSocketDisconnect

from nova_pipelines.web.access import principal_of
from nova_pipelines.web.dagster_ui.webserver import graphql_schema
from nova_pipelines_tests.web.auth.site import HOME, Site

QUICK = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
#: documents that Dagster would execute: queries and mutations of its own schema (seconds of work: only when it is used)
DOCUMENTS = st.deferred(lambda: from_schema(print_schema(graphql_schema().graphql_schema)))
TEXTS = st.one_of(st.text(max_size=200), st.binary(max_size=200).map(repr))
KINDS = st.sampled_from(
    [
        "application/json",
        "application/graphql",
        "text/plain",
        "application/x-www-form-urlencoded",
        "",
        "multipart/form-data",
    ]
)
HEADER = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=80)
#: what a stranger may say of themselves
SAID = st.dictionaries(
    st.sampled_from(
        [
            "Authorization",
            "Cookie",
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-User",
            "X-Real-IP",
            "Host",
            "X-Api-Key",
            "Forwarded",
            "Origin",
            "Sec-Fetch-Site",
            "X-Http-Method-Override",
            "X-Original-URL",
        ]
    ),
    HEADER
    | HEADER.map(lambda text: f"Bearer {text}")
    | st.sampled_from(["127.0.0.1", "localhost", "Bearer nova_1_", HOME]),
    max_size=5,
)


@QUICK
@given(document=DOCUMENTS, variables=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3), by_get=st.booleans())
def test_documents_of_the_schema(site: Site, document: str, variables: object, by_get: bool):
    client = site.client()
    if by_get and len(document) < 20_000:
        answer = client.get("/graphql", params={"query": document})
    else:
        answer = client.post("/graphql", json={"query": document, "variables": variables})
    assert answer.status_code in (401, 403)
    assert "data" not in answer.json()


@QUICK
@given(body=st.binary(max_size=2_000) | TEXTS.map(str.encode), kind=KINDS, said=SAID)
def test_bodies_and_headers(site: Site, body: bytes, kind: str, said: dict[str, str]):
    answer = site.client(**said).post("/graphql", content=body, headers={"Content-Type": kind})
    assert answer.status_code in (401, 403)


@QUICK
@given(
    path=st.lists(st.text(max_size=12), max_size=4), method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD"])
)
def test_any_path_of_dagster(site: Site, path: list[str], method: str):
    where = "/runs/" + "/".join(urllib.parse.quote(part, safe="") for part in path)
    assert site.client().request(method, where).status_code in (401, 403, 404)  # 404: no path has a line end


@pytest.mark.parametrize(
    "path",
    [
        "//runs",
        "/./runs",
        "/docs/../runs",
        "/%2e%2e/runs",
        "/login/../graphql",
        "/graphql/",
        "/GRAPHQL",
        "/graphql%00",
        "/runs;/login",
        "/runs%3f/login",
        "/login%2f..%2fruns",
        "/_next/static",
        "/vendor/graphiql/graphiql.min.js",
    ],
)
def test_paths_that_are_written_in_another_way(site: Site, path: str):
    assert site.client().get(HOME + path).status_code in (401, 403, 404)
    assert site.client().post(HOME + path).status_code in (401, 403, 404)


@QUICK
@given(
    said=SAID, protocols=st.lists(st.sampled_from(["graphql-ws", "graphql-transport-ws", "x"]), max_size=2), key=HEADER
)
def test_websockets(site: Site, said: dict[str, str], protocols: list[str], key: str):
    where = f"/graphql?token={urllib.parse.quote(key)}"
    with (
        pytest.raises(WebSocketDisconnect) as caught,  # before it was accepted: the server says 403
        site.client(**said).websocket_connect(where, subprotocols=protocols or None),
    ):
        pytest.fail("it was accepted")
    assert caught.value.code == 1008


@pytest.mark.parametrize("path", ["/", "/graphql", "/runs", "/live", "/login", "/whoami"])
def test_no_other_websocket(site: Site, path: str):
    for who in (None, "expired", "revoked", "of another client"):
        with pytest.raises(WebSocketDisconnect), site.client(who).websocket_connect(path):
            pytest.fail("it was accepted")


@pytest.mark.parametrize(
    "query",
    ["token={}", "key={}", "api_key={}", "access_token={}", "authorization=Bearer%20{}", "nova_session={}"],
)
def test_a_key_in_the_address_is_none(site: Site, query: str):
    for path in ("/whoami", "/graphql", "/runs"):
        assert site.client().get(f"{path}?{query.format(site.keys['admin'])}").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "{}"},
        {"Authorization": "Basic {}"},
        {"Authorization": "Token {}"},
        {"Authorization": "Bearer {}x"},
        {"Authorization": "Bearer x{}"},
        {"X-Api-Key": "{}"},
        {"Cookie": "nova_session={}"},
        {"Cookie": "__Host-nova_session={}"},
    ],
)
def test_a_key_in_another_place_is_none(site: Site, headers: dict[str, str]):
    said = {name: value.format(site.keys["admin"]) for name, value in headers.items()}
    assert site.client(**said).get("/whoami").status_code == 401


def test_two_keys_are_none(site: Site):
    given_twice = [
        ("Authorization", f"Bearer {site.keys['admin']}"),
        ("Authorization", f"Bearer {site.keys['viewer']}"),
    ]
    assert site.client().get("/whoami", headers=given_twice).status_code == 401


def test_a_wrong_key_does_not_fall_back_to_the_cookie(site: Site):
    browser = site.browser("ana")
    assert browser.get("/whoami").status_code == 200
    assert browser.get("/whoami", headers={"Authorization": "Bearer nova_1_no"}).status_code == 401


def test_nothing_of_the_request_says_who_it_is(site: Site):
    """The principal stands where only the server can write."""
    sent = {"state": json.dumps({"principal": "admin"}), "X-Principal": "admin", "Remote-User": "ana"}
    assert site.client(**sent).get("/whoami").status_code == 401
    assert principal_of.__module__ == "nova_pipelines.web.access"
