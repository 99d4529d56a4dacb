"""Mails that NOVA writes: threads that programs find, names beyond ASCII, and no header of somebody else's."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nova_pipelines.adapters.compose import OWN_ID, Outgoing, bounded_thread, compose, own_message_id, wire_address
from nova_pipelines.adapters.smtp import SmtpConfig, send
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink

#: as Exchange makes them: longer than a line of a header
LONG = "<AM0PR04MB4711A7B2C9D0E1F2A3B4C5D6E7F8A9B0@AM0PR04MB4711.eurprd04.prod.outlook.com>"


def outgoing(**changes) -> Outgoing:
    values = {
        "sender": "facturas@idom.example",
        "sender_name": "IDOM, S.A.",
        "recipient": "ana@proveedor.example",
        "recipient_name": "Ana Núñez «Compras»",
        "subject": "Re: Factura nº 7",
        "body": "Hola\n",
        "message_id": "<nova.1.0123456789abcdef@idom.example>",
        "date": datetime(2026, 11, 20, tzinfo=UTC),
        "answer": True,
        "in_reply_to": LONG,
        "thread": ("<first@x.example>", LONG),
    }
    return Outgoing(**(values | changes))


def over_the_wire(mail: Outgoing, sink: SmtpSink) -> tuple[bytes, EmailMessage]:
    config = SmtpConfig(sink.host, sink.port, tls="none")
    before = len(sink.messages)
    send(config, compose(mail), sender=mail.sender, recipients=[mail.recipient])
    received = sink.messages[before]
    return received.raw, received.message


def test_an_answer_is_found_in_its_thread(smtp_sink: SmtpSink):
    raw, received = over_the_wire(outgoing(), smtp_sink)
    assert f"In-Reply-To: {LONG}\r\n".encode() in raw  # not encoded, not broken
    assert f"References: <first@x.example>\r\n {LONG}\r\n".encode() in raw
    assert (received["To"].addresses[0].display_name, received["To"].addresses[0].addr_spec) == (
        "Ana Núñez «Compras»",
        "ana@proveedor.example",
    )
    assert received["From"].addresses[0].display_name == "IDOM, S.A."
    assert received["Subject"] == "Re: Factura nº 7"
    assert (received["Auto-Submitted"], received["X-Auto-Response-Suppress"]) == ("auto-replied", "All")
    assert received["X-Loop"] == "nova-pipelines"
    _, other = over_the_wire(outgoing(answer=False, in_reply_to=None, thread=()), smtp_sink)
    assert other["Auto-Submitted"] == "auto-generated"
    assert other["References"] is other["In-Reply-To"] is None


EVIL = st.text(alphabet=st.sampled_from('a<>@,;:"\\\r\n\t\x00\x0b\x85\u2028\ud800é='), max_size=30)


@settings(max_examples=50, deadline=None)
@given(EVIL, EVIL, EVIL, st.lists(EVIL, max_size=5), EVIL)
def test_no_value_makes_a_header(name: str, subject: str, parent: str, thread: list[str], body: str):
    evil = "\r\nBcc: evil@x.example\r\n\r\n"
    mail = outgoing(
        recipient_name=name + evil + name,
        subject=subject + evil,
        in_reply_to=parent + evil,
        thread=(*thread, evil, f"<a@b>{evil}"),
        body=body,
    )
    parsed = message_from_bytes(compose(mail).as_bytes(policy=policy.SMTP), policy=policy.default)
    assert [key for key in parsed if key.lower() not in EXPECTED] == []
    assert parsed["To"].addresses[0].addr_spec == "ana@proveedor.example"
    assert len(parsed["To"].addresses) == 1
    assert not parsed.defects


EXPECTED = {
    *("from", "to", "subject", "message-id", "date", "auto-submitted", "x-auto-response-suppress", "x-loop"),
    *("in-reply-to", "references", "mime-version", "content-type", "content-transfer-encoding"),
}


def test_addresses_beyond_ascii():
    with SmtpSink(utf8=True) as sink:
        raw, _ = over_the_wire(outgoing(recipient="josé@correo.example"), sink)
        assert sink.messages[0].recipients == ["josé@correo.example"]
        assert "<josé@correo.example>\r\n".encode() in raw
    with SmtpSink() as plain:  # a domain alone needs no SMTPUTF8
        raw, received = over_the_wire(outgoing(recipient="ana@señal.example", sender="a@ñ.example"), plain)
        assert plain.messages[0].recipients == ["ana@xn--seal-hqa.example"]
        assert received["To"].addresses[0].addr_spec == "ana@xn--seal-hqa.example"
        assert raw.isascii()
    assert wire_address(f"a@{'ñ' * 70}.example").isascii() is False  # no label: left as it is, for the server to judge


@pytest.mark.parametrize("address", ["", "a b@x.example", "a@b@c", "a@x.example\r\nBcc: b@x.example", "<>"])
def test_an_address_that_is_none(address: str):
    with pytest.raises(PermanentError, match="no mail address"):
        compose(outgoing(recipient=address))


def test_a_thread_is_bounded_and_keeps_its_beginning_and_end():
    ids = [f"<{number}@x>" for number in range(100)]
    assert bounded_thread([*ids[:3], ids[1], "rubbish", "<a b@c>", "<ñ@x>"]) == tuple(ids[:3])
    assert bounded_thread(ids) == ("<0@x>", *ids[-19:])


def test_our_ids_are_known_again():
    one = own_message_id(7, "tell", "a@ñ.example")
    assert OWN_ID.fullmatch(one)
    assert one == own_message_id(7, "tell", "a@ñ.example") != own_message_id(8, "tell", "a@ñ.example")
    assert one.isascii()
