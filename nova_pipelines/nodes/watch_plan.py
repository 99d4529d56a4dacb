"""Which connections the watcher keeps: one for each folder, as far as the limit of the account allows. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Account:
    """The mail account of a client, and the folders in it that feed a workflow."""

    credential_id: int
    client_id: int
    slug: str
    settings: dict[str, Any]
    #: encrypted; only compared, to see that it was changed
    secret: bytes = field(repr=False)
    folders: tuple[str, ...]

    @property
    def owner(self) -> tuple[str, str]:
        """Whose connections a provider counts together: host and user."""
        return str(self.settings.get("imap_host", "")).lower(), str(self.settings.get("user", "")).lower()


@dataclass(frozen=True, slots=True)
class Route:
    """What one connection serves: one folder by IDLE, or several that it looks into one after another.

    Equal routes are the same connection; a changed password alone makes no other one.
    """

    credential_id: int
    client_id: int
    slug: str
    #: as canonical JSON, so that a route can be a key
    settings: str
    folders: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.slug}/{','.join(self.folders)}"


@dataclass(frozen=True, slots=True)
class Routes:
    """`secrets`: the encrypted secret of each route. `left_out`: accounts for which no connection is left."""

    secrets: dict[Route, bytes]
    left_out: tuple[Account, ...]


def plan_routes(accounts: Iterable[Account], *, connections: int) -> Routes:
    """Shares the connections of each host and user: `connections` in all, and each account gets one at least.

    With fewer connections than folders the last one serves those that are left over. Accounts beyond the limit
    (several clients that read the same mailbox) get none: the sensor reads them.
    """
    owners: dict[tuple[str, str], list[Account]] = {}
    for account in accounts:
        owners.setdefault(account.owner, []).append(account)
    secrets: dict[Route, bytes] = {}
    left_out: list[Account] = []
    for sharing in owners.values():
        served = sharing[:connections]
        left_out += sharing[connections:]
        spare = connections - len(served)
        for account in served:
            own = min(spare, len(account.folders) - 1) + 1
            spare -= own - 1
            secrets |= {_route(account, folders): account.secret for folders in _shares(account.folders, own)}
    return Routes(secrets, tuple(left_out))


def _shares(folders: Sequence[str], connections: int) -> list[tuple[str, ...]]:
    alone = [(folder,) for folder in folders[: connections - 1]]
    return [*alone, tuple(folders[connections - 1 :])]


def _route(account: Account, folders: tuple[str, ...]) -> Route:
    settings = json.dumps(account.settings, sort_keys=True, default=str)
    return Route(account.credential_id, account.client_id, account.slug, settings, folders)
