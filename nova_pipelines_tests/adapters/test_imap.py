"""The mailbox against a real Dovecot; misbehaving servers where Dovecot behaves too well."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest

from nova_pipelines.adapters import imap
from nova_pipelines.adapters.imap import Mailbox, MailboxConfig
from nova_pipelines.domain.errors import (
    ConfigurationError,
    CredentialError,
    NotFound,
    PermanentError,
    TransientError,
)
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser, require_dovecot
from nova_pipelines_tests.fixtures.sockets import black_hole, closed_port, talking_server


def config(user: MailUser, **changes) -> MailboxConfig:
    values = {
        "host": user.host,
        "port": user.tls_port,
        "user": user.name,
        "password": user.password,
        "tls": "ssl",
        "ca_file": user.ca_file,
        "timeout_seconds": 10.0,
    }
    return MailboxConfig(**(values | changes))


def plain(port: int, **changes) -> MailboxConfig:
    """For the misbehaving servers. The password stands here alone, so that no traceback shows it as source."""
    values = {"host": "127.0.0.1", "port": port, "user": "u", "password": SECRET, "tls": "none", "timeout_seconds": 5}
    return MailboxConfig(**(values | changes))


SECRET = "s3cret!"


def read(mailbox: Mailbox, uid: int, *, max_bytes: int, size: int = 0) -> bytes | None:
    """The whole mail; None if it vanished."""
    pieces: list[bytes] = []
    whole = mailbox.fetch(uid, pieces.append, size=size, max_bytes=max_bytes)
    return b"".join(pieces) if whole else None


@pytest.fixture
def mailbox(mail_user):
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        yield mailbox


def mail(number: int = 1, *, size: int = 0) -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ana Núñez <ana@proveedor.example>"
    message["Subject"] = f"Factura nº {number}"
    message["Date"] = "Mon, 03 Aug 2026 10:30:00 +0200"
    message["Message-ID"] = f"<{number}@proveedor.example>"
    message.set_content("Adjunto")
    if size:
        message.add_attachment(os.urandom(size), maintype="application", subtype="pdf", filename="f.pdf")
    return message


# -- folders and search ------------------------------------------------------------------------------------


def test_a_folder_tells_its_state(mail_user):
    mail_user.deliver(mail())
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.ping()
        first = mailbox.select("INBOX")
        assert first.uidvalidity > 0
        assert first.uidnext == 2
        assert not first.read_only
        assert first.keywords_allowed
        mail_user.deliver(mail(2))
        assert mailbox.select("INBOX").uidnext == 3


def test_a_folder_that_was_made_anew_has_another_uidvalidity(mail_user):
    mail_user.create_folder("Facturas")
    with Mailbox(config(mail_user)) as mailbox:
        before = mailbox.select("Facturas").uidvalidity
        with mail_user.session() as other:
            assert other.delete("Facturas")[0] == "OK"
            assert other.create("Facturas")[0] == "OK"
        assert mailbox.select("Facturas").uidvalidity != before


def test_a_name_beyond_ascii_opens_its_folder(mail_user):
    with Mailbox(config(mail_user)) as mailbox, mail_user.session() as other:
        assert other.create('"A&APE-o &- m&AOE-s"')[0] == "OK"
        assert mailbox.select("Año & más").uidnext == 1


@pytest.mark.parametrize("folder", ["Nowhere", 'a"b', "a\r\nX LOGOUT", ""])
def test_a_folder_that_is_missing_is_not_found(mail_user, folder):
    with Mailbox(config(mail_user)) as mailbox:
        with pytest.raises(NotFound) as missing:
            mailbox.select(folder)
        assert f"127.0.0.1:{mail_user.tls_port}" in str(missing.value)
        assert "create the folder" in str(missing.value)
        mailbox.ping()


@pytest.mark.parametrize(("rights", "read_only"), [("lr", True), ("lrs", False)])
def test_rights_are_seen(mail_user, rights, read_only):
    """Trap 10: without `\\*` among the permanent flags a server drops keywords silently."""
    mail_user.create_folder("Shared")
    uid = mail_user.deliver(mail(), folder="Shared")
    (mail_user.home / "Maildir" / ".Shared" / "dovecot-acl").write_text(f"owner {rights}\n")
    with Mailbox(config(mail_user)) as mailbox:
        state = mailbox.select("Shared")
        assert state.read_only is read_only
        assert not state.keywords_allowed
        assert mailbox.candidates(1) == [uid]
        assert read(mailbox, uid, max_bytes=10_000)
        if read_only:
            with pytest.raises(PermanentError, match="does not let mail 1 be marked as read"):
                mailbox.mark_seen(uid)
        else:
            assert mailbox.mark_seen(uid)
        assert mailbox.select("INBOX").keywords_allowed


def test_candidates_are_the_unread_and_the_new(mail_user):
    uids = mail_user.deliver_all([mail(number) for number in range(6)])
    for uid in (uids[0], uids[2], uids[4]):
        mail_user.flag(uid, r"\Seen")
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        assert mailbox.candidates(1) == uids
        assert mailbox.candidates(0) == uids
        assert mailbox.candidates(uids[3]) == [uids[1], uids[3], uids[4], uids[5]]


def test_a_read_mail_below_the_first_uid_is_no_candidate(mail_user):
    """Trap 6: `UID 99:*` answers with the last mail, though its UID is below 99."""
    mail_user.flag(mail_user.deliver(mail()), r"\Seen")
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        assert mailbox.candidates(99) == []
        assert mailbox.candidates(2) == []
        assert mailbox.candidates(1) == [1]


def test_an_empty_folder_has_no_candidates(mailbox):
    assert mailbox.candidates(1) == []
    assert mailbox.headers([]) == {}


def test_an_open_folder_learns_of_new_mail(mailbox, mail_user):
    assert mailbox.candidates(1) == []
    uid = mail_user.deliver(mail())
    assert mailbox.candidates(1) == [uid]


# -- reading -----------------------------------------------------------------------------------------------


def test_headers_come_in_batches_and_mark_nothing_as_read(mail_user):
    uids = mail_user.deliver_all([mail(number) for number in range(230)])
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        headers = mailbox.headers(uids)
    assert list(headers) == uids
    assert [header.subject for header in headers.values()] == [f"Factura nº {number}" for number in range(230)]
    last = headers[uids[-1]]
    assert last.uid == uids[-1]
    assert last.message_id == "<229@proveedor.example>"
    assert last.sender == "ana@proveedor.example"
    assert last.sent_at == datetime(2026, 8, 3, 8, 30, tzinfo=UTC)
    assert last.size == len(mail(229).as_bytes().replace(b"\n", b"\r\n"))
    assert not any(mail_user.flags().values())


def test_vanished_mails_and_unsolicited_answers_mix_up_no_headers(mail_user):
    """Trap 4: a FETCH that was not asked for comes in between, and vanished mails answer NIL."""
    uids = mail_user.deliver_all([mail(number) for number in range(10)])
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        mail_user.flag(uids[0], r"\Flagged")
        mail_user.flag(uids[5], r"\Answered")
        mail_user.remove(uids[1], uids[2], uids[9])
        headers = mailbox.headers([*uids, 4711])
    left = [uid for uid in uids if uid not in (uids[1], uids[2], uids[9])]
    assert list(headers) == left
    assert [headers[uid].subject for uid in left] == [f"Factura nº {number}" for number in (0, 3, 4, 5, 6, 7, 8)]


def test_a_batch_that_vanished_ends_nothing(mail_user, monkeypatch):
    monkeypatch.setattr(imap, "HEADER_BATCH", 4)
    uids = mail_user.deliver_all([mail(number) for number in range(8)])
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        mail_user.remove(*uids[:4])
        assert list(mailbox.headers(uids)) == uids[4:]


def test_hostile_headers_are_clean(mail_user):
    raw = b"From: jefe@trusted.example <evil@x.example>\r\nSubject: =?utf-8?q?a=00=0D=0Ab?= \xff\r\n"
    raw += b"Message-ID: no brackets\r\nDate: never\r\nX-Big: " + b"x" * 100_000 + b"\r\n\r\nbody\r\n"
    uid = mail_user.deliver(raw)
    empty = mail_user.deliver(b"\r\n")
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        headers = mailbox.headers([uid, empty])
    header = headers[uid]
    assert (header.sender, header.subject, header.sent_at) == ("evil@x.example", "a b ÿ", None)
    assert header.message_id == "no brackets"
    assert (headers[empty].sender, headers[empty].message_id) == ("", None)


@pytest.mark.parametrize("size", [0, 5_000_000])
def test_a_mail_is_read_whole_and_stays_unread(mail_user, size):
    """Trap 5."""
    raw = mail(size=size).as_bytes().replace(b"\n", b"\r\n")
    uid = mail_user.deliver(raw)
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        assert read(mailbox, uid, max_bytes=len(raw)) == raw
    assert mail_user.flags() == {uid: set()}


@pytest.mark.parametrize("chunk", [1, 100, 50])
def test_a_mail_whose_end_meets_that_of_a_piece(mail_user, monkeypatch, chunk):
    monkeypatch.setattr(imap, "CHUNK_BYTES", chunk)
    raw = b"Subject: x\r\n\r\n".ljust(98, b"y") + b"\r\n"
    uid = mail_user.deliver(raw)
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        assert read(mailbox, uid, max_bytes=100) == raw


def test_a_mail_that_is_too_big_is_refused_before_it_is_read(mail_user, monkeypatch):
    uid = mail_user.deliver(mail(size=3_000_000))
    pieces = []
    original = Mailbox._piece
    monkeypatch.setattr(Mailbox, "_piece", lambda self, *place: pieces.append(place) or original(self, *place))
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        with pytest.raises(PermanentError, match="more than the 2000000 allowed"):
            read(mailbox, uid, max_bytes=2_000_000)
        mailbox.ping()
    assert len(pieces) == 1


def test_of_a_mail_of_200_mb_nothing_is_downloaded():
    """The server says so with the headers; it would have to be asked for any of the body."""
    size = 200 * 1024 * 1024
    heard: list[str] = []
    head = f"* 1 FETCH (UID 5 RFC822.SIZE {size} BODY[HEADER.FIELDS (SUBJECT)]<0> {{17}}\r\nSubject: huge\r\n\r\n)"
    with odd_server({"SELECT": SELECTED, "FETCH": head}, heard) as port, Mailbox(plain(port)) as mailbox:
        mailbox.select("INBOX")
        header = mailbox.headers([5])[5]
        asked = len(heard)
        with pytest.raises(PermanentError, match=f"has {size} bytes, more than the 52428800 allowed") as refused:
            read(mailbox, 5, size=header.size, max_bytes=52_428_800)
        assert len(heard) == asked
    assert "NOVA_MAX_MAIL_BYTES" in str(refused.value)


def test_a_vanished_mail_is_none(mailbox, mail_user):
    uid, other = mail_user.deliver_all([mail(1), mail(2)])
    mailbox.ping()
    mail_user.remove(uid)
    assert read(mailbox, uid, max_bytes=10_000) is None  # gone, and the session was not told yet
    assert read(mailbox, uid, max_bytes=10_000) is None
    assert read(mailbox, 4711, max_bytes=10_000) is None
    assert read(mailbox, other, max_bytes=10_000)


def test_a_mail_that_vanishes_while_it_is_read_is_none(mail_user, monkeypatch):
    uid = mail_user.deliver(mail(size=2_500_000))
    original = Mailbox._piece

    def then_remove(self, uid, offset):
        piece = original(self, uid, offset)
        if offset == 0:
            mail_user.remove(uid)
        return piece

    monkeypatch.setattr(Mailbox, "_piece", then_remove)
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        # Dovecot may still hold the open file: then the mail is whole, else it is gone; never a part of it
        raw = read(mailbox, uid, max_bytes=10_000_000)
    assert raw is None or len(raw) > 2_500_000


# -- marking and moving ------------------------------------------------------------------------------------


def test_mark_seen_is_read_back_and_expunges_nothing(mail_user):
    """Trap 9, and imap-tools' `flag`, which sends EXPUNGE."""
    uid, deleted, gone = mail_user.deliver_all([mail(1), mail(2), mail(3)])
    mail_user.flag(deleted, r"\Deleted")
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        mail_user.remove(gone)
        assert mailbox.mark_seen(uid)
        assert mailbox.mark_seen(uid)
        assert not mailbox.mark_seen(gone)
        assert not mailbox.mark_seen(gone)
        assert not mailbox.mark_seen(4711)
    assert mail_user.flags() == {uid: {r"\Seen"}, deleted: {r"\Deleted"}}


def test_a_keyword_is_kept_and_read_back(mail_user):
    """Trap 9: STORE answers OK for a mail that vanished."""
    uid, gone = mail_user.deliver_all([mail(1), mail(2)])
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        mail_user.remove(gone)
        assert mailbox.add_keyword(uid, "$NovaDone")
        assert mailbox.add_keyword(uid, "$NovaDone")
        assert not mailbox.add_keyword(gone, "$NovaDone")
        assert not mailbox.add_keyword(4711, "$NovaDone")
    assert mail_user.flags() == {uid: {"$NovaDone"}}


def test_a_keyword_that_the_server_would_drop_is_refused(mail_user):
    """Trap 10: without `\\*` among the permanent flags; and a server that says it keeps it, and does not."""
    mail_user.create_folder("Shared")
    uid = mail_user.deliver(mail(), folder="Shared")
    (mail_user.home / "Maildir" / ".Shared" / "dovecot-acl").write_text("owner lrs\n")
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("Shared")
        with pytest.raises(
            PermanentError, match="does not keep the keyword NovaDone in the folder 'Shared'"
        ) as refused:
            mailbox.add_keyword(uid, "NovaDone")
        assert "PERMANENTFLAGS" in str(refused.value)
        mailbox.ping()
    selected = f"{SELECTED}\r\n* OK [PERMANENTFLAGS (\\Seen NovaDone)] limited"
    answers = {"SELECT": selected, "STORE": "", "FETCH": "* 1 FETCH (UID 5 FLAGS (\\Seen))"}
    with odd_mailbox(answers) as mailbox, pytest.raises(PermanentError, match="does not have it after STORE"):
        mailbox.add_keyword(5, "novadone")


def test_move_takes_one_mail_and_expunges_no_other(mail_user):
    """Trap 3: by the capabilities of before the login it would be COPY and EXPUNGE of all."""
    uid, deleted, gone = mail_user.deliver_all([mail(1), mail(2), mail(3)])
    mail_user.create_folder("Procesadas")
    mail_user.flag(deleted, r"\Deleted")
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        mail_user.remove(gone)
        assert mailbox.move(uid, "Procesadas")
        assert not mailbox.move(uid, "Procesadas")
        assert not mailbox.move(gone, "Procesadas")
    assert mail_user.flags() == {deleted: {r"\Deleted"}}
    assert list(mail_user.flags("Procesadas").values()) == [set()]


def test_a_move_to_a_missing_folder_leaves_the_mail(mail_user):
    uid = mail_user.deliver(mail())
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        for folder in ("Nowhere", 'a"b', "a\r\nX LOGOUT"):
            with pytest.raises(NotFound):
                mailbox.move(uid, folder)
    assert list(mail_user.flags()) == [uid]


@pytest.mark.parametrize(
    ("capabilities", "left"), [("IMAP4rev1 UIDPLUS", set()), ("IMAP4rev1", {r"\Deleted", r"\Flagged"})]
)
def test_move_on_a_server_without_move(capabilities, left):
    require_dovecot()
    with DovecotServer(f"imap_capability = {capabilities}") as server:
        user = server.new_user()
        uid, deleted = user.deliver_all([mail(1), mail(2)])
        user.create_folder("Procesadas")
        user.flag(deleted, r"\Deleted")
        user.flag(uid, r"\Flagged")
        with Mailbox(config(user)) as mailbox:
            mailbox.select("INBOX")
            assert mailbox.move(uid, "Procesadas")
            assert not mailbox.move(uid, "Procesadas")
        expected = {deleted: {r"\Deleted"}} | ({uid: left} if left else {})
        assert user.flags() == expected
        assert len(user.flags("Procesadas")) == 1


# -- connecting and its failures ---------------------------------------------------------------------------


@pytest.mark.parametrize("tls", ["ssl", "starttls", "none"])
def test_all_ways_to_connect(mail_user, tls):
    port = mail_user.tls_port if tls == "ssl" else mail_user.port
    ca_file = None if tls == "none" else mail_user.ca_file
    with Mailbox(config(mail_user, tls=tls, port=port, ca_file=ca_file)) as mailbox:
        assert mailbox.select("INBOX").uidnext == 1


def test_a_password_beyond_ascii_and_a_server_that_stops():
    require_dovecot()
    with DovecotServer(password="contraseña€") as server:
        user = server.new_user()
        with Mailbox(config(user)) as mailbox:
            mailbox.select("INBOX")
            server.stop()
            for _ in range(2):
                with pytest.raises(TransientError, match=f"127.0.0.1:{user.tls_port}"):
                    mailbox.ping()


@pytest.mark.parametrize("password", ["hunter2hunter2", "contraseña-falsa", "line\r\nX NOOP", "nul\0"])
def test_a_wrong_password_is_said_and_shown_nowhere(mail_user, password):
    wrong = config(mail_user, password=password)
    with pytest.raises(CredentialError) as refused, Mailbox(wrong):
        pass
    assert mail_user.name in str(refused.value) or "control character" in str(refused.value)
    assert f"127.0.0.1:{mail_user.tls_port}" in str(refused.value)
    assert refused.value.remedy
    everything = "".join(traceback.format_exception(refused.value)) + repr(wrong) + repr(Mailbox(wrong))
    assert password not in everything
    assert repr(password)[1:-1] not in everything


def test_a_closed_port():
    with closed_port() as port, pytest.raises(TransientError, match=f"127.0.0.1:{port} refused") as refused:
        Mailbox(plain(port, tls="ssl")).__enter__()
    assert refused.value.remedy
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("tls", ["ssl", "starttls", "none"])
def test_a_server_that_never_answers_costs_bounded_time(tls):
    start = time.monotonic()
    with black_hole() as port, pytest.raises(TransientError, match=f"127.0.0.1:{port} did not answer within"):
        Mailbox(plain(port, tls=tls, timeout_seconds=0.3)).__enter__()
    assert time.monotonic() - start < 5


def test_a_server_that_falls_silent_costs_bounded_time():
    """Also leaving the `with`: the goodbye is not waited for."""

    def silent_after_login(client: socket.socket) -> None:
        answer(client, {"CAPABILITY": "* CAPABILITY IMAP4rev1", "LOGIN": ""})

    start = time.monotonic()
    with talking_server(silent_after_login) as port, Mailbox(plain(port, timeout_seconds=0.3)) as mailbox:
        with pytest.raises(TransientError, match="did not answer within"):
            mailbox.ping()
        with pytest.raises(TransientError, match="not open"):
            mailbox.select("INBOX")
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b"])
def test_a_host_that_does_not_exist(host):
    with pytest.raises((TransientError, ConfigurationError), match="name") as failed:
        Mailbox(plain(993, host=host, tls="ssl")).__enter__()
    assert host in str(failed.value)


@pytest.mark.parametrize("tls", ["ssl", "starttls"])
def test_a_certificate_that_cannot_be_verified_is_refused(mail_user, tls):
    """Trap 1."""
    port = mail_user.tls_port if tls == "ssl" else mail_user.port
    with pytest.raises(ConfigurationError, match="certificate") as unknown:
        Mailbox(config(mail_user, ca_file=None, port=port, tls=tls)).__enter__()
    assert "ca_file" in str(unknown.value)
    with pytest.raises(ConfigurationError, match=r"127\.1"):  # the same machine by a name not certified
        Mailbox(config(mail_user, host="127.1", port=port, tls=tls, timeout_seconds=5)).__enter__()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_file_that_cannot_be_used(mail_user, tmp_path, content):
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"ca\.pem") as unusable:
        Mailbox(config(mail_user, ca_file=str(path))).__enter__()
    assert "PEM" in str(unusable.value)


def test_tls_on_a_plain_port_names_the_setting(mail_user):
    with pytest.raises(TransientError, match="no TLS connection") as failed:
        Mailbox(config(mail_user, port=mail_user.port)).__enter__()
    assert "starttls" in str(failed.value)


# -- servers that misbehave --------------------------------------------------------------------------------


SELECTED = "* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT 9] x"


def answer(client: socket.socket, answers: dict[str, str], heard: list[str] | None = None) -> None:
    """Answers commands by their names: the lines given, then OK, unless they hold a tagged answer (`TAG …`).
    Falls silent at a command that is not among them, until the client goes away."""
    client.sendall(b"* OK hello\r\n")
    for line in client.makefile():
        tag, command, *_ = line.split()
        if heard is not None:
            heard.append(line)
        name = line.split()[2] if command == "UID" else command
        if name not in answers:
            client.recv(1)
            return
        lines = answers[name].replace("TAG", tag)
        ending = "" if f"{tag} " in lines else f"{tag} OK done\r\n"
        client.sendall(((lines + "\r\n" if lines else "") + ending).encode())


@contextmanager
def odd_mailbox(answers: dict[str, str]) -> Iterator[Mailbox]:
    with odd_server({"SELECT": SELECTED} | answers) as port, Mailbox(plain(port)) as mailbox:
        mailbox.select("INBOX")
        yield mailbox


def odd_server(answers: dict[str, str], heard: list[str] | None = None):
    common = {"CAPABILITY": "* CAPABILITY IMAP4rev1", "LOGIN": "", "LOGOUT": "* BYE"}
    return talking_server(lambda client: answer(client, common | answers, heard))


@pytest.mark.parametrize(
    ("reply", "expected", "words"),
    [
        ("NO [AUTHENTICATIONFAILED] Invalid credentials", CredentialError, "Invalid credentials"),
        ("NO [ALERT] Application-specific password required", CredentialError, "app password"),
        ("BAD syntax", CredentialError, "syntax"),
        ("NO [UNAVAILABLE] Temporary failure", TransientError, "Temporary"),
        ("NO [ALERT] Too many simultaneous connections. (Failure)", TransientError, "Too many"),
        ("NO [PRIVACYREQUIRED] Plaintext disallowed", ConfigurationError, "starttls"),
        (f"NO your password is {SECRET}", CredentialError, "refused the login"),
    ],
)
def test_why_a_login_was_refused(reply, expected, words):
    with odd_server({"LOGIN": f"TAG {reply}"}) as port, pytest.raises(expected, match=words) as refused:
        Mailbox(plain(port)).__enter__()
    assert type(refused.value) is expected
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_without_starttls_no_password_is_sent():
    heard: list[str] = []
    with odd_server({}, heard) as port, pytest.raises(ConfigurationError, match="offers no STARTTLS"):
        Mailbox(plain(port, tls="starttls")).__enter__()
    assert len(heard) == 1
    assert "CAPABILITY" in heard[0]


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"* BYE busy\r\n", b"", b"\0\xff\r\n"])
def test_what_is_no_imap_server(greeting):
    server = talking_server(lambda client: client.sendall(greeting))
    with server as port, pytest.raises((TransientError, PermanentError), match=f"127.0.0.1:{port}"):
        Mailbox(plain(port)).__enter__()


@pytest.mark.parametrize(
    ("fetch", "expected"),
    [
        ('* 1 FETCH (UID 5 RFC822.SIZE 7 BODY[]<0> "a \\"b\\" c")', b'a "b" c'),
        ("* 1 FETCH (UID 5 RFC822.SIZE 3 BODY[]<0> {3}\r\nabc FLAGS ())", b"abc"),
        ("* 1 FETCH (RFC822.SIZE 3 BODY[]<0> {3}\r\nabc UID 5)", b"abc"),
        ("* 9 FETCH (FLAGS (\\Seen))\r\n* 1 FETCH (UID 5 RFC822.SIZE 3 BODY[]<0> {3}\r\nabc)", b"abc"),
        ("* 1 FETCH (UID 5 RFC822.SIZE 3 BODY[]<0> {3}\r\nabc)\r\n* 1 FETCH (UID 5 FLAGS ())", b"abc"),
        ("* 2 FETCH (UID 6 BODY[]<0> {3}\r\nxyz)\r\n* 1 FETCH (UID 5 BODY[]<0> {3}\r\nabc)", b"abc"),
    ],
)
def test_all_shapes_of_an_answer(fetch, expected):
    with odd_mailbox({"FETCH": fetch}) as mailbox:
        assert read(mailbox, 5, max_bytes=100) == expected


@pytest.mark.parametrize("fetch", ["", "* 1 FETCH (UID 5 BODY[]<0> NIL)", "* 1 FETCH (UID 5 FLAGS ())"])
def test_no_content_for_a_mail_that_is_there_is_no_vanished_mail(fetch):
    answers = {"FETCH": fetch, "NOOP": "", "SEARCH": "* SEARCH 5"}
    with odd_mailbox(answers) as mailbox:
        for _ in range(2):  # the connection stays in use: the next mail may be whole
            with pytest.raises(TransientError, match="still there"):
                read(mailbox, 5, max_bytes=100)


@pytest.mark.parametrize("size", ["9" * 30, "9" * 5000])
def test_an_impossible_size_is_no_crash(size):
    with odd_mailbox({"FETCH": f"* 1 FETCH (UID 5 BODY[]<0> {{{size}}}"}) as mailbox:
        with pytest.raises(TransientError, match="not IMAP"):
            read(mailbox, 5, max_bytes=100)
        with pytest.raises(TransientError, match="not open"):
            mailbox.ping()


def test_a_server_that_ignores_partial_fetch_is_found_out(monkeypatch):
    monkeypatch.setattr(imap, "CHUNK_BYTES", 2)
    fetch = "* 1 FETCH (UID 5 RFC822.SIZE 3 BODY[] {3}\r\nabc)"
    with odd_mailbox({"FETCH": fetch}) as mailbox, pytest.raises(PermanentError, match="partial FETCH"):
        read(mailbox, 5, max_bytes=100)


def test_a_server_without_uidvalidity_is_refused():
    with pytest.raises(ConfigurationError, match="UIDVALIDITY"), odd_mailbox({"SELECT": "* 1 EXISTS"}):
        pass


def test_gmail_gives_its_own_identity_and_labels():
    """A scripted server: no other server than Google's has X-GM-EXT-1."""
    head = b"Subject: x\r\n\r\n"
    fetch = (
        '* 1 FETCH (X-GM-MSGID 1278455344230334865 X-GM-LABELS ("\\\\Inbox" "Muy (\\"importante\\")" &AOE-reas {3}\r\n'
        f"a]b) UID 5 RFC822.SIZE 10 BODY[HEADER.FIELDS (SUBJECT)]<0> {{{len(head)}}}\r\n{head.decode()})"
    )
    heard: list[str] = []
    answers = {"SELECT": SELECTED, "FETCH": fetch, "CAPABILITY": "* CAPABILITY IMAP4rev1 X-GM-EXT-1"}
    with odd_server(answers, heard) as port, Mailbox(plain(port)) as mailbox:
        mailbox.select("INBOX")
        header = mailbox.headers([5])[5]
    assert (header.provider_id, header.subject, header.size) == ("gmail:1278455344230334865", "x", 10)
    assert header.labels == ("\\Inbox", 'Muy ("importante")', "áreas", "a]b")
    assert any("X-GM-MSGID X-GM-LABELS" in line for line in heard)


def test_of_other_servers_nothing_of_gmail_is_asked(mail_user):
    uid = mail_user.deliver(mail())
    with Mailbox(config(mail_user)) as mailbox:
        mailbox.select("INBOX")
        header = mailbox.headers([uid])[uid]
    assert (header.provider_id, header.labels) == (None, ())


def test_headers_that_one_answer_left_out_are_fetched_singly():
    """Some servers answer NO when one of many mails vanished, with the others before it."""
    head = "* 1 FETCH (UID 5 RFC822.SIZE 3 BODY[HEADER.FIELDS (SUBJECT)]<0> {17}\r\nSubject: five\r\n\r\n)"
    answers = {
        "FETCH": f"{head}\r\nTAG NO [EXPUNGEISSUED] Some messages are gone",
        "SEARCH": "* SEARCH",
    }
    with odd_mailbox(answers) as mailbox:
        assert {uid: header.subject for uid, header in mailbox.headers([5, 6]).items()} == {5: "five"}
