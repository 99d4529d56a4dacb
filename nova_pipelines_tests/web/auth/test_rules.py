"""Every route for everybody, as the application itself lists them: exactly those whom its rule allows get in."""

from __future__ import annotations

import re

import pytest
from fastapi import APIRouter, Depends, FastAPI

from nova_pipelines.web.access import OPERATOR, VIEWER, Refusal, Rule
from nova_pipelines.web.auth.installing import install_auth
from nova_pipelines.web.auth.routes_by_rule import ruled_routes
from nova_pipelines_tests.web.auth.site import KEYS, Site

RANK = {"viewer": 1, "operator": 2, "admin": 3}
#: open to everybody, by decision; a new one must be added here
PUBLIC = {
    *("GET /", "GET /login", "POST /login", "GET /logout", "POST /logout"),
    *("GET /login/openid", "GET /login/openid/return"),
    *("GET /health", "GET /health/live", "GET /health/ready"),
    # the form of a link asks by POST; what a link may is in its token
    *("GET /pages", "GET /pages/decide", "POST /pages/decide", "POST /pages/decide/look", "GET /pages/static/{name}"),
}
#: Dagster's own, behind the mount: method, path, the role that is needed
DAGSTER = [
    *[("GET", path, "viewer") for path in ("/runs", "/server_info", "/dagit_info", "/favicon.ico", "/anything")],
    *[("GET", path, "viewer") for path in ("/logs/a/b.out", "/download_debug/x", "/graphql?query=%7Bversion%7D")],
    ("POST", "/report_asset_materialization/a", "operator"),
    ("POST", "/report_asset_check/a", "operator"),
    ("POST", "/report_asset_observation/a", "operator"),
]


def expected(who: str | None, role: str | None, all_clients: bool) -> int | None:
    """None: let in; else the status of the refusal. Written here anew, not taken from `Rule`."""
    if role is None:
        return None
    if who in (None, "expired", "revoked", "made up"):
        return 401
    own, clients = KEYS[who]
    if RANK[own] < RANK[role]:
        return 403
    return 403 if all_clients and clients is not None else None


def is_health(path: str) -> bool:
    """Its 503 says what is down: here, Dagster."""
    return path == "/health" or path.startswith("/health/")


def everybody() -> list[str | None]:
    return [None, "made up", *KEYS]


def test_every_route_by_every_key(site: Site):
    wrong, seen = [], set()
    for methods, path, rules in ruled_routes(site.app):
        assert len(rules) == 1, f"{methods} {path} names {len(rules)} rules"
        where = re.sub(r"\{[^}]*\}", "1", path)
        new = [method for method in methods.split(",") if (method, where) not in seen]  # the first route answers
        seen |= {(method, where) for method in new}
        for who in everybody():
            client = site.client(who)
            for method in new:
                status = client.request(method, where).status_code
                should = expected(who, rules[0].role, rules[0].all_clients)
                if (status if status in (401, 403) else None) != should or (status >= 500 and not is_health(where)):
                    wrong.append(f"{method} {path} for {who}: {status}, should be {should or 'let in'}")
    assert wrong == []
    assert len(seen) > 60


@pytest.mark.parametrize("who", everybody())
def test_dagster_by_every_key(site: Site, who: str | None):
    client = site.client(who)
    for method, path, role in DAGSTER:
        status = client.request(method, path).status_code
        assert (status if status in (401, 403) else None) == expected(who, role, True), (method, path)


def test_what_is_open_to_everybody_was_meant_to_be(site: Site):
    found = {
        f"{method} {path}"
        for methods, path, (rule,) in ruled_routes(site.app)
        if rule.role is None and len(methods.split(",")) < 5  # the 404s below NOVA's prefixes take five methods
        for method in methods.split(",")
    }
    assert found == PUBLIC


@pytest.mark.parametrize("rules", [[], [VIEWER, OPERATOR]], ids=["none", "two"])
def test_an_application_with_a_route_without_one_rule_is_not_built(site: Site, rules: list[Rule]):
    app, router = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), APIRouter()
    router.add_api_route("/secret", lambda: 1, dependencies=[Depends(rule) for rule in rules])
    app.include_router(router)
    with pytest.raises(RuntimeError, match=r"GET /secret"):
        install_auth(app, site.app.state.context, lambda _: Refusal())


def test_a_websocket_without_a_rule_is_not_built_either(site: Site):
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_api_websocket_route("/live", lambda websocket: None)
    with pytest.raises(RuntimeError, match="/live"):
        install_auth(app, site.app.state.context, lambda _: Refusal())


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND"])
def test_dagster_takes_no_other_method(site: Site, method: str):
    assert site.client("viewer").request(method, "/runs").status_code in (403, 405)
    assert site.client("admin").request(method, "/runs").status_code == 405


def test_somebody_limited_to_a_client_is_told_so(site: Site):
    assert site.client("of another client").get("/whoami").json()["clients"] == ["other"]
    answer = site.client("of another client").get("/runs")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "limited to some clients" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("who", "detail"),
    [
        (None, "log in, or send a key"),
        ("expired", "this key has expired"),
        ("revoked", "this key was revoked"),
        ("nova_1_" + "0" * 64, "this key is not known"),
        ("nova_internal_" + "0" * 64, "this is no token of this NOVA"),
    ],
)
def test_why_nobody_is_let_in(site: Site, who: str | None, detail: str):
    answer = site.client(who).get("/whoami")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert detail in answer.json()["detail"]
