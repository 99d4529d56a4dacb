"""Tokens of a mailbox in the store: renewed in time, by one process at a time, and no rotated one lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from nova_pipelines.database import tokens
from nova_pipelines.database.clients import add_client, set_credential
from nova_pipelines.database.nova import Credential
from nova_pipelines.database.secrets import SecretBox
from nova_pipelines.database.session import Databases, open_databases
from nova_pipelines.domain.errors import CredentialError, NotFound, TransientError
from nova_pipelines.nodes.tokens import MailboxTokens
from nova_pipelines_tests.fixtures.token_server import CLIENT_ID, CLIENT_SECRET, TokenServer, Trouble

USER = "facturas@idom.example"
#: what both databases do alike is tried on one of them
only_sqlite = pytest.mark.parametrize("database_kind", ["sqlite"])
KEY = Fernet.generate_key().decode()


@pytest.fixture
def server() -> Iterator[TokenServer]:
    with TokenServer(rotate=True) as server:
        yield server


@pytest.fixture
def box() -> SecretBox:
    return SecretBox([KEY])


@pytest.fixture
def source(databases: Databases, server: TokenServer, box: SecretBox) -> MailboxTokens:
    """A mailbox whose person logged in a while ago: the access token has run out."""
    return mailbox(databases, server, box, {"refresh_token": server.new_refresh_token(USER)})


def mailbox(databases: Databases, server: TokenServer, box: SecretBox, secret: dict[str, Any], **more: Any):
    settings = {"oauth": "microsoft", "oauth_flow": "device", "oauth_client_id": CLIENT_ID, "user": USER}
    settings |= {"oauth_base_url": server.url, "imap_host": "x", **more}
    with databases.nova.session() as session:
        client = add_client(session, name="IDOM", slug="idom")
        credential = set_credential(session, box, client, "email", settings=settings, secret=secret)
        return MailboxTokens(databases.nova, lambda: box, credential.id, USER)


def stored(source: MailboxTokens) -> dict[str, Any]:
    return tokens.load(source.nova, source.box(), source.credential_id).secret


def together(*work: Callable[[], Any]) -> list[Any]:
    results: list[Any] = [None] * len(work)

    def keep(place: int) -> None:
        try:
            results[place] = work[place]()
        except Exception as error:  # noqa: BLE001 - compared by the test
            results[place] = error

    threads = [threading.Thread(target=keep, args=(place,)) for place in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@only_sqlite
def test_a_token_is_asked_for_once_and_renewed_in_time(source: MailboxTokens, server: TokenServer):
    first = source.token()
    assert server.users[first] == USER
    assert source.token() == first
    assert len(server.requests) == 1
    assert stored(source)["refresh_token"] in server.refresh_tokens  # the rotated one
    late = MailboxTokens(source.nova, source.box, source.credential_id, USER, clock=lambda: time.time() + 3_400)
    second = late.token()  # five minutes before its end
    assert second != first
    assert len(server.requests) == 2
    assert source.renewed(first) == second  # somebody else had renewed the refused one already
    assert source.renewed(second) not in (first, second)
    assert len(server.used) == len(set(server.used)) == 3


def test_of_many_at_once_one_renews(
    databases: Databases, database_urls: tuple[str, str], source: MailboxTokens, server: TokenServer
):
    """A provider that rotates ends the login when a refresh token comes twice: it must never."""
    server.troubles = [Trouble(seconds=0.3)]  # so that they meet

    def ask() -> str:
        with open_databases(*database_urls) as own:
            return MailboxTokens(own.nova, source.box, source.credential_id, USER).token()

    found = together(*[ask] * 5)
    assert len(set(found)) == 1, found
    assert server.users[found[0]] == USER
    assert len(server.requests) == 1


def test_a_holder_that_died_is_followed_by_another(source: MailboxTokens, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "LEASE_SECONDS", 0.3)
    assert tokens.lease(source.nova, source.credential_id, seconds=0.3) is not None
    assert tokens.lease(source.nova, source.credential_id) is None
    assert source.token()
    assert tokens.lease(source.nova, source.credential_id) is not None  # it was given back


def test_what_a_person_stores_meanwhile_stays(source: MailboxTokens, server: TokenServer, box: SecretBox):
    before = tokens.load(source.nova, box, source.credential_id)
    assert tokens.store(source.nova, box, source.credential_id, before, {"refresh_token": "of a new login"})
    assert not tokens.store(source.nova, box, source.credential_id, before, {"refresh_token": "of the old one"})
    assert stored(source) == {"refresh_token": "of a new login"}


@only_sqlite
def test_keys_that_are_rotated_meanwhile_lose_no_token(source: MailboxTokens, server: TokenServer):
    new = Fernet.generate_key().decode()
    both = SecretBox([new, KEY])
    before = tokens.load(source.nova, both, source.credential_id)
    with source.nova.session() as session:
        credential = session.get_one(Credential, source.credential_id)
        credential.secret = both.rotate(credential.secret)
    assert tokens.store(source.nova, both, source.credential_id, before, {"refresh_token": "rotated"})
    assert tokens.load(source.nova, SecretBox([new]), source.credential_id).secret == {"refresh_token": "rotated"}


@only_sqlite
def test_a_database_that_is_away_for_a_moment_costs_no_token(
    source: MailboxTokens, server: TokenServer, monkeypatch: pytest.MonkeyPatch
):
    store, failures = tokens.store, [TransientError("the connection was lost")] * 2

    def sometimes(*arguments: Any) -> bool:
        if failures:
            raise failures.pop()
        return store(*arguments)

    monkeypatch.setattr(tokens, "store", sometimes)
    assert source.token() == stored(source)["access_token"]
    assert stored(source)["refresh_token"] in server.refresh_tokens
    assert len(server.requests) == 1


@only_sqlite
def test_a_login_that_is_over_names_the_mailbox_and_what_to_do(source: MailboxTokens, server: TokenServer):
    spent = stored(source)["refresh_token"]
    server.refresh_tokens.clear()
    with pytest.raises(CredentialError, match=f"mailbox {USER}: microsoft refused the login: invalid_grant") as ended:
        source.token()
    assert "log in again" in str(ended.value)
    assert spent not in str(ended.value)
    server.refresh_tokens[spent] = USER  # a provider's mistake, say: the lease was given back and all is as it was
    assert source.token() in server.users


@only_sqlite
def test_a_provider_that_is_down_costs_nothing(source: MailboxTokens, server: TokenServer):
    server.troubles = [Trouble(500)]
    before = stored(source)
    with pytest.raises(TransientError, match="answered 500"):
        source.token()
    assert stored(source) == before
    assert source.token() in server.users


@only_sqlite
def test_an_application_of_its_own(databases: Databases, server: TokenServer, box: SecretBox):
    source = mailbox(databases, server, box, {"client_secret": CLIENT_SECRET}, oauth_flow="app")
    token = source.token()
    assert stored(source) == {
        "client_secret": CLIENT_SECRET,
        "access_token": token,
        "expires_at": stored(source)["expires_at"],
    }
    with databases.nova.session() as session:
        session.delete(session.get_one(Credential, source.credential_id))
    with pytest.raises(NotFound, match="was removed"):
        source.token()
    assert token not in repr(source)
