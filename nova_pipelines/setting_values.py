"""What values of the environment mean: URLs, servers, lists, keys, roles. Pure functions; `settings` says which
variable is what.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import SecretStr
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from nova_pipelines.domain.roles import ROLES, Role

POSTGRES_DRIVER = "postgresql+psycopg2"


def normalise_database_url(text: str) -> str:
    """A SQLAlchemy URL that names its driver, and an absolute file for SQLite.

    SQLAlchemy 2.1 reads a bare `postgresql://` as psycopg 3, which dagster-postgres cannot use.
    Raises ValueError, without the text: it may hold a password.
    """
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError):
        raise ValueError(
            "is not a database URL; write postgresql://user:password@host:5432/name "
            "(with @ : / in a password written as %40 %3A %2F) or sqlite:////folder/file.db"
        ) from None
    if url.drivername in ("postgres", "postgresql", POSTGRES_DRIVER):
        if not url.database:
            raise ValueError("names no database; write postgresql://user:password@host:5432/name")
        return url_text(url.set(drivername=POSTGRES_DRIVER))
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
            raise ValueError("names no file; NOVA's processes share it, so write sqlite:////folder/file.db")
        return url_text(url.set(drivername="sqlite", database=str(Path(url.database).expanduser().absolute())))
    raise ValueError("is of a kind that NOVA does not know; use postgresql:// or sqlite:///")


def url_text(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def split_server(server: str, default_port: int) -> tuple[str, int]:
    """`host` or `host:port` as (host, port). Raises ValueError."""
    host, colon, port = server.strip().partition(":")
    if not host or (colon and not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535)):
        raise ValueError("must be host or host:port, such as imap.gmail.com:993")
    return host, int(port) if colon else default_port


def split_keys(keys: SecretStr | None) -> list[str]:
    return [key.strip() for key in keys.get_secret_value().split(",") if key.strip()] if keys else []


def split_list(text: str | None) -> list[str]:
    """The parts of a comma-separated value."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def check_networks(text: str | None) -> None:
    """Raises ValueError where a part of a comma-separated list is no address and no network."""
    for part in split_list(text):
        ip_network(part)  # its message names the part


def is_url(given: SecretStr, *schemes: str) -> bool:
    """Whether it is a URL of one of these schemes with a host and, if at all, a port that can be."""
    text = given.get_secret_value()
    try:
        url = urlsplit(text)
        return url.scheme in schemes and bool(url.hostname) and url.port != 0 and text.isprintable() and " " not in text
    except ValueError:
        return False


def web_address(text: str) -> str:
    """An https address without a slash at its end; http only for this machine. Raises ValueError."""
    url = urlsplit(text.strip())
    local = url.hostname in ("localhost", "127.0.0.1", "::1")
    if url.scheme not in (("http", "https") if local else ("https",)) or not url.hostname or url.query or url.fragment:
        raise ValueError("must be an address such as https://nova.example.com; http is for this machine alone")
    return text.strip().rstrip("/")


@dataclass(frozen=True, slots=True)
class Grant:
    """What a value of the OpenID provider's claim (`*`: any) makes of somebody; `clients` None: sees all of them."""

    value: str
    role: Role
    clients: list[str] | None


def split_grants(text: str) -> list[Grant]:
    """`value=role` or `value=role@client+client`, comma-separated. Raises ValueError."""
    grants: list[Grant] = []
    for part in split_list(text):
        value, equals, granted = part.rpartition("=")
        name, at, clients = granted.partition("@")
        role: Role | None = next((role for role in ROLES if role == name.strip()), None)
        slugs = [slug.strip() for slug in clients.split("+") if slug.strip()]
        if not value.strip() or not equals or role is None or (at and not slugs):
            raise ValueError(f"{part!r} must be value=role or value=role@client, with one of {', '.join(ROLES)}")
        grants.append(Grant(value.strip(), role, slugs if at else None))
    return grants


def is_fernet_key(key: str) -> bool:
    """Whether it is 32 bytes in URL-safe base64 (specification of Fernet)."""
    try:
        return len(base64.b64decode(key.encode(), altchars=b"-_", validate=True)) == 32
    except (binascii.Error, ValueError):
        return False
