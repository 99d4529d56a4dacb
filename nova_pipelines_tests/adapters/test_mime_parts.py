"""Invoices wrapped in whatever programs wrap them in, and wrappers that are built to hurt."""

from __future__ import annotations

import io
import struct
import time
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email import policy
from email.message import EmailMessage
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from nova_pipelines.adapters import mail_content, mime_parts, zip_files
from nova_pipelines.adapters.cms import cms_kind, signed_content
from nova_pipelines.adapters.mail_content import Scratch
from nova_pipelines.adapters.mime import ParsedMail, parse_mail
from nova_pipelines.adapters.tnef import tnef_files
from nova_pipelines.domain.errors import PermanentError

PDF = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n%%EOF\n"


def mail_with(*files: tuple[str, bytes], media_type: str = "application/octet-stream") -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "ana@proveedores.example", "Factura"
    message.set_content("Adjunto.")
    for name, content in files:
        maintype, subtype = media_type.split("/")
        message.add_attachment(content, maintype=maintype, subtype=subtype, filename=name)
    return message.as_bytes(policy=policy.SMTP)


def zip_of(*files: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return made.getvalue()


def pdf_names(parsed: ParsedMail) -> list[str]:
    assert all(pdf.content.startswith(b"%PDF-") for pdf in parsed.pdfs)
    return [pdf.filename for pdf in parsed.pdfs]


def only_problem(parsed: ParsedMail) -> str:
    (problem,) = parsed.problems
    return problem


# -- ZIP ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_pdfs_in_an_archive_are_found_whatever_it_is_called(method):
    archive = zip_of(("facturas/enero.pdf", PDF), ("léeme.txt", b"hola"), ("sin nombre", PDF + b"2"), method=method)
    parsed = parse_mail(mail_with(("facturas.dat", archive)))
    assert pdf_names(parsed) == ["enero.pdf", "sin nombre"]
    assert [pdf.content for pdf in parsed.pdfs] == [PDF, PDF + b"2"]
    assert parsed.problems == ()


def test_names_in_an_archive_lead_nowhere():
    parsed = parse_mail(mail_with(("f.zip", zip_of(("../../etc/cron.d/f.pdf", PDF), ("..", PDF)))))
    assert pdf_names(parsed) == ["f.pdf", "document.pdf"]


def test_a_mail_in_an_archive_in_an_archive_is_opened_and_no_archive_deeper():
    inner = zip_of(("m.eml", mail_with(("f.pdf", PDF))))
    assert pdf_names(parse_mail(mail_with(("a.zip", zip_of(("b.zip", inner)))))) == ["f.pdf"]
    deeper = parse_mail(mail_with(("a.zip", zip_of(("b.zip", zip_of(("c.zip", zip_of(("f.pdf", PDF)))))))))
    assert deeper.pdfs == ()
    assert "'c.zip' is an archive within archives" in only_problem(deeper)


def test_office_documents_are_no_archives():
    docx = zip_of(("[Content_Types].xml", b"<x/>"), ("word/media/f.pdf", PDF))
    parsed = parse_mail(mail_with(("oferta.docx", docx)))
    assert (parsed.pdfs, parsed.problems) == ((), ())


def encrypted_zip() -> bytes:
    """As Python cannot write one: the flag is set by hand; the content is never asked for."""
    raw = bytearray(zip_of(("factura.pdf", PDF), ("otra.pdf", PDF), method=zipfile.ZIP_STORED))
    raw[raw.index(b"PK\x03\x04") + 6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    return bytes(raw)


def test_an_encrypted_file_in_an_archive_is_named_and_the_others_are_read():
    parsed = parse_mail(mail_with(("facturas.zip", encrypted_zip())))
    assert pdf_names(parsed) == ["otra.pdf"]
    assert parsed.encrypted == "zip"
    assert only_problem(parsed) == "'factura.pdf' in the archive 'facturas.zip' is encrypted"


def bomb(size: int) -> bytes:
    """A PDF that unpacks to `size` bytes, by its own word: what is unpacked is never more than that."""
    return zip_of(("factura.pdf", b"%PDF-" + bytes(size)))


def many_entries() -> bytes:
    return zip_of(*((f"{number}.pdf", PDF) for number in range(1001)), method=zipfile.ZIP_STORED)


def lying_directory() -> bytes:
    raw = bytearray(zip_of(("f.pdf", PDF)))
    struct.pack_into("<L", raw, raw.rindex(b"PK\x05\x06") + 12, 0xFFFFFF)
    return bytes(raw)


def zip64() -> bytes:
    raw = zip_of(("f.pdf", PDF))
    end = raw.rindex(b"PK\x05\x06")
    return raw[:end] + b"PK\x06\x07" + bytes(16) + raw[end:]


def broken_inside() -> bytes:
    raw = bytearray(zip_of(("f.pdf", PDF * 10), method=zipfile.ZIP_STORED))
    raw[raw.index(PDF) + 20] ^= 1
    return bytes(raw)


@pytest.mark.parametrize(
    ("archive", "words"),
    [
        (bomb(3_000_000), r"from \d+ to 3000005 bytes \(a ZIP bomb\?\)"),
        (many_entries(), "1001 files, more than the 1000"),
        (lying_directory(), "more than the 1000 allowed"),
        (zip64(), "ZIP64"),
        (zip_of(("f.pdf", PDF))[:-30], "list of files is missing"),
        (zip_files.SIGNATURE + b"x" * 100, "list of files is missing"),
        (broken_inside(), "damaged"),
        (zip_of(("f.pdf", PDF), method=zipfile.ZIP_LZMA), "compressed in a way"),
    ],
    ids=["bomb", "entries", "directory", "zip64", "cut", "noise", "crc", "lzma"],
)
def test_a_bad_archive_is_said_clearly_and_loses_no_mail(archive, words):
    parsed = parse_mail(mail_with(("a.zip", archive), ("f.pdf", PDF)))
    assert pdf_names(parsed) == ["f.pdf"]
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(only_problem(parsed))
    assert "'a.zip'" in only_problem(parsed)


def test_a_bomb_of_many_small_ones_is_told_by_its_sum(monkeypatch):
    monkeypatch.setattr(zip_files, "MAX_TOTAL_BYTES", 1_000_000)
    parsed = parse_mail(mail_with(("a.zip", zip_of(*((f"{n}.pdf", bytes(200_000)) for n in range(6))))))
    assert "it unpacks to 1200000 bytes (a ZIP bomb?)" in only_problem(parsed)


def test_all_that_a_mail_unpacks_to_is_bounded(monkeypatch):
    monkeypatch.setattr(mail_content, "MAX_SCRATCH_BYTES", 100)
    with Scratch(limit=len(PDF)) as scratch, pytest.raises(PermanentError, match="unpacks to more"):
        parse_mail(io.BytesIO(mail_with(("a.zip", zip_of(("f.pdf", PDF))))), scratch)


@pytest.mark.parametrize(("magic", "name"), [(b"Rar!\x1a\x07\x01", "RAR"), (b"7z\xbc\xaf\x27\x1c", "7z")])
def test_other_archives_are_named(magic, name):
    assert f"is a {name} archive" in only_problem(parse_mail(mail_with(("facturas.pdf", magic + b"x" * 50))))


# -- winmail.dat -------------------------------------------------------------------------------------------


def attribute(level: int, number: int, data: bytes) -> bytes:
    return struct.pack("<BII", level, number, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def properties(*values: tuple[int, int, bytes]) -> bytes:
    """Of (type, id, bytes), each with one value."""
    body = struct.pack("<I", len(values) + 1) + struct.pack("<HHI", 3, 0x0E21, 7)
    for kind, name, value in values:
        body += struct.pack("<HHII", kind, name, 1, len(value)) + value + bytes(-len(value) % 4)
    return body


def tnef_of(*files: tuple[str, bytes | None, Sequence[tuple[int, int, bytes]]]) -> bytes:
    """(short name, content or None, MAPI properties) as [MS-OXTNEF] writes them."""
    made = struct.pack("<IH", 0x223E9F78, 1) + attribute(1, 0x00089006, struct.pack("<I", 0x10000))
    for name, content, values in files:
        made += attribute(2, 0x00069002, bytes(14))
        if content is not None:
            made += attribute(2, 0x0006800F, content)
        made += attribute(2, 0x00018010, name.encode("cp1252") + b"\0")
        if values:
            made += attribute(2, 0x00069005, properties(*values))
    return made


def test_pdfs_in_winmail_dat_are_found_with_their_long_names():
    inner = tnef_of(("dentro.pdf", PDF + b"3", ()))
    raw = tnef_of(
        ("FACTUR~1.PDF", PDF, [(0x001E, 0x3707, b"factura de enero.pdf\0")]),
        ("dos", None, [(0x0102, 0x3701, PDF + b"2"), (0x001F, 0x3707, "año.pdf\0".encode("utf-16-le"))]),
        ("mail", None, [(0x000D, 0x3701, bytes(16) + inner)]),
        ("foto.jpg", b"\xff\xd8\xff", ()),
    )
    parsed = parse_mail(mail_with(("winmail.dat", raw), media_type="application/ms-tnef"))
    assert pdf_names(parsed) == ["factura de enero.pdf", "año.pdf", "dentro.pdf"]
    assert [pdf.content for pdf in parsed.pdfs] == [PDF, PDF + b"2", PDF + b"3"]


def test_winmail_dat_that_is_cut_off_gives_what_came_before():
    raw = tnef_of(("uno.pdf", PDF, ()), ("dos.pdf", PDF, ()))
    assert pdf_names(parse_mail(mail_with(("winmail.dat", raw[:-30])))) == ["uno.pdf"]


def test_winmail_dat_of_a_million_attributes_is_refused_soon():
    raw = struct.pack("<IH", 0x223E9F78, 1) + attribute(1, 1, b"") * 500_000
    start = time.process_time()
    assert "more than 2000 attributes" in only_problem(parse_mail(mail_with(("winmail.dat", raw))))
    assert time.process_time() - start < 2


@given(st.binary(max_size=300), st.integers(0, 400))
def test_noise_in_winmail_dat_is_no_crash(noise, place):
    raw = bytearray(tnef_of(("a.pdf", PDF, [(0x001E, 0x3707, b"x.pdf\0"), (0x000D, 0x3701, bytes(40))])))
    raw[6 + place : 6 + place + len(noise)] = noise
    for found in tnef_files(io.BytesIO(bytes(raw)), len(raw)):
        assert 0 <= found.start < found.end <= len(raw)


# -- signed and encrypted ----------------------------------------------------------------------------------


@cache
def signer() -> tuple[x509.Certificate, rsa.RSAPrivateKey]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Ana")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key


def signed(content: bytes, *options: pkcs7.PKCS7Options) -> bytes:
    certificate, key = signer()
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(certificate, key, hashes.SHA256())
    return builder.sign(Encoding.DER, [pkcs7.PKCS7Options.Binary, *options])


def enveloped(content: bytes) -> bytes:
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(content).add_recipient(signer()[0])
    return builder.encrypt(Encoding.DER, [pkcs7.PKCS7Options.Binary])


def entity() -> bytes:
    """A MIME entity with a text and a PDF, as it stands in an envelope: without From and To."""
    message = EmailMessage()
    message.set_content("Firmado.")
    message.add_attachment(PDF, maintype="application", subtype="pdf", filename="firmada.pdf")
    return message.as_bytes(policy=policy.SMTP)


def smime(content: bytes, kind: str) -> bytes:
    message = EmailMessage()
    message["From"], message["Subject"] = "ana@proveedores.example", "Firmada"
    message.set_content(
        content, maintype="application", subtype="pkcs7-mime", filename="smime.p7m", disposition="inline"
    )
    message.set_param("smime-type", kind)
    return message.as_bytes(policy=policy.SMTP)


def test_a_mail_with_a_signature_beside_it_is_as_any_other():
    signature = signed(entity(), pkcs7.PKCS7Options.DetachedSignature)
    raw = b"From: a@b.example\r\nContent-Type: multipart/signed; protocol=x/y; boundary=q\r\n\r\n"
    raw += (
        b"--q\r\n"
        + entity()
        + b"\r\n--q\r\n"
        + mail_with(("smime.p7s", signature)).partition(b"\r\n\r\n")[2]
        + b"--q--"
    )
    parsed = parse_mail(raw)
    assert pdf_names(parsed) == ["firmada.pdf"]
    assert parsed.text.startswith("Firmado.")
    assert (parsed.encrypted, parsed.problems) == (None, ())


def test_a_mail_within_its_signature_is_opened():
    parsed = parse_mail(smime(signed(entity()), "signed-data"))
    assert pdf_names(parsed) == ["firmada.pdf"]
    assert parsed.text == "Firmado."
    assert (parsed.sender, parsed.encrypted, parsed.problems) == ("ana@proveedores.example", None, ())


def test_a_signed_pdf_is_opened():
    """As Italian and Spanish authorities want them: CAdES."""
    parsed = parse_mail(mail_with(("factura.pdf.p7m", signed(PDF))))
    assert pdf_names(parsed) == ["factura.pdf"]
    assert parsed.pdfs[0].content == PDF


def test_a_signature_written_as_a_stream_is_opened():
    """BER with lengths left open, as `openssl cms -stream` writes it."""
    oid = bytes.fromhex("06092a864886f70d0107")
    pieces = b"".join(b"\x04" + bytes([len(piece)]) + piece for piece in (PDF[:10], PDF[10:]))
    content = b"\x30\x80" + oid + b"\x01" + b"\xa0\x80\x24\x80" + pieces + bytes(6)
    body = b"\x30\x80\x02\x01\x01\x31\x00" + content + b"\x31\x00" + bytes(2)
    raw = b"\x30\x80" + oid + b"\x02" + b"\xa0\x80" + body + bytes(4)
    assert parse_mail(mail_with(("f.p7m", raw))).pdfs[0].content == PDF


@pytest.mark.parametrize(
    ("raw", "how"),
    [
        (smime(enveloped(entity()), "enveloped-data"), "smime"),
        (mail_with(("smime.p7m", enveloped(PDF))), "smime"),
        (
            mail_with(("factura.pdf.asc", b"-----BEGIN PGP MESSAGE-----\n\nhQEMA5\n-----END PGP MESSAGE-----\n")),
            "openpgp",
        ),
        (mail_with(("factura.pdf.gpg", b"\x85\x01\x0c\x03" + b"x" * 100)), "openpgp"),
        (
            b"From: a@b.example\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhQEMA5\r\n-----END PGP MESSAGE-----\r\n",
            "openpgp",
        ),
        (
            b"From: a@b.example\r\nContent-Type: multipart/encrypted; boundary=q; protocol=application/pgp-encrypted"
            b"\r\n\r\n--q\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n--q\r\n"
            b"Content-Type: application/octet-stream\r\n\r\nno armour\r\n--q--",
            "openpgp",
        ),
    ],
    ids=["enveloped", "p7m", "armoured", "binary", "inline", "pgp/mime"],
)
def test_what_is_encrypted_is_recognised(raw, how):
    parsed = parse_mail(raw)
    assert (parsed.encrypted, parsed.pdfs) == (how, ())
    assert "encrypted with" in only_problem(parsed)


def test_a_public_key_or_a_signature_is_not_taken_for_an_encrypted_mail():
    keys = (("key.asc", b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nx"), ("s.asc", b"-----BEGIN PGP SIGNATURE-----\n\nx"))
    assert parse_mail(mail_with(*keys)).problems == ()


@given(st.data())
def test_noise_in_a_signed_file_is_no_crash(data):
    raw = bytearray(signed(PDF))
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=8)):
        raw[place] = value
    if cms_kind(bytes(raw[:100])) == "signed":
        try:
            ranges = signed_content(io.BytesIO(bytes(raw)), len(raw))
        except ValueError:
            return
        assert all(0 <= start <= end <= len(raw) for start, end in ranges)


# -- bombs -------------------------------------------------------------------------------------------------


def test_a_mail_of_10_000_parts_is_refused_soon():
    raw = b"From: a@b.example\r\nContent-Type: multipart/mixed; boundary=q\r\n\r\n" + b"--q\r\n\r\nx\r\n" * 10_000
    start = time.process_time()
    with pytest.raises(PermanentError, match="more than 200 parts"):
        parse_mail(raw)
    assert time.process_time() - start < 1


def test_files_of_archives_count_as_parts(monkeypatch):
    monkeypatch.setattr(mime_parts, "MAX_PARTS", 20)
    with pytest.raises(PermanentError, match="more than 20 parts"):
        parse_mail(mail_with(("a.zip", zip_of(*((f"{number}.pdf", PDF) for number in range(20))))))


def test_archives_and_mails_around_one_another_end(monkeypatch):
    inner = mail_with(("f.pdf", PDF))
    for _ in range(12):
        inner = mail_with(("m.eml", inner))
    with pytest.raises(PermanentError, match="mails inside one another"):
        parse_mail(inner)
