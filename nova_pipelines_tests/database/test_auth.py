"""Keys, people, sessions and attempts in both databases: what is stored, found, ended, and counted at once."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from nova_pipelines.database import login_attempts
from nova_pipelines.database.api_keys import create_key, key_by_token, mark_used, revoke_key, use_is_old, why_not
from nova_pipelines.database.audit_log import newest_entries, record
from nova_pipelines.database.auth_tables import LoginAttempts, WebSession
from nova_pipelines.database.clients import add_client
from nova_pipelines.database.identities import anybody_known
from nova_pipelines.database.secrets import drop_old_keys, internal_token, internal_tokens, rotate_keys
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.users import create_user, find_user, openid_user, set_active, set_password
from nova_pipelines.database.web_sessions import begin_session, remove_ended, session_by_token
from nova_pipelines.domain.errors import Conflict, NotFound, PermanentError
from nova_pipelines.settings import Settings


@pytest.fixture
def nova(databases: Databases) -> Database:
    return databases.nova


def key(nova: Database, name: str = "ci", **more: object) -> str:
    with nova.session() as session:
        return create_key(
            session, **{"name": name, "role": "viewer", "clients": None, "by": "me", "expires_at": None, **more}
        )[1]


def test_a_key_from_first_to_last(nova: Database):
    token = key(nova)
    assert token.startswith("nova_1_")
    assert len(token) == 7 + 64
    with nova.read() as session:
        found = key_by_token(session, token)
        assert (found.name, why_not(found), found.last_used_at) == ("ci", None, None)
        assert use_is_old(found)
        assert token not in str(vars(found))
        wrong = [token[:-1], token + "0", token[:-1] + "g", token.upper(), token.replace("_1_", "_2_"), "", "nova_1_"]
        wrong += [
            token.replace("_1_", "_01_"),
            token.replace("_1_", "_99999999999_"),
            " " + token,
            "nova_٣_" + "a" * 64,
        ]
        assert [key_by_token(session, each) for each in wrong] == [None] * len(wrong)
    with nova.session() as session:
        mark_used(session, 1)
    with nova.read() as session:
        found = key_by_token(session, token)
        assert not use_is_old(found)
        assert found.last_used_at.minute == 0
    with nova.session() as session:
        assert revoke_key(session, "ci").id == 1
    with nova.read() as session:
        assert why_not(key_by_token(session, token)) == "this key was revoked"
    assert key(nova).startswith("nova_2_")  # the name is free again, the number is not
    with nova.session() as session:
        assert revoke_key(session, "ci").id == 2
        with pytest.raises(Conflict, match="revoked already"):
            revoke_key(session, "1")
        with pytest.raises(NotFound):
            revoke_key(session, "nobody")


def test_keys_that_cannot_be(nova: Database):
    with nova.session() as session:
        add_client(session, name="IDOM", slug="idom")
    key(nova, clients=["IDOM", "idom"])
    with pytest.raises(Conflict, match="there is a key ci already"):
        key(nova)
    with pytest.raises(NotFound, match="there is no client"):
        key(nova, "other", clients=["idon"])
    for name in ("", " ", "a\nb", "x" * 101, "-a;", "<b>"):
        with pytest.raises(PermanentError):
            key(nova, name)
    with nova.read() as session:
        assert [each.clients for each in [key_by_token(session, key(nova, "of none", clients=[]))]] == [[]]


def test_an_expired_key(nova: Database):
    token = key(nova, expires_at=utc_now() + timedelta(seconds=60))
    with nova.read() as session:
        found = key_by_token(session, token)
        assert why_not(found) is None
        assert why_not(found, utc_now() + timedelta(seconds=61)) == "this key has expired"


def test_people(nova: Database, database_settings: Settings):
    with nova.session() as session:
        ana = create_user(session, login=" Ana@Example.com ", password_hash="h", role="admin")
        token = begin_session(session, ana, address="192.0.2.1", settings=database_settings)
    with nova.session() as session:
        with pytest.raises(Conflict, match=r"there is a user ana@example\.com already"):
            create_user(session, login="ANA@example.com", password_hash="h", role="viewer")
        for login in ("", "a b", "x" * 201, "a\x00"):
            with pytest.raises(PermanentError):
                create_user(session, login=login, password_hash="h", role="viewer")
    with nova.read() as session:
        found = session_by_token(session, token, database_settings)
        assert found.user.login == "ana@example.com"
        assert found.user.last_login_at is not None
        assert token not in found.token_sha256
        assert session_by_token(session, token[:-1] + "!", database_settings) is None
    with nova.session() as session:
        set_password(session, find_user(session, "ana@example.com"), "other")
    with nova.read() as session:
        assert session_by_token(session, token, database_settings) is None
    with nova.session() as session:
        ana = find_user(session, "ana@example.com")
        begin_session(session, ana, address="192.0.2.1", settings=database_settings)
        set_active(session, ana, False)
        assert session.query(WebSession).count() == 0


def test_a_person_of_a_provider_is_one_person(nova: Database):
    with nova.session() as session:
        openid_user(session, issuer="https://a", subject="1", login="ana", role="viewer", clients=None)
        openid_user(session, issuer="https://a", subject="1", login="ana2", role="admin", clients=["x"])
        openid_user(session, issuer="https://b", subject="1", login="other", role="viewer", clients=None)
        with pytest.raises(Conflict):
            openid_user(session, issuer="https://b", subject="2", login="ana", role="viewer", clients=None)
        ana = find_user(session, "ana")
        assert (ana.role, ana.clients) == ("admin", ["x"])
        with pytest.raises(Conflict, match="logs in at https://a"):
            set_password(session, ana, "h")


def test_sessions_that_ended_go_away(nova: Database, database_settings: Settings):
    with nova.session() as session:
        ana = create_user(session, login="ana", password_hash="h", role="admin")
        tokens = [begin_session(session, ana, address="a", settings=database_settings) for _ in range(3)]
        first, second, _ = session.query(WebSession).order_by(WebSession.id)
        first.expires_at = utc_now() - timedelta(seconds=1)
        second.seen_at = utc_now() - timedelta(minutes=121)
    with nova.session() as session:
        assert [session_by_token(session, each, database_settings) is not None for each in tokens] == [
            False,
            False,
            True,
        ]
        remove_ended(session, database_settings)
        assert session.query(WebSession).count() == 1


def test_attempts_at_once_are_counted_each(nova: Database):
    """From many addresses at the same time: as many go through as are free, and not one more."""
    waits: list[int] = []

    def attempt(number: int) -> None:
        with nova.session() as session:
            waits.append(login_attempts.begin_attempt(session, "ana", f"192.0.2.{number}").wait_seconds)

    threads = [threading.Thread(target=attempt, args=[number]) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(waits) == 12
    assert waits.count(0) == login_attempts.FREE["account"]
    with nova.read() as session:
        assert session.query(LoginAttempts).filter_by(kind="account").one().failures == login_attempts.FREE["account"]


def test_attempts_are_forgotten(nova: Database):
    with nova.session() as session:
        for _ in range(5):
            login_attempts.begin_attempt(session, "ana", "192.0.2.1")
        assert login_attempts.begin_attempt(session, "ana", "192.0.2.9").wait_seconds > 0
        assert login_attempts.begin_attempt(session, "otto", "192.0.2.1").wait_seconds == 0
    with nova.session() as session:
        for row in session.query(LoginAttempts):
            row.last_at = utc_now() - timedelta(minutes=61)
        session.flush()
        assert login_attempts.begin_attempt(session, "ana", "192.0.2.9").wait_seconds == 0
        for row in session.query(LoginAttempts):
            row.last_at = utc_now() - timedelta(hours=3)
    with nova.session() as session:
        login_attempts.remove_old(session)
        assert session.query(LoginAttempts).count() == 0


def test_the_audit_log_takes_what_it_has_room_for(nova: Database):
    with nova.session() as session:
        record(session, "POST /x\x1b[2J", actor="a" * 999, kind="key", object="o" * 9_999, address="1" * 99)
        record(session, "login", actor="ana", kind="session", outcome="refused")
    with nova.read() as session:
        login, post = newest_entries(session)
        assert (post.action, len(post.actor), len(post.object), len(post.address)) == ("POST /x\ufffd[2J", 200, 500, 64)
        assert [row.action for row in newest_entries(session, actor="ana")] == ["login"]
        assert [row.id for row in newest_entries(session, action="POST")] == [post.id]
        assert newest_entries(session, action="%") == []
        assert login.outcome == "refused"


def test_nobody_is_known_until_there_is_one(nova: Database):
    with nova.read() as session:
        assert not anybody_known(session)
    key(nova)
    with nova.session() as session:
        revoke_key(session, "ci")
        assert anybody_known(session)


def test_the_token_of_novas_own_programs_follows_its_key(nova: Database, database_settings: Settings):
    first = internal_token(database_settings)
    assert first.startswith("nova_internal_")
    assert internal_token(database_settings) == first
    with nova.session() as session:
        rotate_keys(session, database_settings)
    assert internal_token(database_settings) != first
    assert internal_tokens(database_settings) == [internal_token(database_settings), first]
    with nova.session() as session:
        drop_old_keys(session, database_settings)
    assert first not in internal_tokens(database_settings)
    key_text = (database_settings.nova_home / "secret.key").read_text().strip()
    assert key_text not in internal_token(database_settings)
