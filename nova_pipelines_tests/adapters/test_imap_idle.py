"""IDLE on a real Dovecot: wakes, never waits without an end, and notices what is silently broken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nova_pipelines.adapters.imap import MailboxConfig
from nova_pipelines.adapters.imap_idle import Bell, WatchedMailbox
from nova_pipelines.domain.errors import TransientError
from nova_pipelines_tests.fixtures.blackhole import Proxy
from nova_pipelines_tests.fixtures.dovecot import MailUser
from nova_pipelines_tests.fixtures.sockets import talking_server

MAIL = b"From: a@b.example\r\nSubject: x\r\n\r\nx\r\n"


def config(user: MailUser, **more: Any) -> MailboxConfig:
    values = {"host": user.host, "port": user.tls_port, "user": user.name, "password": user.password}
    return MailboxConfig(**{**values, "ca_file": user.ca_file, "timeout_seconds": 2.0, **more})


@pytest.fixture
def bell() -> Iterator[Bell]:
    made = Bell()
    yield made
    made.close()


@contextmanager
def meanwhile(work: Callable[[], object], *, after: float = 0.0) -> Iterator[None]:
    timer = threading.Timer(after, work)
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_new_mail_ends_the_wait_within_two_seconds(mail_user: MailUser, bell: Bell):
    with WatchedMailbox(config(mail_user)) as mailbox:
        assert mailbox.can_idle
        mailbox.select("INBOX")
        assert mailbox.candidates(1) == []
        with meanwhile(lambda: mail_user.deliver(MAIL)):
            began = time.monotonic()
            assert mailbox.idle(30, bell)
        assert time.monotonic() - began < 2.0 + 1.0  # one second for the delivery itself on a busy machine
        assert len(mailbox.candidates(1)) == 1, "the connection goes on"


def test_mail_that_came_between_search_and_idle_is_not_slept_over(mail_user: MailUser, bell: Bell):
    """Plain TCP: the server's news may stand in the same piece as its "+ idling"."""
    with WatchedMailbox(config(mail_user, port=mail_user.port, tls="starttls")) as mailbox:
        mailbox.select("INBOX")
        for count in range(1, 4):
            mail_user.deliver(MAIL)
            began = time.monotonic()
            assert mailbox.idle(30, bell)
            assert time.monotonic() - began < 3.0
            assert len(mailbox.candidates(1)) == count


def test_the_wait_ends_with_its_time_and_with_the_bell(mail_user: MailUser, bell: Bell):
    with WatchedMailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        assert mailbox.idle(0.05, bell) is False
        with meanwhile(bell.ring):
            assert mailbox.idle(30, bell) is False
        bell.silence()
        assert mailbox.idle(0.05, bell) is False
        mailbox.ping()


def test_a_connection_that_is_swallowed_is_noticed_when_idle_is_issued_anew(mail_user: MailUser, bell: Bell):
    """Trap 2: without a time for each answer this hung for ever."""
    with Proxy(mail_user.host, mail_user.tls_port) as proxy:
        with WatchedMailbox(config(mail_user, port=proxy.port)) as mailbox:
            mailbox.select("INBOX")
            proxy.swallowing = True
            began = time.monotonic()
            with pytest.raises(TransientError, match="did not answer within 2 s"):
                mailbox.idle(0.3, bell)
            assert time.monotonic() - began < 5.0
        assert proxy.swallowed > 0


@pytest.mark.parametrize("how", ["cut by the network", "abandoned by this side"])
def test_a_connection_that_breaks_ends_the_wait(mail_user: MailUser, bell: Bell, how: str):
    proxy = Proxy(mail_user.host, mail_user.tls_port)
    with proxy, WatchedMailbox(config(mail_user, port=proxy.port)) as mailbox:
        mailbox.select("INBOX")
        work = proxy.cut if how == "cut by the network" else mailbox.abandon
        began = time.monotonic()
        with meanwhile(work, after=0.1), pytest.raises(TransientError):
            mailbox.idle(30, bell)
        assert time.monotonic() - began < 5.0


def scripted(*, idle: bytes, then: bytes = b"") -> Callable[[Any], None]:
    """A server that knows LOGIN, CAPABILITY, SELECT, and answers IDLE with `idle` ({tag} is filled in); after that
    it sends `then` without an end, or waits for the client to go."""

    def conversation(client: Any) -> None:
        client.sendall(b"* OK [CAPABILITY IMAP4rev1 IDLE] ready\r\n")
        for line in client.makefile("rb"):
            if line == b"DONE\r\n":
                continue
            tag, command = line.split()[:2]
            if command == b"SELECT":
                client.sendall(b"* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT 1] x\r\n")
            if command == b"CAPABILITY":
                client.sendall(b"* CAPABILITY IMAP4rev1 IDLE\r\n")
            if command == b"IDLE":
                client.sendall(idle.replace(b"{tag}", tag))
                while then:
                    client.sendall(then)
                continue
            client.sendall(tag + b" OK done\r\n")
            if command == b"LOGOUT":
                return

    return conversation


def plain(port: int) -> MailboxConfig:
    return MailboxConfig("127.0.0.1", port, "u", "p", tls="none", timeout_seconds=1.0)


def test_a_server_that_promises_idle_and_refuses_it_is_polled(bell: Bell):
    with talking_server(scripted(idle=b"{tag} NO not today\r\n")) as port, WatchedMailbox(plain(port)) as mailbox:
        mailbox.select("INBOX")
        assert mailbox.can_idle
        assert mailbox.idle(30, bell) is False
        assert not mailbox.can_idle
        mailbox.ping()


@pytest.mark.parametrize("then", [b"* 1 EXISTS\r\n" * 500, b"* 1 FETCH (FLAGS ())\r\n"])
def test_a_server_that_floods_is_left(bell: Bell, then: bytes):
    with talking_server(scripted(idle=b"+ idling\r\n", then=then)) as port, WatchedMailbox(plain(port)) as mailbox:
        mailbox.select("INBOX")
        began = time.monotonic()
        with pytest.raises(TransientError, match="goes on talking"):
            mailbox.idle(30, bell)
        assert time.monotonic() - began < 5.0


def test_a_server_that_talks_nonsense_is_left(bell: Bell):
    nonsense = scripted(idle=b"+ idling\r\nHTTP/1.1 400\r\n")
    with talking_server(nonsense) as port, WatchedMailbox(plain(port)) as mailbox:
        mailbox.select("INBOX")
        with pytest.raises(TransientError):
            mailbox.idle(30, bell)
