"""Sending against a real aiosmtpd, and against a server that cuts the line at each stage."""

from __future__ import annotations

import socket
import ssl
import time
import traceback
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import pytest

from nova_pipelines.adapters.smtp import SmtpConfig, check, send
from nova_pipelines.domain.errors import (
    ConfigurationError,
    CredentialError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)
from nova_pipelines_tests.fixtures.certificate import Authority, make_authority
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.sockets import black_hole, closed_port, talking_server

SENDER, RECIPIENT = "facturas@idom.example", "ana@proveedor.example"
SECRET = "s3cret!"


def message(body: str = "Está por encima del límite.\n.\n.. fin") -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = f"Facturas IDOM <{SENDER}>"
    mail["To"] = f"Ana Núñez <{RECIPIENT}>"
    mail["Subject"] = "Factura nº 7"
    mail["Message-ID"] = "<execution-1-tell@nova>"
    mail.set_content(body)
    return mail


def config(port: int, **changes) -> SmtpConfig:
    values = {"host": "127.0.0.1", "port": port, "tls": "none", "timeout_seconds": 5.0}
    return SmtpConfig(**(values | changes))


def send_to(settings: SmtpConfig, mail: EmailMessage | None = None, to: tuple[str, ...] = (RECIPIENT,)) -> str:
    return send(settings, mail or message(), sender=SENDER, recipients=to)


# -- a real server -----------------------------------------------------------------------------------------


def test_a_mail_arrives_whole(smtp_sink):
    mail = message()
    mail["Bcc"] = "secreto@idom.example"
    reply = send_to(config(smtp_sink.port), mail, (RECIPIENT, "copia@proveedor.example"))

    assert reply == "250 OK queued as 1"
    (received,) = smtp_sink.wait_for(1)
    assert received.sender == SENDER
    assert received.recipients == [RECIPIENT, "copia@proveedor.example"]
    assert received.raw.isascii()
    assert b"secreto" not in received.raw
    parsed = received.message
    assert parsed["Subject"] == "Factura nº 7"
    assert parsed["To"] == f"Ana Núñez <{RECIPIENT}>"
    assert parsed["Message-ID"] == "<execution-1-tell@nova>"
    assert parsed.get_content().splitlines() == ["Está por encima del límite.", ".", ".. fin"]
    assert mail["Bcc"]


def test_a_lone_dot_ends_nothing(smtp_sink):
    """SMTP smuggling: no line break but CRLF goes over the wire."""
    mail = message("a\r\n.\r\nMAIL FROM:<evil@x.example>\r\n")
    mail.replace_header("Content-Transfer-Encoding", "8bit")
    mail.set_payload("a\n.\nMAIL FROM:<evil@x.example>\r.\rb\n")
    send_to(config(smtp_sink.port), mail)
    (received,) = smtp_sink.wait_for(1)
    assert received.raw.endswith(b"a\r\n.\r\nMAIL FROM:<evil@x.example>\r\n.\r\nb\r\n")


@pytest.mark.parametrize("tls", ["starttls", "ssl"])
@pytest.mark.parametrize("password", ["pw", "contraseña"])
def test_tls_and_login(tls, password):
    with SmtpSink(tls=tls, login=True) as sink:
        sink.password = password
        settings = config(sink.port, tls=tls, ca_file=sink.ca_file, user="nova", password=password)
        check(settings)
        send_to(settings)
        assert len(sink.messages) == 1
        with pytest.raises(CredentialError, match=f"127.0.0.1:{sink.port} refused the login of nova") as refused:
            send_to(config(sink.port, tls=tls, ca_file=sink.ca_file, user="nova", password=SECRET))
        with pytest.raises(CredentialError):
            check(config(sink.port, tls=tls, ca_file=sink.ca_file, user="nova", password=SECRET + "ñ"))
        with pytest.raises(CredentialError, match="530"):
            send_to(config(sink.port, tls=tls, ca_file=sink.ca_file))
        assert len(sink.messages) == 1
    assert SECRET not in "".join(traceback.format_exception(refused.value))
    assert SECRET not in repr(config(1, password=SECRET))


@pytest.mark.parametrize("tls", ["starttls", "ssl"])
def test_a_certificate_that_cannot_be_verified_is_refused(tls):
    with SmtpSink(tls=tls) as sink:
        with pytest.raises(ConfigurationError, match="certificate") as unknown:
            send_to(config(sink.port, tls=tls))
        assert "ca_file" in str(unknown.value)
        with pytest.raises(ConfigurationError, match=r"127\.1"):
            check(config(sink.port, host="127.1", tls=tls, ca_file=sink.ca_file))
        assert sink.messages == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.mark.parametrize("tls", ["starttls", "ssl"])
@pytest.mark.parametrize(
    ("names", "days", "words"),
    [
        (("localhost",), 1, None),
        (("localhost",), -1, "certificate has expired"),
        (("mail.other.example",), 1, "Hostname mismatch"),
        (("*.localhost",), 1, "Hostname mismatch"),
    ],
    ids=["good", "expired", "another host", "wildcard"],
)
def test_a_certificate_of_an_authority(tls, names, days, words, authority: Authority, tmp_path: Path):
    with SmtpSink(tls=tls, certificate=authority.issue(tmp_path, names=names, days=days)) as sink:
        settings = config(sink.port, host="localhost", tls=tls, ca_file=str(authority.ca_file))
        if words is None:
            send_to(settings)
            assert len(sink.wait_for(1)) == 1
            with pytest.raises(ConfigurationError, match="certificate"):  # the system does not know this authority
                send_to(config(sink.port, host="localhost", tls=tls))
        else:
            with pytest.raises(ConfigurationError, match=words):
                send_to(settings)
        assert len(sink.messages) == (words is None)


def test_starttls_that_somebody_stripped_on_the_way(authority: Authority, tmp_path: Path):
    """A man in the middle takes the offer out of the answer of a real server: no name, password or mail goes out."""
    with SmtpSink(tls="starttls", login=True, certificate=authority.issue(tmp_path)) as sink:
        heard: list[bytes] = []

        def strip(client: socket.socket) -> None:
            with socket.create_connection(("127.0.0.1", sink.port), 10) as real:
                lines, answers = client.makefile("rb"), real.makefile("rb")
                client.sendall(answers.readline())
                while line := lines.readline():
                    heard.append(line)
                    real.sendall(line)
                    while answer := answers.readline():
                        client.sendall(answer.replace(b"STARTTLS", b"XXXXXXXX"))
                        if answer[3:4] == b" ":
                            break

        with talking_server(strip) as port, pytest.raises(ConfigurationError, match="offers no STARTTLS"):
            send_to(config(port, tls="starttls", user="nova", password=SECRET, ca_file=str(authority.ca_file)))
    assert [line.split()[0] for line in heard] == [b"ehlo", b"quit"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("550 5.7.1 Relaying denied", PermanentError),
        ("554 5.7.1 Message contains spam", PermanentError),
        ("550 5.1.1 no such user", PermanentError),
        ("552 5.2.2 mailbox full", PermanentError),
        ("530 5.7.57 Client not authenticated to send mail", CredentialError),
        ("550 5.7.57 Client was not authenticated", CredentialError),
        ("550 5.7.60 Client does not have permissions to send as this sender", CredentialError),
        ("535 5.7.139 Authentication unsuccessful, basic authentication is disabled", CredentialError),
        ("450 4.7.1 Greylisted, come back in five minutes", TransientError),
        ("451 4.7.500 Server busy", TransientError),
        ("452 4.2.2 mailbox full", TransientError),
        ("421 4.7.66 TLS 1.0 and 1.1 are not supported", TransientError),
    ],
)
@pytest.mark.parametrize("stage", ["MAIL", "CONTENT"])
def test_enhanced_codes_tell_a_missing_login_from_a_refusal(stage, reply, expected):
    with server_failing_at(stage, reply=reply) as (port, _), pytest.raises(expected) as refused:
        send_to(config(port))
    assert type(refused.value) is expected
    assert reply in str(refused.value)


@pytest.mark.parametrize(
    ("reply", "expected"), [("421 4.3.2 shutting down", TransientError), ("554 go", PermanentError)]
)
def test_a_server_that_refuses_the_greeting_itself(reply, expected):
    """Not that it offers no STARTTLS, as it seems after smtplib's HELO."""
    with server_failing_at("EHLO", reply=reply) as (port, _), pytest.raises(expected, match=reply) as refused:
        send_to(config(port, tls="starttls"))
    assert type(refused.value) is expected


def test_without_starttls_nothing_is_sent(smtp_sink):
    with pytest.raises(ConfigurationError, match="offers no STARTTLS"):
        send_to(config(smtp_sink.port, tls="starttls", user="nova", password=SECRET))
    with pytest.raises(CredentialError, match="offers no login"):
        check(config(smtp_sink.port, user="nova", password=SECRET))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [("550 no such user", PermanentError), ("450 greylisted, come later", TransientError)],
)
def test_one_refused_recipient_means_none_gets_it(reply, expected):
    with SmtpSink(refuse={"nobody@x.example": reply}) as sink:
        with pytest.raises(expected, match=f"nobody@x.example: {reply}") as refused:
            send_to(config(sink.port), to=(RECIPIENT, "nobody@x.example"))
        assert type(refused.value) is expected
        assert sink.messages == []


@pytest.mark.parametrize("address", ["", "nobody", "a@b\r\nDATA", "a b@x.example", "a@x.example>", "a\0@x.example"])
def test_no_address_ends_a_command(smtp_sink, address):
    with pytest.raises(PermanentError):
        send_to(config(smtp_sink.port), to=(address,))
    with pytest.raises(PermanentError):
        send(config(smtp_sink.port), message(), sender=address, recipients=[RECIPIENT])
    with pytest.raises(PermanentError, match="no recipient"):
        send_to(config(smtp_sink.port), to=())
    assert smtp_sink.messages == []


def test_addresses_beyond_ascii_need_a_server_that_takes_them(smtp_sink):
    with pytest.raises(PermanentError, match="beyond ASCII"):
        send_to(config(smtp_sink.port), to=("josé@x.example",))
    with SmtpSink(utf8=True) as sink:
        send_to(config(sink.port), to=("josé@x.example",))
        assert sink.wait_for(1)[0].recipients == ["josé@x.example"]


# -- no server ---------------------------------------------------------------------------------------------


def test_a_closed_port():
    with closed_port() as port, pytest.raises(TransientError, match=f"127.0.0.1:{port} refused") as refused:
        send_to(config(port))
    assert refused.value.remedy


@pytest.mark.parametrize("tls", ["none", "starttls", "ssl"])
def test_a_server_that_never_answers_costs_bounded_time(tls):
    start = time.monotonic()
    with black_hole() as port, pytest.raises(TransientError, match=f"127.0.0.1:{port} did not answer within"):
        send_to(config(port, tls=tls, timeout_seconds=0.3))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b"])
def test_a_host_that_does_not_exist(host):
    with pytest.raises((TransientError, ConfigurationError), match="name"):
        check(config(25, host=host))


def test_tls_on_a_plain_port_names_the_setting(smtp_sink):
    with pytest.raises(TransientError, match="no TLS connection") as failed:
        send_to(config(smtp_sink.port, tls="ssl"))
    assert "starttls" in str(failed.value)


# -- the moment of a failure -------------------------------------------------------------------------------

STAGES = ["GREETING", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT"]
REPLIES = {"GREETING": "220 hi", "EHLO": "250 x", "MAIL": "250 ok", "RCPT": "250 ok", "DATA": "354 go"}


@contextmanager
def server_failing_at(stage: str, *, reply: str | None = None, silent: bool = False):
    """Plays SMTP up to `stage`: there it gives `reply`, falls silent, or cuts the connection. Yields the port
    and what it heard at that moment."""
    heard: list[bytes] = []

    def converse(client: socket.socket) -> None:
        lines = client.makefile("rb")
        current = "GREETING"
        while True:
            if current == stage:
                if silent:
                    client.recv(1)
                    return
                if reply is None:
                    return
                client.sendall(reply.encode() + b"\r\n")
            elif current == "CONTENT":
                client.sendall(b"250 taken\r\n")
            else:
                client.sendall(REPLIES.get(current, "250 ok").encode() + b"\r\n")
            if current == "DATA" and stage != "DATA":
                while (line := lines.readline()) not in (b".\r\n", b""):
                    heard.append(line)
                heard.append(line)
                current = "CONTENT"
                continue
            line = lines.readline()
            if not line:
                return
            heard.append(line)
            current = line.split()[0].decode().upper()

    with talking_server(converse) as port:
        yield port, heard


@pytest.mark.parametrize("silent", [False, True], ids=["cut", "silent"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_lost_connection_is_unknown_only_after_the_content(stage, silent):
    expected = OutcomeUnknown if stage == "CONTENT" else TransientError
    start = time.monotonic()
    with server_failing_at(stage, silent=silent) as (port, heard), pytest.raises(expected) as failed:
        send_to(config(port, timeout_seconds=0.3))
    assert f"127.0.0.1:{port}" in str(failed.value)
    assert type(failed.value) is expected
    assert (b".\r\n" in heard) is (stage == "CONTENT")
    assert time.monotonic() - start < 5


def test_a_connection_cut_within_the_content_is_unknown():
    def cut(client: socket.socket) -> None:
        lines = client.makefile("rb")
        client.sendall(b"220 hi\r\n")
        for reply in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            lines.readline()
            client.sendall(reply)
        lines.read(100_000)

    with talking_server(cut) as port, pytest.raises(OutcomeUnknown, match="may have been delivered"):
        send_to(config(port), message("x" * 70 + "\n" + ("y" * 70 + "\n") * 200_000))


@pytest.mark.parametrize("code", ["421", "450", "550"])
@pytest.mark.parametrize("stage", ["GREETING", "MAIL", "RCPT", "DATA", "CONTENT"])
def test_a_clear_no_is_never_unknown(stage, code):
    expected = PermanentError if code == "550" else TransientError
    with server_failing_at(stage, reply=f"{code} not now") as (port, _), pytest.raises(expected) as refused:
        send_to(config(port))
    assert f"{code} not now" in str(refused.value)
    assert type(refused.value) is expected


@pytest.mark.parametrize("reply", ["nonsense", "354 more", "-1"])
def test_an_answer_without_meaning_to_the_mail_is_unknown(reply):
    with server_failing_at("CONTENT", reply=reply) as (port, _), pytest.raises(OutcomeUnknown):
        send_to(config(port))


def test_a_connection_cut_after_the_yes_is_a_success():
    def cut_after_yes(client: socket.socket) -> None:
        lines = client.makefile("rb")
        client.sendall(b"220 hi\r\n")
        for reply in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            lines.readline()
            client.sendall(reply)
        while lines.readline() != b".\r\n":
            pass
        client.sendall(b"250 \x00queued\xff\r\n")

    with talking_server(cut_after_yes) as port:
        assert send_to(config(port)) == "250 queued�"


def test_a_tls_server_that_cuts_after_the_content(tmp_path):
    from nova_pipelines_tests.fixtures.certificate import make_certificate

    cert, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def cut(client: socket.socket) -> None:
        with context.wrap_socket(client, server_side=True) as secure:
            lines = secure.makefile("rb")
            secure.sendall(b"220 hi\r\n")
            for reply in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
                lines.readline()
                secure.sendall(reply)
            while lines.readline() != b".\r\n":
                pass

    with talking_server(cut) as port, pytest.raises(OutcomeUnknown):
        send_to(config(port, tls="ssl", ca_file=str(cert)))


@pytest.mark.parametrize(("code", "expected"), [("535", CredentialError), ("454", TransientError)])
def test_a_login_that_is_refused_for_now_or_for_good(code, expected):
    def refuse(client: socket.socket) -> None:
        lines = client.makefile("rb")
        client.sendall(b"220 hi\r\n")
        lines.readline()
        client.sendall(b"250-x\r\n250 AUTH PLAIN\r\n")
        lines.readline()
        client.sendall(f"{code} no, not with {SECRET}\r\n".encode())
        lines.readline()

    with talking_server(refuse) as port, pytest.raises(expected, match="refused the login of nova") as refused:
        send_to(config(port, user="nova", password=SECRET))
    assert type(refused.value) is expected
    assert SECRET not in str(refused.value)
