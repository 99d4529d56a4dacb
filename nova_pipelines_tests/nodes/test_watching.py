"""The watcher on a real Dovecot, before which a proxy cuts, swallows, refuses and hangs up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import select

from nova_pipelines.compiler.feeds import Feeds, accounts_to_watch
from nova_pipelines.database.clients import add_client, find_client, set_credential, update_client
from nova_pipelines.database.nova import Credential, Message
from nova_pipelines.nodes.watch_plan import plan_routes
from nova_pipelines.nodes.watcher import Watcher
from nova_pipelines.nodes.watching import Watch, WatchPolicy
from nova_pipelines_tests.fixtures.blackhole import Proxy
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser
from nova_pipelines_tests.fixtures.sockets import black_hole, closed_port, talking_server
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World

#: errors that last are waited out for ever, so that only a nudge can end the wait
POLICY = WatchPolicy(
    idle=60, poll=0.2, answer=1.0, back_off_refused=(3600, 3600), back_off_folder=(3600, 3600), back_off_broken=(0.1, 1)
)
#: from delivery to ledger: two seconds, and one for a busy machine
WAKE_SECONDS = 3.0


class Scene:
    """A watcher of the clients of a world; `news` holds what it reported."""

    def __init__(self, world: World, policy: WatchPolicy = POLICY, *, connections: int = 5, searches: int = 4) -> None:
        self.world, self.connections = world, connections
        self.nova = world.services.databases.nova
        self.news: list[tuple[str, str]] = []
        self.feeds = Feeds(self.nova)
        self.watcher = Watcher(
            world.services, policy, lambda route, folder: self.news.append((route.slug, folder)), searches=searches
        )

    def follow(self) -> None:
        accounts = accounts_to_watch(self.nova, self.feeds.read())
        self.watcher.follow(plan_routes(accounts, connections=self.connections))

    def watch(self, slug: str = "idom", folder: str = "INBOX") -> Watch:
        watches = self.watcher.watches.items()
        return next(watch for route, watch in watches if route.slug == slug and folder in route.folders)

    def until(self, what: str, condition: Callable[[], Any], seconds: float = 15.0) -> float:
        """Waits; returns how long."""
        began = time.monotonic()
        while not condition():
            self.watcher.look_after()
            states = {route.name: (watch.state, watch.error) for route, watch in self.watcher.watches.items()}
            assert time.monotonic() - began < seconds, f"{what}: not within {seconds:g} s: {states}"
            time.sleep(0.01)
        return time.monotonic() - began

    def until_idle(self, *slugs: str) -> None:
        for slug in slugs or ("idom",):
            self.until(f"{slug} is idle", lambda slug=slug: self.watch(slug).state == "idle")

    def until_stored(self, count: int, seconds: float = WAKE_SECONDS) -> float:
        return self.until(f"{count} mails", lambda: len(self.stored()) >= count, seconds)

    def stored(self) -> list[Message]:
        with self.nova.read() as session:
            return list(session.scalars(select(Message).where(Message.status == "stored").order_by(Message.id)))

    def settings(self, slug: str = "idom", **changes: Any) -> None:
        with self.nova.session() as session:
            client = find_client(session, slug)
            (credential,) = client.credentials
            credential.settings = {**credential.settings, **changes}

    def add(self, slug: str, user: MailUser, *, password: str | None = None, **changes: Any) -> None:
        with self.nova.session() as session:
            settings = {**session.get_one(Credential, 1).settings, "imap_port": user.tls_port, "user": user.name}
            set_credential(
                session,
                self.world.services.box(),
                add_client(session, name=slug, slug=slug),
                "email",
                settings=settings | changes,
                secret={"password": password or user.password},
            )


@pytest.fixture
def scene(world: World) -> Iterator[Scene]:
    world.publish(INVOICE_PROCESSING)
    made = Scene(world)
    yield made
    assert made.watcher.stop(10) == 0, "all ended when they were asked to"


@pytest.fixture
def proxy(scene: Scene) -> Iterator[Proxy]:
    """Stands before idom's mailbox."""
    with Proxy(scene.world.user.host, scene.world.user.tls_port) as made:
        scene.settings(imap_port=made.port)
        yield made


def test_new_mail_is_in_the_ledger_within_two_seconds(scene: Scene):
    scene.follow()
    scene.until_idle()
    for count in (1, 2, 3):
        scene.world.deliver(subject=f"Mail {count}")
        scene.until_stored(count)
    scene.until("the news", lambda: scene.news == [("idom", "INBOX")] * 3)
    counts = scene.watcher.counts()
    assert (counts.mailboxes, counts.waiting) == (1, 0)
    assert counts.last_news is not None


def test_idle_is_issued_anew_on_the_same_connection(scene: Scene, proxy: Proxy):
    scene.watcher._policy = WatchPolicy(idle=0.1)
    scene.follow()
    scene.until_idle()
    looks = set()

    def looked_often() -> bool:
        looks.add(scene.watch().searched_at)
        return len(looks) > 4

    scene.until("searches after each IDLE", looked_often)
    assert proxy.accepted == 1


def test_a_server_that_restarts_is_connected_again(scene: Scene):
    with DovecotServer() as dovecot:
        user = dovecot.new_user()
        # without TLS: Dovecot's own TLS proxy keeps a dead connection open for ten seconds more
        scene.settings(imap_port=user.port, user=user.name, imap_tls="none")
        scene.follow()
        scene.until_idle()
        with dovecot.down():
            scene.until("the failure", lambda: scene.watch().state in ("waiting", "connecting"))
        user.deliver(scene.world.mail(subject="After the restart"))
        scene.until_stored(1, 8.0)
        scene.until_idle()
        scene.watcher.stop(5)


def test_a_lost_connection_is_noticed_and_its_mail_found(scene: Scene, proxy: Proxy):
    """A router forgot the connection: nothing comes back, not even an end. Noticed when IDLE is issued anew."""
    scene.watcher._policy = WatchPolicy(idle=1.0, answer=1.0, back_off_broken=(0.1, 1))
    scene.follow()
    scene.until_idle()
    proxy.lose()
    scene.world.deliver(subject="In the dark")
    seconds = scene.until_stored(1, 8.0)
    assert proxy.accepted == 2
    assert seconds < 1.0 + 1.0 + 1.0 + WAKE_SECONDS, "IDLE, its answer, the pause, a search"


def test_a_network_that_swallows_everything_ends_no_watch(scene: Scene, proxy: Proxy):
    scene.watcher._policy = WatchPolicy(idle=0.5, answer=0.5, back_off_broken=(0.1, 0.5))
    scene.follow()
    scene.until_idle()
    proxy.swallowing = True
    scene.world.deliver(subject="In the dark")
    scene.until("a failed reconnection", lambda: "did not answer" in (scene.watch().error or ""))
    proxy.swallowing = False
    scene.until_stored(1, 8.0)


def test_mail_that_comes_while_the_server_is_away_is_found(scene: Scene, proxy: Proxy):
    scene.follow()
    scene.until_idle()
    proxy.refusing = True
    assert proxy.cut() == 1
    scene.until("the failure", lambda: scene.watch().error)
    scene.world.deliver(subject="While away")
    proxy.refusing = False
    scene.until_stored(1, 5.0)


def test_a_server_that_closes_each_connection_after_a_moment_loses_nothing(scene: Scene, proxy: Proxy):
    proxy.life = 0.4
    scene.follow()
    for count in (1, 2, 3):
        scene.until("a connection", lambda: scene.watch().searched_at)
        before = proxy.accepted
        scene.until("the next connection", lambda before=before: proxy.accepted > before, 20.0)
        scene.world.deliver(subject=f"Mail {count}")
        scene.until_stored(count, 10.0)


def test_what_happens_to_one_mailbox_stops_no_other(scene: Scene, dovecot: DovecotServer, caplog: Any):
    """Wrong password, untrusted certificate, no such server, silence, garbage: the good one is as quick as ever."""
    caplog.set_level(logging.INFO, "nova.watch")
    with ExitStack() as stack:
        closed = stack.enter_context(closed_port())
        silent = stack.enter_context(black_hole())
        garbage = stack.enter_context(talking_server(lambda client: client.sendall(b"\x00HTTP/1.1 400 no\r\n\r\n")))
        limit = stack.enter_context(talking_server(_too_many))
        scene.add("locked", dovecot.new_user(), password="not-the-password")
        scene.add("untrusted", dovecot.new_user(), ca_file=None)
        scene.add("closed", dovecot.new_user(), imap_port=closed)
        for number in range(10):  # more than may log in at once
            scene.add(f"silent{number}", dovecot.new_user(), imap_port=silent, imap_tls="none")
        scene.add("garbage", dovecot.new_user(), imap_port=garbage, imap_tls="none")
        scene.add("limit", dovecot.new_user(), imap_port=limit, imap_tls="none")
        scene.add("odd", dovecot.new_user())
        scene.settings("odd", user=None)  # a kind of error that nobody expects
        scene.follow()
        scene.until_idle()
        scene.world.deliver(subject="As ever")
        scene.until_stored(1)
        wanted = {
            "locked": "refused the login",
            "untrusted": "certificate",
            "closed": "refused the connection",
            "silent0": "did not answer",
            "garbage": "unexpected response",
            "limit": "Too many",
            "odd": "unsupported operand",
        }
        for slug, text in wanted.items():
            scene.until(f"{slug}: {text}", lambda slug=slug, text=text: text in (scene.watch(slug).error or ""))
        with scene.nova.read() as session:
            said = [row.last_error or "" for row in session.scalars(select(Credential).order_by(Credential.id))]
        assert "refused the login" in said[1], "the mailbox's health is kept"
        assert not said[0]
        assert "not-the-password" not in caplog.text
        scene.watcher.stop(5)


def _too_many(client: Any) -> None:
    client.sendall(b"* BYE [ALERT] Too many simultaneous connections\r\n")


def test_a_wrong_password_is_tried_slowly_and_at_once_when_it_was_changed(scene: Scene, dovecot: DovecotServer):
    user = dovecot.new_user()
    scene.add("late", user, password="wrong")
    scene.follow()
    scene.until("the refusal", lambda: scene.watch("late").state == "waiting")
    tried = dovecot.log().count(f"user=<{user.name}>")
    scene.follow()
    assert dovecot.log().count(f"user=<{user.name}>") == tried
    with scene.nova.session() as session:
        client = find_client(session, "late")
        settings = dict(client.credentials[0].settings)
        set_credential(
            session, scene.world.services.box(), client, "email", settings=settings, secret={"password": user.password}
        )
    scene.follow()
    scene.until_idle("late")


def test_pauses_grow_and_depend_on_the_kind_of_error():
    from nova_pipelines.domain.errors import ConfigurationError, CredentialError, NotFound, TransientError

    policy = WatchPolicy()
    for error, first, longest in (
        (CredentialError("x"), 120, 3600),
        (ConfigurationError("x"), 120, 3600),
        (NotFound("x"), 30, 900),
        (TransientError("x"), 1, 60),
        (RuntimeError("x"), 1, 60),
    ):
        pauses = [policy.pause(error, failures) for failures in (1, 2, 3, 1000)]
        for pause, whole in zip(pauses, (first, 2 * first, 4 * first, longest), strict=True):
            assert whole / 2 <= pause <= whole, (error, pauses)


def test_clients_and_workflows_come_and_go_without_a_restart(scene: Scene, dovecot: DovecotServer):
    scene.follow()
    scene.until_idle()
    user = dovecot.new_user()
    scene.add("new", user)
    text = INVOICE_PROCESSING.read_text().replace("name: Invoice Processing", "name: Archive")
    scene.world.publish(text.replace("folder: INBOX", "folder: Archive"))
    scene.follow()
    assert {route.name for route in scene.watcher.watches} == {
        "idom/INBOX", "idom/Archive", "new/INBOX", "new/Archive"
    }  # fmt: skip
    missing = scene.watch("new", "Archive")
    scene.until("no such folder", lambda: "Archive" in (missing.error or ""))
    scene.until_idle("new")
    user.deliver(scene.world.mail(subject="For the new one"))
    scene.until_stored(1)
    former = scene.watch("new")
    with scene.nova.session() as session:
        update_client(session, find_client(session, "new"), is_active=False)
    scene.follow()
    scene.until("its end", lambda: former.state == "stopped")
    assert {route.slug for route in scene.watcher.watches} == {"idom"}


def test_twenty_mailboxes_at_once_within_the_limit_of_connections(scene: Scene, dovecot: DovecotServer):
    """Nineteen users with one folder each, and one with four folders for which two connections are allowed."""
    text = INVOICE_PROCESSING.read_text()
    for folder in ("A", "B", "C"):
        named = text.replace("name: Invoice Processing", f"name: {folder}")
        scene.world.publish(named.replace("{folder: INBOX,", f"{{clients: [many], folder: {folder},"))
    users = {f"client{number}": dovecot.new_user() for number in range(18)} | {"many": dovecot.new_user()}
    for folder in ("A", "B", "C"):
        users["many"].create_folder(folder)
    scene.connections = 2
    with Proxy(scene.world.user.host, scene.world.user.tls_port) as proxy:
        for slug, user in users.items():
            scene.add(slug, user, **({"imap_port": proxy.port} if slug == "many" else {}))
        scene.follow()
        scene.until("all are connected", lambda: scene.watcher.counts().connected == 21)
        scene.until("all were searched", lambda: all(w.searched_at for w in scene.watcher.watches.values()))
        scene.until_idle("idom", *(slug for slug in users if slug != "many"))
        for slug, user in users.items():
            user.deliver(scene.world.mail(subject=slug))
        for folder in ("A", "B", "C"):
            users["many"].deliver(scene.world.mail(subject=folder), folder=folder)
        scene.until_stored(22, 10.0)
        assert proxy.accepted == proxy.connections == 2
        scene.watcher.stop(5)
    assert sorted(scene.news) == sorted(
        [(slug, "INBOX") for slug in users] + [("many", folder) for folder in ("A", "B", "C")]
    )


def test_a_full_mailbox_is_worked_off_oldest_first_and_the_others_have_their_turns(world: World):
    world.publish(INVOICE_PROCESSING)
    full = world.user
    scene = Scene(world, searches=1)
    scene.follow()
    scene.until_idle()
    other = MailUser("small", full.host, full.port, full.tls_port, full.ca_file, full.home.with_name("small"))
    scene.add("small", other)
    scene.follow()
    scene.until_idle("idom", "small")
    mails = [b"Subject: %d\r\nMessage-ID: <%d@full>\r\n\r\n" % (number, number) for number in range(130)]
    scene.watch("idom").stop()  # they lie there when it looks again
    scene.until("its end", lambda: scene.watch("idom").state == "stopped")
    uids = full.deliver_all(mails)
    scene.watcher.watches.pop(scene.watch("idom").route)
    scene.follow()
    scene.until("the first portion", lambda: len(scene.stored()) >= 20)
    other.deliver(world.mail(subject="small"))
    scene.until_stored(131, 30.0)
    stored = scene.stored()
    assert [message.uid for message in stored if message.credential_id == 1] == uids
    (place,) = [place for place, message in enumerate(stored) if message.credential_id == 2]
    assert place < 130, "the small one did not wait for the end of the full one"
    assert scene.watcher.stop(10) == 0
