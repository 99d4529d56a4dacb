"""`nova keys`, `nova users`, `nova audit`: made, listed, ended; the secret is shown once and stands nowhere."""

from __future__ import annotations

import pytest

from nova_pipelines.cli import users
from nova_pipelines_tests.cli.conftest import Nova

PASSWORD = "correct horse battery staple"


def test_keys(nova: Nova):
    nova("client", "add", "idom")
    made = nova("keys", "create", "ci-server", "--role", "operator", "--client", "idom", "--expires", "30")
    token = made.out.strip()
    assert token.startswith("nova_1_")
    assert "cannot be shown again" in made.err
    assert token not in made.err
    second = nova.json("keys", "create", "other", "--role", "admin")
    assert second["token"].startswith("nova_2_")
    assert (second["clients"], second["expires_at"], second["state"]) == (None, None, "good")

    listed = nova.json("keys", "list")
    assert [(key["name"], key["role"], key["clients"], key["state"]) for key in listed] == [
        ("ci-server", "operator", ["idom"], "good"),
        ("other", "admin", None, "good"),
    ]
    assert "token" not in listed[0]
    assert "ci-server" in nova("keys", "list").out
    assert nova("keys", "revoke", "ci-server").out == "key 1 (ci-server) revoked\n"
    assert nova.json("keys", "revoke", "2")["state"] == "revoked"
    assert [key["state"] for key in nova.json("keys", "list")] == ["revoked", "revoked"]
    assert "there is no key 'x'" in nova("keys", "revoke", "x", code=3).err

    actions = [(row["action"], row["object"], row["actor_kind"]) for row in nova.json("audit", "list")]
    assert actions == [
        ("keys.revoke", "2 other", "cli"),
        ("keys.revoke", "1 ci-server", "cli"),
        ("keys.create", "2 other admin", "cli"),
        ("keys.create", "1 ci-server operator", "cli"),
    ]
    assert len(nova.json("audit", "list", "--action", "keys.create", "--limit", "1")) == 1
    assert "keys.revoke" in nova("audit", "list").out
    stored = b"".join(file.read_bytes() for file in nova.home.glob("nova.db*"))
    assert token.encode() not in stored
    assert token.rpartition("_")[2].encode() not in stored


def test_what_a_key_cannot_be(nova: Nova):
    assert nova("keys", "create", "x", code=2)  # no role
    assert nova("keys", "create", "x", "--role", "root", code=2)
    assert nova("keys", "create", "x", "--role", "viewer", "--expires", "0", code=2)
    assert "there is no client" in nova("keys", "create", "x", "--role", "viewer", "--client", "nobody", code=3).err
    assert nova.json("keys", "list") == []
    assert nova.json("audit", "list") == []


def test_rotating_the_keys_of_credentials_is_where_it_was(nova: Nova):
    assert nova.json("keys", "rotate")["source"] == "file"


def test_users(nova: Nova):
    made = nova.json("users", "create", "Ana@example.com", "--role", "admin", "--password-stdin", input=PASSWORD + "\n")
    assert (made["login"], made["role"], made["clients"], made["is_active"]) == ("ana@example.com", "admin", None, True)
    assert "password" not in str(made)
    assert "ana@example.com" in nova("users", "list").out
    again = nova("users", "create", "ana@example.com", "--role", "viewer", "--password-stdin", input=PASSWORD, code=1)
    assert "there is a user ana@example.com already" in again.err
    assert nova("users", "disable", "ana@example.com").out == "user ana@example.com is disabled\n"
    assert nova.json("users", "list")[0]["is_active"] is False
    assert nova.json("users", "enable", "ANA@example.com")["is_active"] is True
    nova("users", "password", "ana@example.com", "--password-stdin", input="another long password")
    assert "there is no user" in nova("users", "password", "otto", "--password-stdin", input=PASSWORD, code=3).err
    assert [row["action"] for row in nova.json("audit", "list")] == [
        *("users.password", "users.enable", "users.disable", "users.create")
    ]
    stored = b"".join(file.read_bytes() for file in nova.home.glob("nova.db*"))
    assert PASSWORD.encode() not in stored
    assert b"$argon2id$v=19$m=65536,t=3,p=4$" in stored


def test_passwords_that_are_none(nova: Nova):
    short = nova("users", "create", "ana", "--role", "admin", "--password-stdin", input="short", code=1)
    assert "a password has 12 to 1000 characters" in short.err
    assert "there is no terminal" in nova("users", "create", "ana", "--role", "admin", code=2).err
    assert nova.json("users", "list") == []


def test_a_person_at_a_terminal_is_asked_twice(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    asked: list[dict[str, object]] = []

    def prompt(text: str, **options: object) -> str:
        asked.append(options)
        return PASSWORD

    monkeypatch.setattr(users.typer, "prompt", prompt)
    monkeypatch.setattr(users, "_has_terminal", lambda: True)
    nova("users", "create", "ana", "--role", "viewer", "--client", "idom", code=3)
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True}]
