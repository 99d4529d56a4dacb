"""People: login, logout, sessions that end, attempts that are counted, pages of other sites that get nowhere."""

from __future__ import annotations

import logging
import statistics
import threading
import time
from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update
from starlette.websockets import WebSocketDisconnect

from nova_pipelines.database import login_attempts, users
from nova_pipelines.database.auth_tables import LoginAttempts, User, WebSession
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.users import check_password, hash_password, set_active
from nova_pipelines.web.auth import middleware
from nova_pipelines.web.auth.login_pages import own_path
from nova_pipelines.web.auth.texts import language_of
from nova_pipelines_tests.web.auth.site import HOME, LIVE, PASSWORD, Site, log_in


@pytest.fixture(autouse=True)
def forgiven(site: Site):
    """Each test begins without failed attempts."""
    with site.nova.session() as session:
        session.query(LoginAttempts).delete()


def test_in_and_out(site: Site):
    browser = site.browser()
    first = browser.get("/runs?view=all")
    assert (first.status_code, first.headers["location"]) == (303, "/login?next=%2Fruns%3Fview%3Dall")
    page = browser.get(first.headers["location"])
    assert 'name="next" value="/runs?view=all"' in page.text
    answer = log_in(browser, "  Ana ", next="/runs?view=all")
    assert (answer.status_code, answer.headers["location"]) == (303, "/runs?view=all")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Secure" not in cookie
    assert "Domain" not in cookie
    assert browser.get("/whoami").json() == {"name": "ana", "role": "admin", "kind": "session", "clients": None}
    assert browser.get("/runs").status_code == 200
    assert browser.get("/login").headers["location"] == "/"
    assert "ana" in browser.get("/logout").text

    token = browser.cookies["nova_session"]
    out = browser.post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login?out")
    assert "nova_session" not in browser.cookies
    browser.cookies.set("nova_session", token)  # who copied it
    assert browser.get("/whoami", headers={"Accept": "*/*"}).status_code == 401
    newest = [(row.actor, row.action, row.outcome) for row in site.audit(2)]
    assert newest == [("ana", "logout", "ok"), ("ana", "login", "ok")]


def test_with_https_the_cookie_is_bound_to_the_host(site: Site):
    client = site.client(base_url="https://nova.example", Origin="https://nova.example")
    answer = log_in(client, "ana")
    assert answer.headers["set-cookie"].startswith("__Host-nova_session=")
    assert "Secure" in answer.headers["set-cookie"]
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert client.get("/whoami").status_code == 200
    # one that was set without https is not believed
    plain = site.client(base_url="https://nova.example")
    plain.cookies.set("nova_session", client.cookies["__Host-nova_session"])
    assert plain.get("/whoami").status_code == 401


def test_a_limited_person_sees_no_dagster(site: Site):
    browser = site.browser("clara")
    assert browser.get("/whoami").json()["clients"] == ["other"]
    assert browser.get("/runs").status_code == 403


def test_nobody_can_be_given_a_session(site: Site):
    """Fixation: the token of before the login is never that of after it, and ends with it."""
    browser = site.browser("vera")
    planted = browser.cookies["nova_session"]
    log_in(browser, "ana")
    assert browser.cookies["nova_session"] != planted
    other = site.browser()
    other.cookies.set("nova_session", planted)
    assert other.get("/whoami", headers={"Accept": "*/*"}).status_code == 401
    made_up = site.browser()
    made_up.cookies.set("nova_session", "a" * 43, domain="nova.example", path="/")
    log_in(made_up, "ana")
    assert made_up.cookies["nova_session"] != "a" * 43


@pytest.mark.parametrize(
    ("values", "status"),
    [
        ({"expires_at": -1}, 401),
        ({"seen_at": -121}, 401),
        ({"seen_at": -119}, 200),
    ],
)
def test_sessions_end_by_themselves(site: Site, values: dict[str, int], status: int):
    browser = site.browser("ana", Accept="*/*")
    moments = {name: utc_now() + timedelta(minutes=minutes) for name, minutes in values.items()}
    with site.nova.session() as session:
        session.execute(update(WebSession).values(moments))
    assert browser.get("/whoami").status_code == status


def test_a_session_is_kept_alive_by_its_use(site: Site):
    browser = site.browser("ana")
    with site.nova.session() as session:
        session.execute(update(WebSession).values(seen_at=utc_now() - timedelta(minutes=90)))
    assert browser.get("/whoami").status_code == 200
    with site.nova.read() as session:
        assert max(row.seen_at for row in session.query(WebSession)) > utc_now() - timedelta(minutes=1)


def test_a_disabled_person_is_out_at_once(site: Site):
    site.make_user("dora")
    browser = site.browser("dora", Accept="*/*")
    with site.nova.session() as session:
        set_active(session, session.query(User).filter_by(login="dora").one(), False)
    assert browser.get("/whoami").status_code == 401
    assert log_in(browser, "dora").status_code == 401


# guessing


def test_a_lock_after_five_failures(site: Site):
    browser = site.browser()
    for _ in range(5):
        assert log_in(browser, "otto", "wrong").status_code == 401
    locked = log_in(browser, "otto")  # even with the right password
    assert locked.status_code == 429
    assert 0 < int(locked.headers["retry-after"]) <= 31
    assert "Too many attempts. Try again in one minute." in locked.text
    # neither another address nor another spelling helps; others are not locked
    assert log_in(browser, " OTTO ").status_code == 429
    assert log_in(site.browser(), "ana").status_code == 303
    refused = [row for row in site.audit(10) if row.outcome == "refused"]
    assert [row.object for row in refused[:5]] == ["account locked", None, None, None, None]


def test_each_further_failure_locks_for_twice_as_long(site: Site):
    waits = []
    for _ in range(9):
        log_in(site.browser(), "nobody", "wrong")
        with site.nova.session() as session:
            row = session.query(LoginAttempts).filter_by(kind="account").one()
            waits.append(round((row.locked_until - utc_now()).total_seconds()) if row.locked_until else 0)
            row.locked_until = None
    assert waits == pytest.approx([0, 0, 0, 0, 30, 60, 120, 240, 480], abs=2)


def test_an_address_that_guesses_names_is_locked(site: Site):
    for number in range(20):
        assert log_in(site.browser(), f"name{number}", "wrong").status_code == 401
    assert log_in(site.browser(), "ana").status_code == 429


def test_a_success_clears_the_account_and_forgives_the_address(site: Site):
    browser = site.browser()
    for _ in range(4):
        log_in(browser, "otto", "wrong")
    assert log_in(browser, "otto").status_code == 303
    with site.nova.read() as session:
        rows = {row.kind: row.failures for row in session.query(LoginAttempts)}
    assert rows == {"address": 4}


def test_many_at_once_get_no_more_tries(site: Site, monkeypatch: pytest.MonkeyPatch):
    """Counted before the password is looked at: a hundred guesses at the same moment are five."""
    looked_at = []
    monkeypatch.setattr("nova_pipelines.web.auth.login.check_password", lambda *_: looked_at.append(1) and False)
    statuses: list[int] = []

    def guess() -> None:
        statuses.append(log_in(site.browser(), "otto", "wrong").status_code)

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(set(statuses)) == [401, 429]
    assert len(looked_at) == statuses.count(401) == 5


def test_who_has_an_account_cannot_be_timed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(users, "_hasher", PasswordHasher())  # as it is in use
    users._nobodys_hash.cache_clear()
    known = hash_password(PASSWORD)

    def seconds(password_hash: str | None) -> float:
        began = time.thread_time()
        assert not check_password(password_hash, "wrong")
        return time.thread_time() - began

    check_password(None, "warm")
    times = [(seconds(known), seconds(None)) for _ in range(5)]
    real, unknown = (statistics.median(column) for column in zip(*times, strict=True))
    assert 0.5 < unknown / real < 2
    users._nobodys_hash.cache_clear()


def test_the_answers_are_the_same(site: Site):
    wrong, unknown = (log_in(site.browser(), login, "wrong") for login in ("ana", "anna"))
    assert wrong.status_code == unknown.status_code == 401
    nonce = [page.headers["content-security-policy"].rpartition("nonce-")[2].rstrip("'") for page in (wrong, unknown)]
    assert wrong.text.replace(nonce[0], "").replace("ana", "x") == unknown.text.replace(nonce[1], "").replace(
        "anna", "x"
    )


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_what_counts_as_one_address(address: str, same: str):
    assert login_attempts.network(address) == same


# other sites


FOREIGN = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://nova.example:81"},
    {"Origin": "http://nova.example.evil.example"},
    {"Origin": "http://nova.example@evil.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": HOME},
    {"Sec-Fetch-Site": "anything"},
]


@pytest.mark.parametrize("said", FOREIGN, ids=str)
def test_a_page_of_another_site_changes_nothing(site: Site, said: dict[str, str]):
    browser = site.browser("ana")
    del browser.headers["origin"]
    for path in ("/logout", "/graphql", "/login"):
        answer = browser.post(path, headers=said, json={"query": "mutation { reloadWorkspace { __typename } }"})
        assert answer.status_code == 403, path
        assert "another site" in answer.text
    assert browser.get("/whoami").status_code == 200


def test_a_session_without_a_word_about_its_page_changes_nothing(site: Site):
    browser = site.browser("ana")
    del browser.headers["origin"]
    assert browser.post("/logout").status_code == 403
    assert browser.post("/logout", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303


def test_nobody_is_logged_in_by_another_site(site: Site):
    assert log_in(site.client(Origin="https://evil.example"), "ana").status_code == 403


def test_a_key_needs_no_origin(site: Site):
    client = site.client("admin", Origin="https://evil.example")
    assert client.post("/graphql", json={"query": "{ version }"}).status_code == 200


@pytest.mark.parametrize("said", [*FOREIGN, {}], ids=str)
def test_a_page_of_another_site_opens_no_websocket(site: Site, said: dict[str, str]):
    browser = site.browser("ana")
    del browser.headers["origin"]
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect(LIVE, headers=said):
        pytest.fail("it was accepted")
    with browser.websocket_connect(LIVE, headers={"Origin": HOME}) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}


# what was open when the right was lost


def test_a_websocket_ends_with_its_session(site: Site, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(middleware, "RECHECK_SECONDS", 0.0)
    browser = site.browser("vera")
    with browser.websocket_connect(LIVE) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
        assert browser.post("/logout").status_code == 303
        socket.send_json({"type": "connection_init"})
        assert socket.receive() == {"type": "websocket.close", "code": 1008, "reason": "the session has ended"}


# pages


def test_the_page_speaks_both_languages_and_cannot_be_framed(site: Site):
    page = site.client(**{"Accept-Language": "es-ES,es;q=0.9,en;q=0.8"}).get("/login")
    assert '<html lang="es">' in page.text
    assert "Iniciar sesión" in page.text
    assert page.headers["x-frame-options"] == "DENY"
    policy = page.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy
    assert "default-src 'self'" in policy
    nonce = policy.rpartition("nonce-")[2].rstrip("'")
    assert f'<style nonce="{nonce}">' in page.text
    assert "Log in" in site.client().get("/login").text


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("es", "es"),
        ("ES-mx", "es"),
        ("fr, es;q=0.5", "es"),
        ("es;q=0.4, en;q=0.6", "en"),
        ("es;q=0", "en"),
        ("es;q=x, *", "en"),
        ("," * 9999, "en"),
    ],
)
def test_languages(accept: str, language: str):
    assert language_of(accept) == language


def test_what_was_typed_is_escaped(site: Site):
    answer = site.browser().post(
        "/login", data={"login": '"><script>alert(1)</script>', "password": "x", "next": '/"><b>{{7*7}}'}
    )
    assert "<script>" not in answer.text
    assert "<b>" not in answer.text
    assert "{{7*7}}" in answer.text


@pytest.mark.parametrize(
    "wanted",
    [
        *(
            "//evil",
            "https://evil",
            "/\\evil",
            "\\\\evil",
            "/\t/evil",
            "javascript:alert(1)",
            "/login?next=/",
            "/logout",
        ),
        *("", None, "runs", "///evil", "http:/evil", "/\nevil", "/" + "a" * 3_000, "//[", "@evil"),
    ],
)
def test_where_a_login_does_not_lead(site: Site, wanted: str | None):
    assert own_path(wanted) == "/"


@given(st.text("/\\ \t\n:@?#.%evil", max_size=20))
def test_a_login_leads_to_this_server_alone(text: str):
    path = own_path(text)
    assert path.startswith("/")
    assert not path.startswith(("//", "/\\"))


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"login=ana", "application/json", 415),
        (b"x" * 20_000, "application/x-www-form-urlencoded", 413),
        (b"login=\xff", "application/x-www-form-urlencoded", 400),
        (b"&".join([b"a=b"] * 50), "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded", 401),
        (b"login=%00&password=%ED%A0%80", "application/x-www-form-urlencoded", 401),
    ],
)
def test_forms_that_are_none(site: Site, body: bytes, kind: str, status: int):
    assert site.browser().post("/login", content=body, headers={"Content-Type": kind}).status_code == status


def test_no_secret_is_written_anywhere(site: Site, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    browser = site.browser("ana")
    token = browser.cookies["nova_session"]
    typed = "a password in the wrong field"
    log_in(site.browser(), typed, "another secret of somebody")
    for who in ("admin", "expired", "revoked", "nova_1_" + "a" * 64):
        site.client(who).get("/whoami")
        site.client(who).post("/graphql", json={"query": "mutation { reloadWorkspace { __typename } }"})
    site.client().get(f"/runs?token={site.keys['admin']}")
    browser.post("/report_asset_check/x")
    secrets = [token, typed, "another secret of somebody", PASSWORD, "a" * 64, *site.keys.values()]
    with site.nova.engine.connect() as connection:
        dump = "\n".join(connection.connection.driver_connection.iterdump())
    assert "ana" in dump
    said = "\n".join(record.getMessage() for record in caplog.records if record.name not in ("httpx", "asyncio"))
    for secret in secrets:
        assert secret not in dump
        assert secret not in said
