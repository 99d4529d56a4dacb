"""Headers of every kind of answer, and the API's pages without a content network."""

from __future__ import annotations

import re

import pytest

from nova_pipelines_tests.web.auth.site import Site


@pytest.mark.parametrize(
    "path", ["/", "/login", "/docs", "/runs", "/graphql?query={version}", "/whoami", "/clients/x/y", "/favicon.ico"]
)
@pytest.mark.parametrize("who", [None, "viewer"])
def test_every_answer_has_them(site: Site, who: str | None, path: str):
    headers = site.client(who).get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["x-frame-options"] in ("SAMEORIGIN", "DENY")
    assert "frame-ancestors" in headers["content-security-policy"]
    assert "strict-transport-security" not in headers
    assert headers["cache-control"].partition(",")[0] in ("private", "no-store")
    assert "server" not in headers


def test_an_answer_that_no_route_gave_has_them_too(site: Site):
    for answer in (site.client().post("/login", headers={"Origin": "https://evil"}), site.client().get("/nope")):
        assert answer.status_code in (401, 403)
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_dagsters_own_policy_stays(site: Site):
    policy = site.client("viewer").get("/runs").headers["content-security-policy"]
    assert policy.startswith("base-uri 'none'; object-src 'none'; script-src 'nonce-")
    assert policy.endswith("; frame-ancestors 'self'")


def test_graphiql_works_as_a_page(site: Site):
    answer = site.client("viewer").get("/graphql", headers={"Accept": "text/html"})
    assert "GraphiQL" in answer.text
    assert "script-src 'self' 'unsafe-inline'" in answer.headers["content-security-policy"]


def test_the_pages_of_the_api_need_no_other_server(site: Site):
    client = site.client("viewer")
    for path in ("/docs", "/redoc"):
        page = client.get(path)
        assert not re.search(r"(https?:)?//[a-z]", page.text), page.text
        nonce = re.search(r"script-src 'self' 'nonce-([\w-]+)'", page.headers["content-security-policy"])
        scripts = re.findall(r"<script([^>]*)>", page.text)
        assert len(scripts) == 2
        for attributes in scripts:
            assert f'nonce="{nonce[1]}"' in attributes or 'src="/docs/files/' in attributes
        for file in re.findall(r'(?:src|href)="(/docs/files/[^"]+)"', page.text):
            assert len(client.get(file).content) > 100_000
    assert client.get("/docs/files/..%2f..%2fsecret").status_code == 404
    described = client.get("/openapi.json").json()
    assert described["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}


def test_a_browser_is_led_from_the_docs_to_the_login(site: Site):
    answer = site.browser().get("/docs")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fdocs")
