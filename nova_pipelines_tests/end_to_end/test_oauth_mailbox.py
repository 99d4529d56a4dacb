"""A mailbox whose password nobody has: mail in and answer out by tokens, which run out and are renewed on the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from nova_pipelines.database.clients import set_credential
from nova_pipelines.database.nova import Credential
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines_tests.fixtures.dovecot import MailUser
from nova_pipelines_tests.fixtures.smtp_sink import OAuthSink
from nova_pipelines_tests.fixtures.token_server import CLIENT_ID, TokenServer
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, SENDER, World, make_world


def test_mail_in_and_out_while_tokens_run_out(
    oauth_user: MailUser,
    oauth_provider: TokenServer,
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    with (
        OAuthSink(oauth_provider.users) as sink,
        make_world(oauth_user, sink, sqlite_template, tmp_path, monkeypatch) as world,
    ):
        use_oauth(world, oauth_provider)
        compiled = world.publish(INVOICE_PROCESSING)
        scan_mailbox(world.services, 1, "INBOX")
        world.deliver(text="No document")
        # what an hour does: the stored token is good no more, though its time is not over
        oauth_provider.revoke_access()
        assert world.run(compiled).success
        (execution,) = world.executions()
        assert (execution.status, execution.error) == ("completed", None)
        assert [mail.recipients for mail in sink.messages] == [[SENDER]]
        assert len(oauth_provider.used) == len(set(oauth_provider.used)) == 2
        assert "\\Seen" in next(iter(oauth_user.flags().values()))

        world.deliver(text="Another one")
        oauth_provider.revoke_access()
        oauth_provider.refresh_tokens.clear()  # a new password, a person who left: the login is over
        with pytest.raises(NovaError, match="log in again"):
            scan_mailbox(world.services, 1, "INBOX")
        with world.services.databases.nova.read() as session:
            assert "log in again" in (session.get_one(Credential, 1).last_error or "")
        everything = "".join(path.read_bytes().decode("latin-1") for path in (tmp_path / "home").glob("*.db*"))
        assert not [secret for secret in oauth_provider.secrets() if secret in everything]


def use_oauth(world: World, provider: TokenServer) -> None:
    with world.services.databases.nova.session() as session:
        credential = session.get_one(Credential, 1)
        oauth = {"oauth": "microsoft", "oauth_flow": "device", "oauth_client_id": CLIENT_ID}
        settings = credential.settings | oauth | {"oauth_base_url": provider.url, "smtp_login": True}
        secret = {"refresh_token": provider.new_refresh_token(world.user.name)}
        set_credential(session, world.services.box(), credential.client, "email", settings=settings, secret=secret)
