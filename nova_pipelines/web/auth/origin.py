"""Where a request comes from: the page of another site must not use a person's cookie, nor an open NOVA."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from nova_pipelines.database.identities import is_loopback

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


def comes_from_elsewhere(connection: HTTPConnection, *, silent_is_foreign: bool) -> bool:
    """Whether a page of another origin sent this.

    Browsers say so in Sec-Fetch-Site (on https and loopback) and in Origin (on every POST and websocket).
    `silent_is_foreign`: what to think where neither is there, which no browser sends.
    """
    site = _only(connection, "sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = _only(connection, "origin")
    if origin is None:
        return silent_is_foreign
    return origin == "null" or _place(origin) != _place(f"{connection.url.scheme}://{host_of(connection)}", origin)


def _only(connection: HTTPConnection, header: str) -> str | None:
    """The header's value; a header that is there twice is nobody's."""
    values = connection.headers.getlist(header)
    return None if not values else values[0].strip() if len(values) == 1 else "null"


def _place(url: str, like: str | None = None) -> tuple[str, int] | None:
    """Host and port. The scheme counts for its default port only: a proxy may have taken TLS away. `like`: a URL whose
    scheme is meant where `url` names no port."""
    try:
        parts = urlsplit(url)
        scheme = urlsplit(like).scheme if like else parts.scheme
        if not parts.hostname:
            return None
        return parts.hostname.lower(), parts.port or _PORTS.get(scheme, 0)
    except ValueError:
        return None


def host_of(connection: HTTPConnection) -> str:
    """The Host header; empty where there is none, or more than one."""
    values = connection.headers.getlist("host")
    return values[0].strip() if len(values) == 1 else ""


def asks_for_loopback(connection: HTTPConnection) -> bool:
    """Whether Host names this machine. Another name that leads here is how a foreign page gets past the browser's
    same-origin rule (DNS rebinding)."""
    try:
        name = urlsplit(f"//{host_of(connection)}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)
