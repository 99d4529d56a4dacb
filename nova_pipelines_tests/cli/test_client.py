"""`nova client`: clients and their credentials, and no password anywhere."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path

import pytest

from nova_pipelines.cli import credentials
from nova_pipelines.database.clients import credential_secret, find_client
from nova_pipelines.database.secrets import open_box
from nova_pipelines.database.session import Database
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import Nova

SECRET = "correct horse battery"
MAILBOX = ("--imap-host", "imap.idom.es", "--smtp-host", "smtp.idom.es", "--user", "ana@idom.es")


@pytest.fixture
def idom(nova: Nova) -> Nova:
    nova("client", "add", "idom", "--name", "IDOM", "--email", "ana@idom.es")
    return nova


def password(slug: str, kind: str, label: str = "default") -> str:
    settings = load_settings()
    database = Database(settings.database_url)
    with database.read() as session:
        client = find_client(session, slug)
        found = next(each for each in client.credentials if (each.kind, each.label) == (kind, label))
        secret = credential_secret(open_box(settings), found)
    database.close()
    return secret["password"]


def test_add_show_list(idom: Nova):
    shown = idom.json("client", "show", "idom")
    assert (shown["id"], shown["name"], shown["email"], shown["is_active"]) == (1, "IDOM", "ana@idom.es", True)
    assert idom.json("client", "list") == [shown]
    assert "ana@idom.es" in idom("client", "list").out
    assert "everybody may write" in idom("client", "show", "idom").out


def test_the_same_slug_twice(idom: Nova):
    assert "there is a client idom already" in idom("client", "add", "idom", code=1).err


def test_update(idom: Nova):
    changed = idom.json(
        *("client", "update", "idom", "--name", "Idom SA", "--allow-sender", "@x.es", "--allow-sender", "b@y.es"),
        *("--allow-network", "--expose-credentials", "--inactive"),
    )
    assert changed["sender_whitelist"] == ["@x.es", "b@y.es"]
    assert (changed["allow_network"], changed["expose_credentials"], changed["is_active"]) == (True, True, False)

    changed = idom.json("client", "update", "idom", "--allow-everybody", "--email", "", "--active")
    assert (changed["sender_whitelist"], changed["email"], changed["name"]) == ([], None, "Idom SA")
    assert changed["allow_network"]


def test_update_without_a_change(idom: Nova):
    idom("client", "update", "idom", code=2)
    idom("client", "update", "idom", "--allow-everybody", "--allow-sender", "@x.es", code=2)


def test_remove(idom: Nova):
    assert idom.json("client", "remove", "idom") == {"slug": "idom", "result": "deleted"}
    assert idom.json("client", "list") == []


def test_a_mailbox_with_the_password_from_stdin(idom: Nova):
    said = idom("client", "credentials", "set", "idom", "email", *MAILBOX, "--password-stdin", input=f"{SECRET}\n")

    assert password("idom", "email") == SECRET
    (credential,) = idom.json("client", "show", "idom")["credentials"]
    assert credential["is_primary"]
    assert credential["settings"] == {
        "imap_host": "imap.idom.es",
        "imap_port": 993,
        "imap_tls": "ssl",
        "smtp_host": "smtp.idom.es",
        "smtp_port": 587,
        "smtp_tls": "starttls",
        "user": "ana@idom.es",
    }
    assert SECRET not in said.out + said.err + idom("client", "show", "idom", "--json").out
    for file in idom.home.iterdir():
        assert SECRET.encode() not in file.read_bytes()


def test_from_the_environment(idom: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDOM_PASSWORD", SECRET)

    idom("client", "credentials", "set", "idom", "email", *MAILBOX, "--password-env", "IDOM_PASSWORD")

    assert password("idom", "email") == SECRET


def test_at_the_prompt(idom: Nova, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []

    def prompt(text: str, **options: object) -> str:
        assert options["hide_input"]
        asked.append(text)
        return SECRET

    monkeypatch.setattr(credentials.typer, "prompt", prompt)
    monkeypatch.setattr("nova_pipelines.cli.credentials._has_terminal", lambda: True)

    idom("client", "credentials", "set", "idom", "email", *MAILBOX)

    assert asked == ["Password"]
    assert password("idom", "email") == SECRET


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "no terminal to ask"),
        (("--password-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE holds no password"),
        (("--password-stdin",), "stdin holds no password"),
        (("--password-stdin", "--password-env", "X"), "exclude each other"),
    ],
)
def test_without_a_password(idom: Nova, more: tuple[str, ...], words: str):
    said = idom("client", "credentials", "set", "idom", "email", *MAILBOX, *more, code=2)

    assert words in said.err
    assert idom.json("client", "show", "idom")["credentials"] == []


def test_a_password_is_never_an_argument(idom: Nova):
    said = idom("client", "credentials", "set", "idom", "email", *MAILBOX, "--password", SECRET, code=2)

    assert "No such option" in said.err
    assert SECRET not in said.err


def test_a_change_keeps_the_rest_and_the_password(idom: Nova):
    idom("client", "credentials", "set", "idom", "email", *MAILBOX, "--password-stdin", input=SECRET)
    idom("client", "credentials", "set", "idom", "email", "--imap-port", "143", "--imap-tls", "starttls")

    settings = idom.json("client", "show", "idom")["credentials"][0]["settings"]
    assert (settings["imap_port"], settings["imap_tls"], settings["smtp_host"]) == (143, "starttls", "smtp.idom.es")
    assert password("idom", "email") == SECRET


def test_several_mailboxes_and_the_primary_one(idom: Nova):
    idom("client", "credentials", "set", "idom", "email", *MAILBOX, "--password-stdin", input="one")
    idom(
        *("client", "credentials", "set", "idom", "email", "--label", "second", *MAILBOX, "--primary"),
        "--password-stdin",
        input="two",
    )

    shown = idom.json("client", "show", "idom")["credentials"]
    assert [(each["label"], each["is_primary"]) for each in shown] == [("default", False), ("second", True)]

    idom("client", "credentials", "remove", "idom", "email", "--label", "second")
    shown = idom.json("client", "show", "idom")["credentials"]
    assert [(each["label"], each["is_primary"]) for each in shown] == [("default", True)]
    assert "it has: email default" in idom("client", "credentials", "remove", "idom", "database", code=3).err


def test_the_default_mailbox_is_that_of_the_environment(idom: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GMAIL_EMAIL", "firm@gmail.com")
    monkeypatch.setenv("GMAIL_APP_PASSWORD", "abcd efgh ijkl mnop")

    idom("client", "credentials", "set", "idom", "email")

    settings = idom.json("client", "show", "idom")["credentials"][0]["settings"]
    assert (settings["imap_host"], settings["smtp_port"], settings["user"]) == ("imap.gmail.com", 587, "firm@gmail.com")
    assert password("idom", "email") == "abcdefghijklmnop"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("email",), "needs a server"),
        (("email", "--imap-host", "x"), "needs a user"),
        (("email", "--smtp-host", "x", "--user", "ana"), "no mail address to send from"),
        (("database",), "needs its URL"),
    ],
)
def test_what_is_missing_is_said(idom: Nova, arguments: tuple[str, ...], words: str):
    said = idom("client", "credentials", "set", "idom", *arguments, "--password-stdin", input="x", code=2)

    assert words in said.err


def test_a_database(idom: Nova):
    url = "postgresql://nova@db:5432/facturas"
    idom("client", "credentials", "set", "idom", "database", "--url", url, "--password-stdin", input=SECRET)

    assert idom.json("client", "show", "idom")["credentials"][0]["settings"] == {"url": url}
    assert password("idom", "database") == SECRET


def test_a_password_in_a_database_url_is_refused(idom: Nova):
    url = f"postgresql://nova:{SECRET.replace(' ', '')}@db/facturas"
    said = idom("client", "credentials", "set", "idom", "database", "--url", url, "--password-stdin", input="x", code=1)

    assert "holds a password" in said.err
    assert SECRET.replace(" ", "") not in said.err


def test_rotation_of_keys(idom: Nova):
    idom("client", "credentials", "set", "idom", "email", *MAILBOX, "--password-stdin", input=SECRET)
    before = _tokens(idom.home)

    rotation = idom.json("keys", "rotate")
    assert rotation == {"credentials": 1, "keys": 2, "source": "file", "dropped": 0}
    assert _tokens(idom.home) != before
    assert idom.json("keys", "rotate", "--drop-old")["dropped"] == 2
    assert password("idom", "email") == SECRET
    assert len((idom.home / "secret.key").read_text().split()) == 1


def test_a_wrong_key_is_said_and_changes_nothing(idom: Nova, monkeypatch: pytest.MonkeyPatch):
    idom("client", "credentials", "set", "idom", "email", *MAILBOX, "--password-stdin", input=SECRET)
    before = _tokens(idom.home)
    monkeypatch.setenv("NOVA_SECRET_KEY", "A" * 43 + "=")

    assert "does not fit" in idom("keys", "rotate", code=1).err
    assert _tokens(idom.home) == before


def _tokens(home: Path) -> list[bytes]:
    with sqlite3.connect(home / "nova.db") as connection:
        found = [row[0] for row in connection.execute("SELECT secret FROM credentials")]
    connection.close()
    return found


def test_standard_input_is_asked_whether_it_is_a_terminal():
    assert credentials._has_terminal() is sys.stdin.isatty()
