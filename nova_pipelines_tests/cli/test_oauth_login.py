"""`nova client credentials set --oauth`: each way to log in, against a token server and real mail servers."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request

import pytest

from nova_pipelines.cli import oauth_login
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.fixtures.dovecot import MailUser
from nova_pipelines_tests.fixtures.smtp_sink import OAuthSink
from nova_pipelines_tests.fixtures.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer


def log_in(nova: Nova, user: MailUser, smtp_port: int, provider: TokenServer, *more: str, code: int = 0, **options):
    return nova(
        *("client", "credentials", "set", "idom", "email", "--oauth-client-id", CLIENT_ID),
        *("--oauth-base-url", provider.url, "--user", user.name, "--address", "facturas@idom.example"),
        *("--imap-host", user.host, "--imap-port", str(user.tls_port), "--ca-file", user.ca_file),
        *("--smtp-host", "127.0.0.1", "--smtp-port", str(smtp_port), "--smtp-tls", "none", *more),
        code=code,
        **options,
    )


@pytest.mark.parametrize("way", ["device", "app", "browser", "paste"])
def test_logging_in_from_the_command_line(
    nova: Nova, oauth_user: MailUser, oauth_provider: TokenServer, monkeypatch: pytest.MonkeyPatch, way: str
):
    monkeypatch.setenv("APP_SECRET", CLIENT_SECRET)
    oauth_provider.device_user, oauth_provider.pending = oauth_user.name, ["authorization_pending"]
    nova("client", "add", "idom")
    with OAuthSink(oauth_provider.users) as sink:
        if way == "device":
            said = log_in(
                nova, oauth_user, sink.port, oauth_provider, "--oauth", "microsoft", "--tenant", "idom.example"
            )
            assert "open https://login.example/device in any browser and type the code ABCD-EFGH" in said.err
        elif way == "app":
            said = log_in(
                nova,
                oauth_user,
                sink.port,
                oauth_provider,
                "--oauth",
                "microsoft",
                "--app-only",
                "--client-secret-env",
                "APP_SECRET",
            )
        else:
            said = by_browser(nova, oauth_user, sink.port, oauth_provider, monkeypatch, way)
        if way != "app":  # its tokens are of no user of this Dovecot
            checks = {check["name"]: check for check in nova.json("doctor", code=None)["checks"]}
            assert checks["IMAP idom"]["ok"], checks["IMAP idom"]
            assert checks["SMTP idom"]["ok"], checks["SMTP idom"]
        # a change of something else asks for no login
        nova("client", "credentials", "set", "idom", "email", "--folder", "Facturas")
    shown = nova("client", "show", "idom", "--json")
    (credential,) = nova.json("client", "show", "idom")["credentials"]
    assert credential["settings"]["oauth_flow"] == {"paste": "browser"}.get(way, way)
    printed = said.out + said.err + shown.out
    assert not [secret for secret in oauth_provider.secrets() if secret in printed]
    oauth_provider.pending = []


def by_browser(nova: Nova, user: MailUser, port: int, provider: TokenServer, monkeypatch: pytest.MonkeyPatch, way: str):
    """A person whose browser is on this machine, or elsewhere."""
    addresses: list[str] = []
    monkeypatch.setattr(oauth_login, "note", lambda text: addresses.append(text.splitlines()[-1]))
    options = ("--oauth", "google", "--client-secret-env", "APP_SECRET")
    if way == "paste":
        monkeypatch.setattr(oauth_login, "_pasted", lambda: provider.agree(addresses[-1], user.name) + "\n")
        return log_in(nova, user, port, provider, *options, "--paste")

    def open_browser() -> None:
        deadline = time.monotonic() + 20
        while not addresses and time.monotonic() < deadline:
            time.sleep(0.02)
        answer = provider.agree(addresses[-1], user.name)
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(answer.partition("?")[0] + "favicon.ico", timeout=10)  # noqa: S310 - our own
        assert b"can be closed" in urllib.request.urlopen(answer, timeout=10).read()  # noqa: S310 - our own

    browser = threading.Thread(target=open_browser)
    browser.start()
    try:
        return log_in(nova, user, port, provider, *options)
    finally:
        browser.join(20)


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--oauth", "google", "--app-only"), 2, "no login of an application"),
        (("--oauth", "microsoft", "--app-only"), 2, "needs its secret"),
        (("--oauth", "microsoft", "--client-secret-env", "NOT_SET"), 2, "NOT_SET holds no secret"),
        (("--oauth", "yahoo"), 2, "yahoo"),
        (("--oauth", "microsoft", "--tenant", "a/../b"), 1, "is no tenant"),
    ],
)
def test_logins_that_cannot_be(nova: Nova, oauth_user: MailUser, oauth_provider: TokenServer, options, code, words):
    nova("client", "add", "idom")
    said = log_in(nova, oauth_user, 25, oauth_provider, *options, code=code)
    assert words in said.err
    assert nova.json("client", "show", "idom")["credentials"] == []
