"""Asking a token endpoint: what it may answer, and what a person reads of it. No token in any of the texts."""

from __future__ import annotations

import traceback

import pytest

from nova_pipelines.adapters import oauth
from nova_pipelines.adapters.oauth import OAuthApp
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, TransientError
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer, Trouble

USER = "facturas@idom.example"


@pytest.fixture(scope="module")
def module_server():
    with TokenServer() as server:
        yield server


@pytest.fixture
def server(module_server: TokenServer):
    yield module_server
    assert module_server.troubles == []
    module_server.requests.clear()


def app(server: TokenServer, provider: str = "microsoft", **changes) -> OAuthApp:
    values = {"client_id": CLIENT_ID, "base_url": server.url, "tenant": "idom.example"}
    return OAuthApp(provider, **(values | changes))  # type: ignore[arg-type]


def texts(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


def test_a_refresh_gives_a_token_and_says_until_when(server: TokenServer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(oauth.time, "time", lambda: 1_000_000.0)
    refresh_token = server.new_refresh_token(USER)
    tokens = oauth.refresh(app(server), refresh_token)
    assert server.users[tokens.access_token] == USER
    assert tokens.expires_at == 1_003_600
    assert tokens.refresh_token == refresh_token  # none came: the old one stays
    (asked,) = server.requests
    assert asked["path"] == "/idom.example/oauth2/v2.0/token"
    assert "offline_access" in asked["scope"]
    assert "client_secret" not in asked
    assert tokens.access_token not in repr(tokens)
    assert refresh_token not in repr(tokens)


@pytest.mark.parametrize(
    ("trouble", "expected", "words"),
    [
        (Trouble(500, "boom"), TransientError, "answered 500"),
        (Trouble(503, '{"error":"x"}'), TransientError, "answered 503"),
        (Trouble(429, "slow down"), TransientError, "answered 429"),
        (Trouble(400, '{"error":"temporarily_unavailable"}'), TransientError, "temporarily_unavailable"),
        (Trouble(404, "<html>"), ConfigurationError, "answered 404"),
        (Trouble(200, "<html>"), (TransientError, ConfigurationError), "microsoft"),
        (Trouble(200, "[1]"), (TransientError, ConfigurationError), "microsoft"),
        (Trouble(200, '{"access_token":"a b\\r\\nc"}'), TransientError, "an answer that is none"),
        (Trouble(200, '{"access_token":"abc","expires_in":"soon"}'), TransientError, "cannot be reached or understood"),
        (Trouble(200, seconds=1.5), TransientError, "did not answer in time"),
        (Trouble(302, headers={"Location": "http://127.0.0.1:1/steal"}), ConfigurationError, "elsewhere"),
        (Trouble(400, '{"error":"invalid_client"}'), CredentialError, "invalid_client"),
        (Trouble(400, '{"error":"interaction_required"}'), CredentialError, "log in again"),
    ],
    ids=lambda value: f"{value.status}-{value.body[:20]}" if isinstance(value, Trouble) else None,
)
def test_what_a_token_endpoint_may_answer(server, monkeypatch, trouble, expected, words):
    monkeypatch.setattr(oauth, "TIMEOUT", (5.0, 0.3))
    refresh_token = server.new_refresh_token(USER)
    server.troubles = [trouble]
    with pytest.raises(expected, match=words) as failed:
        oauth.refresh(app(server, client_secret=CLIENT_SECRET), refresh_token)
    assert failed.value.remedy
    for secret in (refresh_token, CLIENT_SECRET):
        assert secret not in texts(failed.value)


def test_a_spent_login_says_that_a_person_must_log_in_again(server: TokenServer):
    spent = server.new_refresh_token(USER)
    del server.refresh_tokens[spent]
    with pytest.raises(CredentialError, match="AADSTS70043: The refresh token has expired") as refused:
        oauth.refresh(app(server), spent)
    assert "log in again: nova client credentials set SLUG email --oauth microsoft" in str(refused.value)
    assert "Trace ID" not in str(refused.value)
    assert spent not in texts(refused.value)


def test_nobody_is_there():
    with closed_port() as port, pytest.raises(TransientError, match=f"127.0.0.1:{port}.*cannot be reached"):
        oauth.refresh(OAuthApp("google", "x", base_url=f"http://127.0.0.1:{port}"), "secret-refresh")


@pytest.mark.parametrize("url", ["http://login.example", "ftp://127.0.0.2", "http://localhost.evil.example"])
def test_secrets_are_not_sent_in_plain_text(url: str):
    with pytest.raises(ConfigurationError, match="plain text"):
        oauth.refresh(OAuthApp("microsoft", "x", base_url=url), "r")


def test_the_real_addresses():
    assert OAuthApp("microsoft", "x", tenant="t").url(oauth.PROVIDERS["microsoft"].token_url) == (
        "https://login.microsoftonline.com/t/oauth2/v2.0/token"
    )
    assert OAuthApp("google", "x").url(oauth.PROVIDERS["google"].token_url) == "https://oauth2.googleapis.com/token"


def test_an_application_logs_in_by_itself(server: TokenServer):
    tokens = oauth.app_token(app(server, client_secret=CLIENT_SECRET))
    assert (server.requests[0]["scope"], tokens.refresh_token) == ("https://outlook.office365.com/.default", None)
    wrong = CLIENT_SECRET[::-1]
    with pytest.raises(CredentialError, match="AADSTS7000215") as refused:
        oauth.app_token(app(server, client_secret=wrong))
    assert wrong not in texts(refused.value)
    with pytest.raises(ConfigurationError, match="needs its secret"):
        oauth.app_token(app(server))
    with pytest.raises(ConfigurationError, match="google"):
        oauth.app_token(app(server, "google", client_secret=CLIENT_SECRET))


def test_a_device_waits_for_the_person(server: TokenServer):
    waited: list[float] = []
    server.pending, server.device_user = ["authorization_pending", "slow_down", "authorization_pending"], USER
    prompt = oauth.begin_device(app(server))
    assert (prompt.user_code, prompt.verification_uri) == ("ABCD-EFGH", "https://login.example/device")
    tokens = oauth.wait_for_device(app(server), prompt, sleep=waited.append)
    assert waited == [5, 5, 10, 10]  # RFC 8628 3.5
    assert server.users[tokens.access_token] == USER
    assert tokens.refresh_token in server.refresh_tokens


@pytest.mark.parametrize(
    ("answers", "words"), [(["access_denied"], "did not agree"), (["authorization_pending"] * 999, "nobody logged in")]
)
def test_a_device_that_is_refused_or_forgotten(server: TokenServer, answers: list[str], words: str):
    server.pending = list(answers)
    prompt = oauth.begin_device(app(server))
    with pytest.raises(CredentialError, match=words):
        oauth.wait_for_device(app(server), prompt, sleep=lambda _: None)
    server.pending = []


def test_a_browser_brings_the_answer(server: TokenServer):
    google = app(server, "google", client_secret=CLIENT_SECRET)
    prompt = oauth.begin_browser(google, "http://127.0.0.1:9/", login_hint=USER)
    tokens = oauth.finish_browser(google, prompt, server.agree(prompt.url, USER))
    assert server.users[tokens.access_token] == USER
    assert prompt.verifier not in repr(prompt)


def test_a_browser_brings_another_answer(server: TokenServer):
    google = app(server, "google")
    prompt = oauth.begin_browser(google, "http://127.0.0.1:9/")
    other = oauth.begin_browser(google, "http://127.0.0.1:9/")
    with pytest.raises(CredentialError, match="state"):  # somebody else's answer was slipped in
        oauth.finish_browser(google, prompt, server.agree(other.url, "evil@x.example"))
    with pytest.raises(CredentialError, match="did not agree"):
        oauth.finish_browser(google, prompt, "http://127.0.0.1:9/?error=access_denied")
    with pytest.raises(CredentialError, match="paste the whole"):
        oauth.finish_browser(google, prompt, "hello")
    with pytest.raises(ConfigurationError, match="no device login"):
        oauth.begin_device(google)
