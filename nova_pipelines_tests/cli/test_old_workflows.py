"""`nova run` with a workflow of the old firm: refused before an execution is made, until its client is ready."""

from __future__ import annotations

from pathlib import Path

import pytest

from nova_pipelines_tests.cli.conftest import Nova

OLD = Path(__file__).parents[1] / "fixtures" / "old_invoice_processing.json"
NAME = "Invoice Processing (2024)"
MAILBOX = ("--imap-host", "imap.example", "--smtp-host", "smtp.example", "--user", "facturas@idom.example")


@pytest.fixture
def loaded(nova: Nova) -> Nova:
    nova("workflow", "load", OLD)
    nova("client", "add", "idom")
    return nova


def refused(nova: Nova, *arguments: str) -> str:
    """What `nova run` says against it; no execution is made."""
    said = nova("run", NAME, *arguments, code=1)
    assert nova.json("executions", "list") == []
    return " ".join(said.err.split())


def test_an_old_workflow_is_refused_until_its_client_is_ready(loaded: Nova):
    assert "and it runs for no client" in refused(loaded)
    said = refused(loaded, "--client", "idom")
    assert "node 'read_and_extract' needs the network (imaplib) and credentials (email_password, " in said
    assert "node 'save_db' needs the network (psycopg2)" in said
    assert "client 'idom' is not marked expose_credentials and allow_network" in said
    assert "nova client update idom --expose-credentials --allow-network" in said
    assert "is not marked" in refused(loaded, "--client", "idom", "--wait")

    loaded("client", "update", "idom", "--expose-credentials")
    said = refused(loaded, "--client", "idom")
    assert "is not marked allow_network" in said

    loaded("client", "update", "idom", "--allow-network")
    assert "client 'idom' has no email and no database credential" in refused(loaded, "--client", "idom")
    loaded("client", "credentials", "set", "idom", "email", *MAILBOX, "--password-stdin", input="long-enough")
    said = refused(loaded, "--client", "idom")
    assert "has no database credential" in said
    assert "nova client credentials set idom database" in said
    url = ("--url", "postgresql://ana@db.example/x", "--password-stdin")
    loaded("client", "credentials", "set", "idom", "database", *url, input="long-enough")

    assert "is waiting" in loaded("run", NAME, "--client", "idom").out
    assert [row["status"] for row in loaded.json("executions", "list")] == ["pending"]


def test_a_context_that_would_send_the_password_elsewhere_is_refused(loaded: Nova):
    loaded("client", "update", "idom", "--expose-credentials", "--allow-network")
    for kind, more in (("email", MAILBOX), ("database", ("--url", "postgresql://ana@db.example/x"))):
        loaded("client", "credentials", "set", "idom", kind, *more, "--password-stdin", input="long-enough")

    said = refused(loaded, "--client", "idom", "--context", '{"smtp_host": "evil.example"}')

    assert "the initial context sets smtp_host but not email_password" in said
