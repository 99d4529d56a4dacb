"""Logging in by a token: a real Dovecot that asks a token server, a real aiosmtpd, and servers that refuse."""

from __future__ import annotations

import base64
import socket
import traceback

import pytest

from nova_pipelines.adapters.imap import Mailbox, MailboxConfig
from nova_pipelines.adapters.smtp import SmtpConfig, check
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, TransientError
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser
from nova_pipelines_tests.fixtures.oauth_mailbox import oauth_dovecot
from nova_pipelines_tests.fixtures.smtp_sink import OAuthSink
from nova_pipelines_tests.fixtures.sockets import talking_server
from nova_pipelines_tests.fixtures.token_server import TokenServer


@pytest.fixture(scope="module")
def tokens_of():
    with TokenServer() as server:
        yield server


@pytest.fixture(scope="module")
def dovecot_by_token(tokens_of: TokenServer):
    with oauth_dovecot(tokens_of) as dovecot:
        yield dovecot


class Tokens:
    """A source that gives these tokens, one after another, and keeps which were refused."""

    def __init__(self, *tokens: str) -> None:
        self.left, self.refused = list(tokens), list[str]()

    def token(self) -> str:
        return self.left[0]

    def renewed(self, refused: str) -> str:
        self.refused.append(refused)
        assert self.left.pop(0) == refused
        return self.left[0]


def mailbox(user: MailUser, tokens: Tokens) -> Mailbox:
    return Mailbox(MailboxConfig(user.host, user.tls_port, user.name, "", tokens=tokens, ca_file=user.ca_file))


def smtp(port: int, tokens: Tokens) -> SmtpConfig:
    return SmtpConfig("127.0.0.1", port, user="ana@x.es", tokens=tokens, tls="none", timeout_seconds=5)


def test_a_real_server_takes_a_token(tokens_of: TokenServer, dovecot_by_token: DovecotServer):
    user = dovecot_by_token.new_user()
    source = Tokens(tokens_of.new_access_token(user.name))
    with mailbox(user, source) as opened:
        assert opened.select("INBOX").uidnext == 1
    assert source.refused == []


def test_a_refused_token_is_renewed_once(tokens_of: TokenServer, dovecot_by_token: DovecotServer):
    user = dovecot_by_token.new_user()
    source = Tokens("stale-token-4711", tokens_of.new_access_token(user.name))
    with mailbox(user, source) as opened:
        opened.ping()
    assert source.refused == ["stale-token-4711"]


@pytest.mark.parametrize("kind", ["unknown", "of somebody else"])
def test_a_login_that_stays_refused_says_what_to_do(tokens_of: TokenServer, dovecot_by_token: DovecotServer, kind: str):
    user = dovecot_by_token.new_user()
    second = tokens_of.new_access_token("other") if kind == "of somebody else" else "nor-this-one-4712"
    with pytest.raises(CredentialError, match=f"refused the login of {user.name}") as refused:
        mailbox(user, Tokens("not-this-one-4711", second)).__enter__()
    assert "status 401" in str(refused.value)  # the JSON of the refusal, decoded
    assert "--oauth" in str(refused.value)
    shown = "".join(traceback.format_exception(refused.value))
    assert second not in shown
    assert "not-this-one-4711" not in repr(refused.value.args)


def test_oauthbearer_where_nothing_else_is_offered(tokens_of: TokenServer):
    with oauth_dovecot(tokens_of, mechanisms="oauthbearer") as dovecot:
        user = dovecot.new_user()
        with mailbox(user, Tokens("stale", tokens_of.new_access_token(user.name))) as opened:
            opened.ping()


def test_a_server_without_tokens(mail_user: MailUser, smtp_sink):
    with pytest.raises(ConfigurationError, match="offers no login by OAuth"):
        mailbox(mail_user, Tokens("x")).__enter__()
    with pytest.raises(ConfigurationError, match="offers no login by OAuth"):
        check(smtp(smtp_sink.port, Tokens("x")))


def test_smtp_by_token():
    users = {"good" * 500: "ana@x.es"}
    with OAuthSink(users) as sink:
        check(smtp(sink.port, Tokens("good" * 500)))
        source = Tokens("stale-4711", "good" * 500)
        check(smtp(sink.port, source))
        assert source.refused == ["stale-4711"]
        with pytest.raises(CredentialError, match=r"refused the login of ana@x.es: 535 .*status 400") as refused:
            check(smtp(sink.port, Tokens("stale-4711", "stale-4712")))
        assert b"" in sink.responses  # the question is answered with nothing, as Google wants it
    assert "stale-4712" not in str(refused.value)


def test_smtp_is_busy_with_logins():
    def busy(client: socket.socket) -> None:
        lines = client.makefile("rb")
        client.sendall(b"220 hi\r\n")
        for reply in (
            b"250-x\r\n250 AUTH XOAUTH2\r\n",
            b"454 4.7.0 Temporary authentication failure\r\n",
            b"221 x\r\n",
        ):
            lines.readline()
            client.sendall(reply)

    source = Tokens("good")
    with talking_server(busy) as port, pytest.raises(TransientError, match="454"):
        check(smtp(port, source))
    assert source.refused == []  # the token is not what was wrong


@pytest.mark.parametrize(
    "ending",
    [
        b"* BYE Session invalidated - AccessTokenExpired\r\n",
        b"{tag} BAD User is authenticated but not connected.\r\n",
    ],
)
def test_a_session_that_outlives_its_token_leads_to_a_new_login(ending: bytes):
    """Microsoft ends one after about an hour: a failure that passes, and the next connection asks for a token anew."""
    logins: list[bytes] = []

    def converse(client: socket.socket) -> None:
        lines = client.makefile("rb")
        client.sendall(b"* OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] hi\r\n")
        while line := lines.readline():
            tag, command = line.split()[:2]
            if command == b"AUTHENTICATE":
                client.sendall(b"+ \r\n")
                logins.append(base64.b64decode(lines.readline()))
                client.sendall(tag + b" OK in\r\n")
            elif command == b"CAPABILITY":
                client.sendall(b"* CAPABILITY IMAP4rev1 AUTH=XOAUTH2\r\n" + tag + b" OK done\r\n")
            elif command == b"NOOP" and len(logins) == 1:
                client.sendall(ending.replace(b"{tag}", tag))
                if ending.startswith(b"*"):
                    return
            else:
                client.sendall(tag + b" OK done\r\n")
                if command == b"LOGOUT":
                    return

    source = Tokens("first", "second")
    with talking_server(converse) as port:
        config = MailboxConfig("127.0.0.1", port, "ana@x.es", "", tokens=source, tls="none", timeout_seconds=5)
        with Mailbox(config) as opened, pytest.raises(TransientError):
            opened.ping()
        source.left.pop(0)
        with Mailbox(config) as opened:
            opened.ping()
    assert logins == [f"user=ana@x.es\x01auth=Bearer {token}\x01\x01".encode() for token in ("first", "second")]
