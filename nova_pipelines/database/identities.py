"""Whether anybody is known yet: without a key and a user NOVA runs open, for the machine that it runs on alone."""

from __future__ import annotations

import ipaddress

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from nova_pipelines.database.auth_tables import ApiKey, User
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.settings import Settings

OPEN_NOTICE = (
    "there is no key and no user: whoever uses this machine may do everything here. "
    "`nova users create` or `nova keys create` ends that"
)


def anybody_known(session: Session) -> bool:
    """Whether there is or ever was a key or a user: what was closed once does not open again by itself."""
    return bool(session.scalar(select(exists(select(ApiKey.id)) | exists(select(User.id)))))


def is_loopback(host: str) -> bool:
    """Whether a name or an address (without port) is this machine's own: localhost, 127.0.0.0/8, ::1."""
    name = host.strip().strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse_exposure(nova: Database, settings: Settings, host: str) -> bool:
    """Whether NOVA will be open to everybody on this machine.

    Raises ConfigurationError where it would be open to others too: `host`, where it is to listen, is no loopback
    address, and nobody is known.
    """
    if settings.oidc_ready:
        return False
    with nova.read() as session:
        known = anybody_known(session)
    if not known and not is_loopback(host):
        raise ConfigurationError(
            f"there is no key and no user, and {host} can be reached from other machines",
            remedy="make one first (`nova users create NAME --role admin`, `nova keys create NAME --role admin`), "
            "or listen on 127.0.0.1",
        )
    return not known
