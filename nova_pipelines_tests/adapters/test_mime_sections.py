"""The parts of a mail against those that the stdlib's parser finds, on mails that programs write and on noise."""

from __future__ import annotations

import base64
import binascii
import io
import quopri
import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nova_pipelines.adapters import mime_sections
from nova_pipelines.adapters.mail_content import PIECE_BYTES, Content
from nova_pipelines.adapters.mime_sections import sections, transfer_encoding
from nova_pipelines.domain.errors import PermanentError


def ours(raw: bytes) -> list[tuple[str, bytes]]:
    """Media type and decoded content of all parts that hold no others."""
    file = io.BytesIO(raw)
    return [
        (part.headers.get_content_type(), content(file, part.start, part.end, transfer_encoding(part.headers)))
        for part in sections(file, len(raw))
        if not part.holder
    ]


def content(file: io.BytesIO, start: int, end: int, encoding: str = "") -> bytes:
    return b"".join(Content(file, ((start, end),), encoding).pieces())


def theirs(raw: bytes) -> list[tuple[str, bytes]]:
    def leaves(part: Message) -> Iterator[tuple[str, bytes]]:
        payload = part.get_payload()
        if isinstance(payload, list):
            for child in payload:
                yield from leaves(child)
        else:
            yield part.get_content_type(), part.get_payload(decode=True)

    return list(leaves(BytesParser(policy=policy.compat32).parsebytes(raw)))


CONTENTS = st.one_of(st.binary(max_size=200), st.sampled_from([b"--", b"--q\r\n", b"\r\n--\r\n", b"x" * 5000]))
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=100)


@st.composite
def mails(draw: st.DrawFn, depth: int = 0) -> EmailMessage:
    message = EmailMessage()
    message["Subject"] = "x"
    message.set_content(draw(TEXTS), cte=draw(st.sampled_from(["base64", "quoted-printable", "8bit"])))
    for _ in range(draw(st.integers(0, 3))):
        if depth < 2 and draw(st.booleans()):
            message.add_attachment(draw(mails(depth=depth + 1)))
        else:
            message.add_attachment(draw(CONTENTS), maintype="application", subtype="pdf", filename="f.pdf")
    return message


@given(mails(), st.sampled_from([policy.SMTP, policy.default]))
def test_parts_are_those_that_the_stdlib_finds(message, written):
    raw = message.as_bytes(policy=written)
    assert ours(raw) == theirs(raw)


@pytest.mark.parametrize("size", range(mime_sections._WINDOW - 40, mime_sections._WINDOW + 4))
def test_a_boundary_is_found_wherever_a_window_ends(size):
    head = b"Content-Type: multipart/mixed; boundary=qq\r\n\r\n--qq\r\n\r\n"
    raw = head + b"-" * (size - 2) + b"\r\n--qq\r\n\r\nlast\r\n--qq--\r\nepilogue"
    assert ours(raw) == [("text/plain", b"-" * (size - 2)), ("text/plain", b"last")]


def test_an_outer_boundary_ends_what_an_inner_one_left_open():
    raw = b"Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    raw += b"--b\r\n\r\none\r\n--a\r\n\r\ntwo\r\n--b\r\nstill two\r\n--a--\r\n"
    assert ours(raw) == theirs(raw) == [("text/plain", b"one"), ("text/plain", b"two\r\n--b\r\nstill two")]


@pytest.mark.parametrize("newline", [b"\r\n", b"\n", b"\r"])
def test_all_line_ends_do(newline):
    lines = [b"Content-Type: multipart/mixed; boundary=q", b"", b"--q", b"", b"one", b"--q  ", b"", b"two", b"--q--"]
    assert ours(newline.join(lines)) == [("text/plain", b"one"), ("text/plain", b"two")]


def test_a_digest_holds_mails():
    raw = b"Content-Type: multipart/digest; boundary=q\r\n\r\n"
    raw += b"--q\r\n\r\nSubject: a\r\n\r\none\r\n--q\r\n\r\nSubject: b\r\n\r\ntwo"
    assert ours(raw) == theirs(raw) == [("text/plain", b"one"), ("text/plain", b"two")]


@given(st.binary(max_size=400), st.integers(1, 50))
def test_base64_in_pieces_is_base64(data, width):
    encoded = base64.b64encode(data)
    lines = b"\r\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))
    assert content(io.BytesIO(lines), 0, len(lines), "base64") == data


@given(st.binary(max_size=100))
def test_noise_in_base64_is_what_the_stdlib_makes_of_it(noise):
    signs = re.sub(rb"[^A-Za-z0-9+/]", b"", noise)
    assume(len(signs) % 4 != 1)
    bare = noise.replace(b"=", b"")
    assert content(io.BytesIO(bare), 0, len(bare), "base64") == binascii.a2b_base64(bare + b"==")


def test_what_follows_the_padding_is_no_content():
    """A list's footer, say, that a server put below the base64."""
    for end in (b"QUI=", b"QQ=="):
        raw = b"JVBE" + end + b"\r\n-- \r\nUnsubscribe here\r\n"
        assert content(io.BytesIO(raw), 0, len(raw), "base64") == b"%PD" + base64.b64decode(end)


@pytest.mark.parametrize("size", [0, 10, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_long_contents_are_decoded_whole(size):
    data = bytes(range(256)) * (size // 256 + 1)
    for encoding, encoded in (("base64", base64.encodebytes(data)), ("quoted-printable", quopri.encodestring(data))):
        assert content(io.BytesIO(encoded), 0, len(encoded), encoding) == data
    one_line = b"=41=\n" + b"=C3=B1" * (size // 2)
    assert content(io.BytesIO(one_line), 0, len(one_line), "quoted-printable") == b"A" + b"\xc3\xb1" * (size // 2)


def test_uuencoded_contents_are_decoded():
    raw = b"hello\nbegin 644 f.pdf\n" + binascii.b2a_uu(b"%PDF-1.4") + binascii.b2a_uu(b"more") + b"`\nend\nafter"
    assert content(io.BytesIO(raw), 0, len(raw), "x-uuencode") == b"%PDF-1.4more"


@pytest.mark.parametrize(
    "raw", [b"Content-Type: multipart/mixed; boundary=" + b"q" * 2000 + b"\r\n\r\nx", b"X: " + b"y" * 300_000]
)
def test_headers_out_of_all_proportion_are_refused(raw):
    with pytest.raises(PermanentError, match="too complicated"):
        list(sections(io.BytesIO(raw), len(raw)))


@given(st.lists(st.sampled_from([b"--q", b"--q--", b"", b"x", b"Content-Type: multipart/mixed; boundary=q", b"--qq"])))
def test_places_are_within_the_mail_and_in_order(lines):
    raw = b"\r\n".join([b"Content-Type: multipart/mixed; boundary=q", *lines])
    last = 0
    for part in sections(io.BytesIO(raw), len(raw)):
        assert last <= part.start <= part.end <= len(raw)
        last = part.start
