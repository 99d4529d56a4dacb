"""Logging in by an access token, the same for IMAP and SMTP: what is sent, and what a server says of a refusal.

Knows no provider and asks for no token: it is given a source of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Protocol, cast

from nova_pipelines.adapters.mail_headers import clean_line
from nova_pipelines.domain.errors import CredentialError


class TokenSource(Protocol):
    """A token that is valid now; and another one, once, when the server refused it all the same."""

    def token(self) -> str: ...

    def renewed(self, refused: str) -> str: ...


def login_with_token(tokens: TokenSource, login: Callable[[str], None]) -> None:
    """Logs in, and once more with a renewed token if the first is refused. Raises what `login` does."""
    token = tokens.token()
    try:
        login(token)
    except CredentialError:
        login(tokens.renewed(token))


def sasl_response(mechanism: str, user: str, token: str, host: str, port: int) -> tuple[bytes, bytes]:
    """What is answered first, and what ends the exchange after a refusal: XOAUTH2 (Google's and Microsoft's own) or
    OAUTHBEARER (RFC 7628)."""
    if mechanism == "XOAUTH2":
        return f"user={user}\x01auth=Bearer {token}\x01\x01".encode(), b""
    name = user.replace("=", "=3D").replace(",", "=2C")
    return f"n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer {token}\x01\x01".encode(), b"\x01"


def provider_words(challenge: bytes) -> str:
    """The JSON of a refusal, after base64, as a text: `{"status":"401","schemes":"bearer"}`; empty if it is none."""
    try:
        found: Any = json.loads(challenge)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(found, dict):
        return ""
    said = cast("dict[str, Any]", found)
    return ", ".join(f"{name} {clean_line(str(said[name]), 100)}" for name in ("status", "error") if said.get(name))
