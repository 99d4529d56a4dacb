"""The cookies of a person's session: HttpOnly, SameSite=Lax, and bound to this host where there is https."""

from __future__ import annotations

from starlette.requests import HTTPConnection
from starlette.responses import Response

from nova_pipelines.settings import Settings

SESSION, STARTED = "nova_session", "nova_login"


def is_secure(connection: HTTPConnection, settings: Settings) -> bool:
    """Whether the browser speaks https, as far as the server or NOVA_PUBLIC_URL says."""
    return connection.url.scheme in ("https", "wss") or (settings.nova_public_url or "").startswith("https:")


def cookie_name(name: str, secure: bool) -> str:
    """With https browsers refuse one that came without it, or from another host of the domain (RFC 6265bis)."""
    return f"__Host-{name}" if secure else name


def read_cookie(connection: HTTPConnection, name: str, settings: Settings) -> str | None:
    return connection.cookies.get(cookie_name(name, is_secure(connection, settings)))


def set_cookie(
    response: Response, connection: HTTPConnection, name: str, value: str, settings: Settings, *, seconds: int
) -> None:
    secure = is_secure(connection, settings)
    response.set_cookie(
        cookie_name(name, secure), value, max_age=seconds, path="/", secure=secure, httponly=True, samesite="lax"
    )


def drop_cookie(response: Response, connection: HTTPConnection, name: str, settings: Settings) -> None:
    secure = is_secure(connection, settings)
    response.delete_cookie(cookie_name(name, secure), path="/", secure=secure, httponly=True, samesite="lax")
