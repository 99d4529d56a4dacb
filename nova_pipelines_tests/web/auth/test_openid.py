"""Login by an OpenID provider: a real one with RSA keys on loopback, and the ways in which it could be another's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import OctKey, RSAKey

from nova_pipelines.adapters import openid
from nova_pipelines.database.auth_tables import User
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import load_settings
from nova_pipelines.web.auth.oidc import provider as known_provider
from nova_pipelines_tests.fixtures.openid_provider import CLIENT_ID, CLIENT_SECRET, OpenIdServer
from nova_pipelines_tests.fixtures.postgres import clean_environment
from nova_pipelines_tests.web.auth.site import HOME, Site, TestClient, running_site

ROLES = "nova-admins=admin, ops=operator, other=viewer@other, everybody=viewer"


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenIdServer]:
    with OpenIdServer() as server:
        yield server


@pytest.fixture(scope="module")
def openid_site(
    provider: OpenIdServer, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    settings = {
        "NOVA_OIDC_ISSUER": f"{provider.url}/",
        "NOVA_OIDC_CLIENT_ID": CLIENT_ID,
        "NOVA_OIDC_CLIENT_SECRET": CLIENT_SECRET,
        "NOVA_OIDC_ROLES": ROLES,
    }
    with running_site(sqlite_template, tmp_path_factory.mktemp("openid"), host="127.0.0.1", **settings) as made:
        made.make_keys()
        yield made


@pytest.fixture(autouse=True)
def honest(provider: OpenIdServer, openid_site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(openid, "KEYS_PAUSE_SECONDS", 0.0)
    yield
    provider.honest()


def start(site: Site, target: str = "/runs") -> tuple[TestClient, str]:
    """A browser that was sent to the provider, and where to."""
    browser = site.browser(Accept="text/html")
    answer = browser.get(f"/login/openid?next={target}")
    assert answer.status_code == 303
    return browser, answer.headers["location"]


def log_in(site: Site, provider: OpenIdServer, subject: str = "u-1", **claims: Any):
    browser, url = start(site)
    return browser, browser.get(provider.agree(url, subject, **({"groups": ["everybody"]} | claims)))


def test_a_person_gets_in(openid_site: Site, provider: OpenIdServer, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    assert 'href="/login/openid?next=%2F"' in openid_site.client().get("/login").text
    browser, answer = log_in(
        openid_site, provider, groups=["x", "nova-admins"], email="Ana@Example.com", email_verified=True
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs")
    assert browser.get("/whoami").json() == {
        "name": "ana@example.com",
        "role": "admin",
        "kind": "session",
        "clients": None,
    }
    assert "nova_login" not in browser.cookies
    assert CLIENT_SECRET not in caplog.text
    # the role is what the provider says at each login
    browser, _ = log_in(openid_site, provider, groups="ops", email="new@example.com", email_verified=True)
    assert browser.get("/whoami").json()["role"] == "operator"
    with openid_site.nova.read() as session:
        assert session.query(User).filter_by(subject="u-1").count() == 1


def test_a_person_limited_to_a_client(openid_site: Site, provider: OpenIdServer):
    browser, _ = log_in(openid_site, provider, "u-2", groups=["other"], preferred_username="clara")
    assert browser.get("/whoami").json() == {"name": "clara", "role": "viewer", "kind": "session", "clients": ["other"]}
    assert browser.get("/runs").status_code == 403


def test_a_configured_provider_means_closed(openid_site: Site):
    assert openid_site.client(base_url="http://127.0.0.1").get("/whoami").status_code == 401


def refused(answer: Any, reason: str, status: int = 401) -> None:
    assert answer.status_code == status, answer.text
    assert reason in answer.text
    assert "nova_session" not in answer.headers.get("set-cookie", "")
    assert CLIENT_SECRET not in answer.text


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another-application"},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"aud": [CLIENT_ID, "another"]},
        {"azp": "another"},
        {"nonce": "of another login"},
        {"nonce": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"iat": None},
        {"iat": 9_999_999_999},
        {"sub": None},
        {"sub": ""},
        {"sub": "x" * 256},
    ],
    ids=str,
)
def test_claims_that_are_not_right(openid_site: Site, provider: OpenIdServer, claims: dict[str, Any]):
    provider.claims = claims
    refused(log_in(openid_site, provider)[1], "id_token")


def test_signatures_of_others(openid_site: Site, provider: OpenIdServer):
    provider.forger = RSAKey.generate_key(2048)
    refused(log_in(openid_site, provider)[1], "id_token is not right")
    provider.forger, provider.header = OctKey.import_key(CLIENT_SECRET), {"alg": "HS256"}
    refused(log_in(openid_site, provider)[1], "id_token is not right")
    # the public key as a shared secret: what breaks those who do not fix the algorithm
    provider.forger = provider.keys[0].as_pem(private=False)
    refused(log_in(openid_site, provider)[1], "id_token is not right")
    provider.forger = b""  # no signature at all
    refused(log_in(openid_site, provider)[1], "id_token is not right")


def test_a_new_key_of_the_provider_is_asked_for(openid_site: Site, provider: OpenIdServer):
    assert log_in(openid_site, provider)[1].status_code == 303
    provider.keys.insert(0, RSAKey.generate_key(2048, {"kid": "second"}))
    assert log_in(openid_site, provider)[1].status_code == 303


def test_an_answer_of_another_login(openid_site: Site, provider: OpenIdServer):
    """Login CSRF: the attacker's answer in the victim's browser."""
    _, attackers = start(openid_site)
    answer = provider.agree(attackers, "attacker", groups=["everybody"])
    refused(openid_site.browser().get(answer), "not begun here")
    victim, _ = start(openid_site)
    refused(victim.get(answer), "does not belong to this login")


def test_an_answer_is_good_once(openid_site: Site, provider: OpenIdServer):
    browser, url = start(openid_site)
    kept = browser.cookies["nova_login"]
    answer = provider.agree(url, groups=["everybody"])
    assert browser.get(answer).status_code == 303
    again = openid_site.browser()
    refused(again.get(answer), "not begun here")
    again.cookies.set("nova_login", kept)
    refused(again.get(answer), "did not take the code: invalid_grant")


def test_an_answer_of_another_provider(openid_site: Site, provider: OpenIdServer):
    browser, url = start(openid_site)
    answer = provider.agree(url).replace(f"iss={provider.url}", "iss=https://evil.example")
    refused(browser.get(answer), "another provider")


def test_what_the_provider_refuses(openid_site: Site, provider: OpenIdServer):
    browser, url = start(openid_site)
    state = parse_qs(urlsplit(url).query)["state"][0]
    text = "<script>alert(1)</script>"
    refused(
        browser.get(f"/login/openid/return?error={text}&error_description={text}&state={state}"), "scriptalert1script"
    )
    browser, url = start(openid_site)
    state = parse_qs(urlsplit(url).query)["state"][0]
    refused(browser.get(f"/login/openid/return?state={state}"), "gave no code")


def test_the_cookie_of_a_login_is_nobodys_to_change(openid_site: Site, provider: OpenIdServer):
    browser, url = start(openid_site)
    answer = provider.agree(url)
    kept = browser.cookies["nova_login"]
    assert parse_qs(urlsplit(url).query)["nonce"][0] not in kept
    browser.cookies.set("nova_login", kept[:-4] + "AAAA", domain="nova.example", path="/")
    refused(browser.get(answer), "not begun here")


def test_nobody_gets_in_without_a_role(openid_site: Site, provider: OpenIdServer):
    refused(log_in(openid_site, provider, "u-9", groups=["strangers"])[1], "no role")
    refused(log_in(openid_site, provider, "u-9", groups=None)[1], "no role")


def test_no_account_is_taken_over_by_its_name(openid_site: Site, provider: OpenIdServer):
    openid_site.make_user("root@example.com", "admin")
    claims = {"email": "root@example.com", "email_verified": True}
    refused(log_in(openid_site, provider, "u-10", **claims)[1], "there is a user root@example.com already", 409)
    # an address that is not verified is not even a name
    browser, _ = log_in(openid_site, provider, "u-11", email="root@example.com")
    assert browser.get("/whoami").json()["name"] == "openid-u-11"


def test_a_disabled_person_stays_out(openid_site: Site, provider: OpenIdServer):
    log_in(openid_site, provider, "u-12")
    with openid_site.nova.session() as session:
        session.query(User).filter_by(subject="u-12").one().is_active = False
    refused(log_in(openid_site, provider, "u-12")[1], "disabled here")


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ({"issuer": "https://evil.example"}, "names another issuer"),
        ({"token_endpoint": "ftp://evil"}, "lacks an https address"),
        ({"jwks_uri": None}, "lacks an https address"),
    ],
)
def test_a_provider_that_describes_another(
    openid_site: Site, provider: OpenIdServer, description: dict[str, Any], reason: str
):
    known_provider(openid_site.settings)._described_at = float("-inf")
    provider.description = description
    refused(openid_site.browser().get("/login/openid"), reason)
    known_provider(openid_site.settings)._described_at = float("-inf")


def test_the_address_that_the_provider_knows(openid_site: Site):
    _, url = start(openid_site)
    assert parse_qs(urlsplit(url).query)["redirect_uri"] == [f"{HOME}/login/openid/return"]


def test_without_a_provider_there_is_no_such_page(site: Site):
    assert site.client().get("/login/openid").status_code == 404
    assert site.client().get("/login/openid/return?code=x&state=y").status_code == 404


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NOVA_OIDC_ISSUER", "http://login.example.com", "http is for this machine alone"),
        ("NOVA_OIDC_ISSUER", "", "set NOVA_OIDC_ISSUER, NOVA_OIDC_CLIENT_ID"),
        ("NOVA_OIDC_ROLES", "admins", "must be value=role"),
        ("NOVA_OIDC_ROLES", "admins=root", "must be value=role"),
        ("NOVA_OIDC_ROLES", "admins=admin@", "must be value=role"),
        ("NOVA_TRUSTED_PROXIES", "10.0.0.0/8, nonsense", "'nonsense'"),
        ("NOVA_PUBLIC_URL", "nova.example.com", "must be an address"),
    ],
)
def test_settings_that_cannot_be(monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str):
    clean_environment(monkeypatch)
    whole = {"ISSUER": "https://login.example", "CLIENT_ID": "x", "CLIENT_SECRET": CLIENT_SECRET, "ROLES": "*=viewer"}
    for part, text in whole.items():
        monkeypatch.setenv(f"NOVA_OIDC_{part}", text)
    assert load_settings().oidc_ready
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=reason) as caught:
        load_settings()
    assert CLIENT_SECRET not in str(caught.value)
