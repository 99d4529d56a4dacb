"""A person, or an application, logs in at Microsoft or Google: what `nova client credentials set --oauth` does.

No token is printed. What a person must open and type goes to stderr, so that --json stays JSON.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import typer

from nova_pipelines.cli.output import note
from nova_pipelines.domain.errors import ConfigurationError, CredentialError

if TYPE_CHECKING:
    from nova_pipelines.adapters.oauth import OAuthApp, Tokens

#: where the mailboxes of a provider are, unless hosts are given
SERVERS: dict[str, dict[str, Any]] = {
    "microsoft": {"imap_host": "outlook.office365.com", "smtp_host": "smtp.office365.com"},
    "google": {"imap_host": "imap.gmail.com", "smtp_host": "smtp.gmail.com"},
}
#: seconds that a person has for a browser
BROWSER_SECONDS = 300.0
#: where a browser is sent whose answer is pasted: nothing listens there, the address bar shows it
PASTED = "http://127.0.0.1:53682/"
_THANKS = b"<!doctype html><meta charset=utf-8><title>NOVA</title><p>NOVA has the answer: this window can be closed."


def flow_of(provider: str, *, app_only: bool) -> str:
    """How one logs in there. Raises ConfigurationError for what the provider does not offer."""
    if app_only and provider == "google":
        raise ConfigurationError("Google has no login of an application for IMAP", remedy="leave out --app-only")
    return "app" if app_only else "device" if provider == "microsoft" else "browser"


def with_servers(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the provider's hosts, where none are given. Raises ConfigurationError without an app."""
    if not settings.get("oauth_client_id"):
        raise ConfigurationError(
            "a login by OAuth needs the id of a registered application",
            remedy="give --oauth-client-id (docs/mail-out.md tells how to register one)",
        )
    hosts = {"imap_host", "smtp_host"} & settings.keys()
    return settings if hosts else SERVERS[settings["oauth"]] | settings


def new_secret(
    settings: Mapping[str, Any], known: Mapping[str, Any], *, secret_env: str | None, paste: bool
) -> dict[str, Any]:
    """Logs in now; returns what is to be encrypted. `known`: the secret that is stored."""
    return log_in(settings, client_secret(secret_env, known), paste=paste)


def client_secret(variable: str | None, known: Mapping[str, Any]) -> str | None:
    """The application's secret: from the environment, or the one that is stored."""
    if variable is None:
        return known.get("client_secret")
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigurationError(f"the environment variable {variable} holds no secret", remedy="set it, and try again")
    return value


def log_in(settings: Mapping[str, Any], secret: str | None, *, paste: bool) -> dict[str, Any]:
    """Logs in as the settings say; returns what is to be encrypted. Raises CredentialError, TransientError."""
    from nova_pipelines.adapters import oauth
    from nova_pipelines.nodes.tokens import merged, oauth_app

    kept = {"client_secret": secret} if secret else {}
    app = oauth_app(settings, kept)
    flow = settings["oauth_flow"]
    if flow == "app":
        tokens = oauth.app_token(app)
    elif flow == "device":
        tokens = _by_device(app)
    else:
        tokens = _by_browser(app, str(settings["user"]), paste=paste)
    if flow != "app" and not tokens.refresh_token:
        raise CredentialError(
            f"{app.provider} gave no refresh token, so the login would end within an hour",
            remedy="let the application ask for offline access, take its rights away in the account, and log in again",
        )
    return merged(kept, tokens)


def _by_device(app: OAuthApp) -> Tokens:
    from nova_pipelines.adapters import oauth

    prompt = oauth.begin_device(app)
    note(f"open {prompt.verification_uri} in any browser and type the code {prompt.user_code}")
    note(f"waiting for at most {prompt.expires_in / 60:.0f} minutes …")
    return oauth.wait_for_device(app, prompt)


def _by_browser(app: OAuthApp, user: str, *, paste: bool) -> Tokens:
    from nova_pipelines.adapters import oauth

    if paste:
        prompt = oauth.begin_browser(app, PASTED, login_hint=user)
        note(f"open this address, log in, and copy the address at which the browser ends:\n{prompt.url}")
        return oauth.finish_browser(app, prompt, _pasted())
    with HTTPServer(("127.0.0.1", 0), _Answer) as server:
        prompt = oauth.begin_browser(app, f"http://127.0.0.1:{server.server_port}/", login_hint=user)
        note(f"open this address in a browser of this machine (elsewhere: --paste):\n{prompt.url}")
        return oauth.finish_browser(app, prompt, _received(server))


def _pasted() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Address", err=True))
    return sys.stdin.readline(20_000)


class _Answer(BaseHTTPRequestHandler):
    """Takes the browser's one request that carries the provider's answer."""

    timeout = 10

    def do_GET(self) -> None:
        answers = "code=" in urlsplit(self.path).query or "error=" in urlsplit(self.path).query
        self.send_response(200 if answers else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(_THANKS if answers else b"")
        if answers:
            self.server.answer = self.path  # pyright: ignore[reportAttributeAccessIssue] - ours

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address holds a code."""


def _received(server: HTTPServer) -> str:
    deadline = time.monotonic() + BROWSER_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        server.timeout = left
        server.handle_request()
        answer = getattr(server, "answer", None)
        if answer is not None:
            return f"http://127.0.0.1:{server.server_port}{answer}"
    raise CredentialError(f"no browser came within {BROWSER_SECONDS / 60:.0f} minutes", remedy="try again, or --paste")
