"""`nova webhooks …` and what `nova doctor` says of them."""

from __future__ import annotations

import pytest

from nova_pipelines.adapters.webhook import sign
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.fixtures.webhooks import HookServer


@pytest.fixture
def private(nova: Nova, monkeypatch: pytest.MonkeyPatch) -> None:
    del nova  # it cleans the environment first
    monkeypatch.setenv("NOVA_WEBHOOK_PRIVATE", "true")


@pytest.mark.usefixtures("private")
def test_added_tested_listed_and_removed(nova: Nova, hooks: HookServer):
    nova("client", "add", "idom")
    made = nova.json("webhooks", "add", hooks.url, "--client", "idom", "--event", "failed")
    assert (made["id"], made["client"], made["events"]) == (1, "idom", ["failed"])
    assert len(made["key"]) > 30
    assert nova.json("webhooks", "test", "1") == {"id": 1, "status": "sent", "error": None}
    (call,) = hooks.calls
    assert call.json["event"] == "test"
    moment = int(call.headers["x-nova-signature"].split(",")[0].removeprefix("t="))
    assert call.headers["x-nova-signature"] == sign(made["key"], moment, call.body)
    (row,) = nova.json("webhooks", "list")
    assert (row["sent"], row["pending"], row["failed"]) == (1, 0, 0)
    assert "t0ken-of-the-url" not in nova("webhooks", "list").out
    nova("webhooks", "remove", "1")
    assert nova.json("webhooks", "list") == []
    nova("webhooks", "remove", "1", code=3)


@pytest.mark.usefixtures("private")
def test_a_receiver_that_refuses_is_said(nova: Nova, hooks: HookServer):
    nova("webhooks", "add", hooks.url)
    hooks.status = 500
    said = nova("webhooks", "test", "1", code=1)
    assert "answered 500" in said.err
    assert nova.json("webhooks", "retry", "1")["released"] == 0


def test_only_public_https_unless_it_is_set(nova: Nova, hooks: HookServer):
    for url in (hooks.url, "https://10.0.0.1/x", "ftp://example.com"):
        nova("webhooks", "add", url, code=1)
    assert nova.json("webhooks", "list") == []


@pytest.mark.usefixtures("private")
def test_its_key_is_rotated_with_the_others(nova: Nova, hooks: HookServer):
    nova("webhooks", "add", hooks.url)
    nova("keys", "rotate", "--drop-old")
    assert nova.json("webhooks", "test", "1")["status"] == "sent"


def test_a_key_of_ones_own_must_be_long_enough(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOOK_KEY", "short")
    nova("webhooks", "add", "https://example.com/x", "--key-env", "HOOK_KEY", code=2)
    monkeypatch.setenv("HOOK_KEY", "k" * 20)
    assert nova.json("webhooks", "add", "https://example.com/x", "--key-env", "HOOK_KEY")["key"] is None
