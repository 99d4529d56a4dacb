"""Mails as they really come: wrapped, misdeclared, broken, hostile."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nova_pipelines.adapters.mime import MAX_BODY_BYTES, html_to_text, parse_mail
from nova_pipelines.adapters.mime_parts import safe_filename
from nova_pipelines.domain.errors import PermanentError

PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n"


def mail(*, subject: str = "Factura", body: str = "Adjunto la factura.") -> EmailMessage:
    message = EmailMessage()
    message["From"] = "Ana Núñez <ana@proveedor.example>"
    message["To"] = "facturas@idom.example, Otro <otro@idom.example>"
    message["Subject"] = subject
    message["Date"] = "Mon, 03 Aug 2026 10:30:00 +0200"
    message["Message-ID"] = "<1@proveedor.example>"
    message.set_content(body)
    return message


def raw_mail(*lines: str | bytes) -> bytes:
    return b"\r\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)


def part_mail(*headers: str | bytes, content: bytes = PDF) -> bytes:
    """A mail with one body and one part in base64 under the given headers."""
    return raw_mail(
        "From: a@b.example",
        'Content-Type: multipart/mixed; boundary="q"',
        "",
        "--q",
        "",
        "hello",
        "--q",
        *headers,
        "Content-Transfer-Encoding: base64",
        "",
        base64.encodebytes(content),
        "--q--",
        "",
    )


def test_an_ordinary_mail():
    message = mail()
    message["Cc"] = "jefa@idom.example"
    message["Reply-To"] = "cobros@proveedor.example"
    message["In-Reply-To"] = "<0@idom.example>"
    message.add_attachment(PDF, maintype="application", subtype="pdf", filename="factura nº 7.pdf")

    parsed = parse_mail(message.as_bytes())

    assert parsed.message_id == "<1@proveedor.example>"
    assert (parsed.sender, parsed.sender_name) == ("ana@proveedor.example", "Ana Núñez")
    assert parsed.recipients == ("facturas@idom.example", "otro@idom.example", "jefa@idom.example")
    assert parsed.reply_to == "cobros@proveedor.example"
    assert parsed.in_reply_to == "<0@idom.example>"
    assert parsed.subject == "Factura"
    assert parsed.sent_at == datetime(2026, 8, 3, 8, 30, tzinfo=UTC)
    assert parsed.text == "Adjunto la factura."
    (attachment,) = parsed.attachments
    assert attachment.filename == "factura nº 7.pdf"
    assert attachment.media_type == "application/pdf"
    assert attachment.content == PDF
    assert attachment.is_pdf
    assert not parsed.is_auto_reply


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Type: application/octet-stream; name=factura.dat", "Content-Disposition: attachment"],
        ["Content-Type: application/pdf", "Content-Disposition: inline; filename=f.pdf"],
        ["Content-Type: image/png; name=logo.png"],
        ["Content-Type: text/plain"],
        ["Content-Type: nonsense"],
        ["Content-Type: multipart/mixed"],
        ["Content-Type: application/pdf; charset=\xff", "X: y"],
        [],
    ],
    ids=["octet-stream", "inline", "image", "text", "nonsense", "no boundary", "8 bit", "no headers"],
)
def test_a_pdf_is_found_by_its_content(headers):
    (pdf,) = parse_mail(part_mail(*headers)).pdfs
    assert pdf.content == PDF
    assert pdf.filename


def test_a_pdf_may_begin_after_up_to_1024_bytes_and_what_only_claims_to_be_one_is_none():
    assert parse_mail(part_mail("Content-Type: a/b", content=b"\0" * 1000 + PDF)).pdfs
    (fake,) = parse_mail(part_mail("Content-Type: application/pdf; name=x.pdf", content=b"MZ")).attachments
    assert not fake.is_pdf


def test_a_body_that_speaks_of_pdf_is_no_attachment():
    parsed = parse_mail(mail(body="The header is %PDF-1.4, says the standard.").as_bytes())
    assert parsed.attachments == ()
    assert "%PDF-1.4" in parsed.text


@pytest.mark.parametrize("encoding", ["base64 ", "BASE64", "base64;", " base64 (it is)"])
def test_a_sloppy_transfer_encoding_loses_no_pdf(encoding):
    raw = part_mail("Content-Type: application/pdf").replace(b": base64", f": {encoding}".encode())
    assert parse_mail(raw).pdfs[0].content == PDF


def test_pdfs_of_forwarded_mails_are_found():
    inner = mail()
    inner.add_attachment(PDF, maintype="application", subtype="pdf", filename="dentro.pdf")
    outer = mail(subject="RV: Factura")
    outer.add_attachment(inner)
    as_file = mail()
    as_file.add_attachment(outer.as_bytes(), maintype="application", subtype="octet-stream", filename="m.eml")

    assert [pdf.filename for pdf in parse_mail(outer.as_bytes()).pdfs] == ["dentro.pdf"]
    assert [pdf.filename for pdf in parse_mail(as_file.as_bytes()).pdfs] == ["dentro.pdf"]
    assert parse_mail(outer.as_bytes()).text == "Adjunto la factura."


def test_a_forwarded_mail_in_base64_is_entered_too():
    inner = mail()
    inner.add_attachment(PDF, maintype="application", subtype="pdf", filename="dentro.pdf")
    raw = part_mail("Content-Type: message/rfc822", content=inner.as_bytes())
    assert [pdf.filename for pdf in parse_mail(raw).pdfs] == ["dentro.pdf"]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"attachment; filename*=UTF-8''factura%20n%C2%BA%207.pdf", "factura nº 7.pdf"),
        (b"attachment; filename*0*=UTF-8''factura%20; filename*1=siete.pdf", "factura siete.pdf"),
        (b'attachment; filename="=?utf-8?B?ZmFjdHVyYSDDsS5wZGY=?="', "factura ñ.pdf"),
        (b'attachment; filename="=?iso-8859-1?Q?a=F1o.pdf?="', "año.pdf"),
        ("attachment; filename=año.pdf".encode(), "año.pdf"),
        (b"attachment; filename=a\xf1o.pdf", "año.pdf"),
        (b'attachment; filename="../../etc/passwd"', "passwd"),
        (b'attachment; filename="C:\\\\temp\\\\f.pdf"', "f.pdf"),
        (b"attachment; filename*=utf-8''a%00%0d%0ab%2F..%2Fc.pdf", "c.pdf"),
        (b"attachment; filename*=utf-8''%E2%80%AEfdp.exe", "fdp.exe"),
        (b"attachment; filename*=nonsense''a.pdf", "a.pdf"),
        (b'attachment; filename="..."', "document.pdf"),
        (b"attachment", "document.pdf"),
        (b"attachment; filename*" + b"9" * 5000 + b"=x", "document.pdf"),
    ],
)
def test_file_names_are_decoded_and_made_safe(header, expected):
    (pdf,) = parse_mail(part_mail("Content-Type: a/b", b"Content-Disposition: " + header)).pdfs
    assert pdf.filename == expected


def test_a_long_file_name_keeps_its_ending():
    assert safe_filename("x" * 500 + ".pdf") == "x" * 196 + ".pdf"
    assert len(safe_filename("x" * 500)) == 200


@pytest.mark.parametrize(
    ("header", "sender", "name"),
    [
        ("ana@x.example", "ana@x.example", ""),
        ("ana@x.example (Ana)", "ana@x.example", "Ana"),
        ('"Núñez, Ana" <ana@x.example>', "ana@x.example", "Núñez, Ana"),
        ("=?utf-8?q?N=C3=BA=C3=B1ez=2C_Ana?= <ana@x.example>", "ana@x.example", "Núñez, Ana"),
        ("jefe@trusted.example <evil@x.example>", "evil@x.example", "jefe@trusted.example"),
        ('"jefe@trusted.example" <evil@x.example>', "evil@x.example", "jefe@trusted.example"),
        # the encoded word decodes to an address: structure must not come out of it
        ("=?utf-8?q?jefe=40trusted.example=3E=2C?= <evil@x.example>", "evil@x.example", "jefe@trusted.example>,"),
        ("<jefe@trusted.example> <evil@x.example>", "", ""),
        ('"Ana <ana@x.example>', "ana@x.example", ""),
        ("undisclosed-recipients:;", "", ""),
        ("Equipo: ana@x.example, b@x.example;", "ana@x.example", ""),
        ("nobody", "", ""),
        ("a@b@c", "", ""),
        ("((((" * 1000, "", ""),
    ],
)
def test_the_sender_is_the_address_that_is_really_meant(header, sender, name):
    parsed = parse_mail(raw_mail("From: " + header, "", "x"))
    assert (parsed.sender, parsed.sender_name) == (sender, name)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("=?utf-8?B?RmFjdHVyYSDigqw=?=", "Factura €"),
        ("=?utf-8?B?RmFjdHVyYSDi?= =?utf-8?B?gqw=?=", "Factura €"),
        ("=?utf-8?q?dos?= =?utf-8?q?_palabras?= y =?iso-8859-1?q?m=E1s?=", "dos palabras y más"),
        ("=?nonsense?q?hola?=", "hola"),
        ("=?punycode?q?hola?=", "hola"),
        ("=?utf-8?b?!?=", "=?utf-8?b?!?="),
        ("a =?utf-8?q?=00=0D=0ABcc:_x=40y?= b", "a Bcc: x@y b"),
        ("''' + __import__('os').system('id') + '''", "''' + __import__('os').system('id') + '''"),
    ],
)
def test_subjects_are_decoded_and_stay_one_line(header, expected):
    assert parse_mail(raw_mail("Subject: " + header, "", "x")).subject == expected


def test_bytes_beyond_ascii_in_headers_and_unknown_charsets_in_bodies():
    raw = raw_mail(b"Subject: a\xf1o", b"Content-Type: text/plain; charset=x-unknown", b"", b"a\xf1o \x00!")
    parsed = parse_mail(raw)
    assert (parsed.subject, parsed.text) == ("año", "año !")


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 99 Abc 2026", "Mon, 03 Aug 99999 10:00:00 +9999"])
def test_a_date_that_is_none(date):
    assert parse_mail(raw_mail("Date: " + date, "", "x")).sent_at is None


def test_html_is_shown_as_text_when_there_is_no_plain_body():
    message = EmailMessage()
    message.set_content(
        "<html><head><style>p{}</style></head><body><p>Total&nbsp;&lt;b&gt;: 5&nbsp;€</p><script>x()</script>"
        "<div>Adiós</div></body></html>",
        subtype="html",
    )
    assert parse_mail(message.as_bytes()).text == "Total\xa0<b>: 5\xa0€\nAdiós"
    assert html_to_text("a < b <br> c") == "a < b\nc"


def test_the_body_is_capped_at_whole_characters():
    text = parse_mail(mail(body="€" * 60_000).as_bytes()).text
    assert len(text.encode()) <= MAX_BODY_BYTES
    assert set(text) == {"€"}
    assert len(text) == MAX_BODY_BYTES // 3


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "Precedence: bulk",
        "X-Auto-Response-Suppress: DR, OOF, AutoReply",
        "List-Id: <news.x.example>",
        "Return-Path: <>",
        "From: MAILER-DAEMON@x.example",
        "Content-Type: multipart/report; boundary=q",
    ],
)
def test_automatic_mails_are_known(header):
    assert parse_mail(raw_mail(header, "", "x")).is_auto_reply


@pytest.mark.parametrize("header", ["Auto-Submitted: no", "X-Auto-Response-Suppress: DR", "X-Other: 1"])
def test_mails_of_people_are_not_taken_for_automatic(header):
    assert not parse_mail(raw_mail(header, "", "x")).is_auto_reply


def nested(depth: int, lines: int = 1) -> bytes:
    head = [line for i in range(depth) for line in (f"Content-Type: multipart/mixed; boundary=b{i}", "", f"--b{i}")]
    return raw_mail("From: a@b.example", *head, "", *["x"] * lines)


def forwarded(depth: int) -> bytes:
    return raw_mail(*["Content-Type: message/rfc822", ""] * depth, "From: a@b.example", "", "x")


@pytest.mark.parametrize(
    "raw",
    [
        nested(1) + b"\r\n--b0\r\n\r\nx" * 300,
        nested(2000),
        forwarded(20),
        forwarded(5000),
        raw_mail("Content-Type: x/y" + ";" * 1_000_000, "", "x"),
        raw_mail('Content-Disposition: x; filename="' + ';"' * 500_000, "", "x"),
        raw_mail("Content-Type: x/y;", *[" a=b;"] * 100_000, "", "x"),
        raw_mail(*["X: y"] * 100_000, "", "x"),
    ],
    ids=["parts", "nested", "forwards", "forwards5000", "semicolons", "quotes", "continuation", "headers"],
)
def test_a_mail_built_to_be_expensive_is_refused_soon(raw):
    start = time.perf_counter()
    with pytest.raises(PermanentError) as refused:
        parse_mail(raw)
    assert refused.value.remedy
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("raw", [nested(150, 200_000), nested(150) + b"\r\n--b" * 400_000], ids=["lines", "dashes"])
def test_many_lines_below_many_boundaries_cost_little(raw):
    """The stdlib's parser compares each line with each of them: half a minute."""
    start = time.process_time()
    assert parse_mail(raw).sender == "a@b.example"
    assert time.process_time() - start < 3


def test_an_indented_body_is_no_endless_header():
    parsed = parse_mail(raw_mail("Content-Type: text/plain", "", *["    code"] * 5000))
    assert len(parsed.text) > 8192


LINES = st.sampled_from(
    [
        b"From: a <a@b.example>",
        b"From: \"'=?utf-8?q?=FF?=<@(,;:>",
        b"Subject: =?utf-8?b?\xff?= \x00",
        b"Content-Type: multipart/mixed; boundary=q",
        b"Content-Type: multipart/mixed; boundary*0*=''q; boundary*9" + b"9" * 5000,
        b"Content-Type: message/rfc822",
        b"Content-Type: message/delivery-status",
        b"Content-Type: text/html; charset=undefined",
        b"Content-Type: text/plain; charset*=a'b",
        b"Content-Type: text/plain; charset=\x00",
        b"Content-Transfer-Encoding: uuencode",
        b"Content-Transfer-Encoding: base64",
        b"Content-Disposition: attachment; filename*0*=x'y'%ff; filename*1=\xff",
        b"Content-Disposition: attachment; filename*=idna''%ff%fe",
        b"Date: Mon, 31 Feb 2026 25:61:61 +99999999999",
        b"Message-ID: <\r\n \xff>",
        b"begin 644 x",
        b"--q",
        b"--q--",
        b"",
        b"",
    ]
)


@given(st.lists(st.one_of(LINES, st.binary(max_size=40)), max_size=30))
def test_whatever_comes_is_clean_text_or_refused(lines):
    try:
        parsed = parse_mail(b"\r\n".join(lines))
    except PermanentError:
        return
    names = [attachment.filename for attachment in parsed.attachments]
    for text in (parsed.sender, parsed.sender_name, parsed.subject, parsed.message_id or "", parsed.text, *names):
        assert "\0" not in text
        assert text.encode("utf-8").decode("utf-8") == text
    for line in (parsed.sender, parsed.sender_name, parsed.subject, parsed.message_id or "", *names):
        assert "\n" not in line
        assert "\r" not in line
    for name in names:
        assert 0 < len(name) <= 200
        assert "/" not in name
        assert name not in (".", "..")
