"""How often a login may be tried: counted for the account and for the address, before the password is looked at.

An attempt counts as failed until it is known to have succeeded, so a hundred at once get no more tries than one after
the other. The counts stand in nova-db: all processes share them.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from nova_pipelines.database.auth_tables import LoginAttempts
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.users import normal_login

Kind = Literal["account", "address"]
#: failures that cost nothing; each further one locks for twice as long
FREE: dict[Kind, int] = {"account": 5, "address": 20}
FIRST_LOCK, LONGEST_LOCK = timedelta(seconds=30), timedelta(minutes=15)
#: failures are forgotten after so long without another
FORGOTTEN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Attempt:
    """`wait_seconds`: 0 when the password may be looked at; else how long nothing is looked at."""

    wait_seconds: int
    locked_now: bool = False


def begin_attempt(session: Session, login: str, address: str) -> Attempt:
    """Counts an attempt, or says how long to wait. Commit it before the password is looked at."""
    now = utc_now()
    rows = [
        _locked_row(session, "account", _account(login), now),
        _locked_row(session, "address", network(address), now),
    ]
    locks = [row.locked_until for row in rows if row.locked_until is not None and row.locked_until > now]
    if locks:
        return Attempt(int((max(locks) - now).total_seconds()) + 1)
    locked_now = False
    for row in rows:
        row.failures, row.last_at = row.failures + 1, now
        beyond = row.failures - FREE["account" if row.kind == "account" else "address"]
        if beyond >= 0:
            row.locked_until = now + min(FIRST_LOCK * 2 ** min(beyond, 10), LONGEST_LOCK)
            locked_now = True
    session.flush()
    return Attempt(0, locked_now)


def succeeded(session: Session, login: str, address: str) -> None:
    """The attempt was no failure: the account's count is cleared, the address gets this one back."""
    now = utc_now()
    forget(session, login)
    row = _locked_row(session, "address", network(address), now)
    row.failures = max(row.failures - 1, 0)
    if row.failures < FREE["address"]:
        row.locked_until = None
    session.flush()


def forget(session: Session, login: str) -> None:
    """Unlocks an account."""
    session.execute(delete(LoginAttempts).where(LoginAttempts.kind == "account", LoginAttempts.key == _account(login)))


def remove_old(session: Session) -> None:
    session.execute(delete(LoginAttempts).where(LoginAttempts.last_at < utc_now() - 2 * FORGOTTEN))


def network(address: str) -> str:
    """What counts as one address: an IPv4 address, or the /64 that one subscriber has of IPv6 (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def _account(login: str) -> str:
    return hashlib.sha256(normal_login(login).encode("utf-8", "surrogatepass")).hexdigest()


def _locked_row(session: Session, kind: Kind, key: str, now: datetime) -> LoginAttempts:
    """The row, made if there is none, for this transaction alone. Always the account first, then the address."""
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    new = {"kind": kind, "key": key, "failures": 0, "last_at": now}
    session.execute(dialect.insert(LoginAttempts).values(new).on_conflict_do_nothing())
    query = select(LoginAttempts).filter_by(kind=kind, key=key).with_for_update()
    row = session.scalars(query, execution_options={"populate_existing": True}).one()
    if row.last_at < now - FORGOTTEN:
        row.failures, row.locked_until = 0, None
    return row
