"""Jobs on a PDF: its text (pypdfium2) or its words with their places (pdfplumber). The file is hostile: what
cannot be read is an answer `{"error": encrypted | broken | not_a_pdf, "message": …}`, not an exception."""

from __future__ import annotations

import io
from contextlib import closing
from typing import TYPE_CHECKING

from .code import message_of
from .job import MAX_ERROR, Job, clean

if TYPE_CHECKING:
    import pypdfium2

FIRST_PAGES, LAST_PAGES = 50, 5
MAX_TEXT_BYTES = 2_000_000
MAX_WORDS = 100_000
#: read once before the first fork: pdfium's fonts and ctypes' bindings then cost the jobs nothing (2 ms each)
WARM_UP = (
    b"%PDF-1.4\n"
    b"1 0 obj\n<</Type/Catalog/Pages 2 0 R>>\nendobj\n"
    b"2 0 obj\n<</Type/Pages/Kids[3 0 R]/Count 1>>\nendobj\n"
    b"3 0 obj\n<</Type/Page/Parent 2 0 R/MediaBox[0 0 99 99]/Contents 4 0 R"
    b"/Resources<</Font<</F 5 0 R>>>>>>\nendobj\n"
    b"4 0 obj\n<</Length 27>>\nstream\nBT/F 9 Tf 9 9 Td(nova)Tj ET\nendstream\nendobj\n"
    b"5 0 obj\n<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>\nendobj\n"
    b"trailer\n<</Root 1 0 R>>\n%%EOF\n"
)


def open_pdf(job: Job) -> tuple[bytes, dict | None]:
    """The document, and the answer if it is plainly no PDF."""
    data = job.files["document.pdf"]
    if b"%PDF-" not in data[:1024]:
        return data, {"error": "not_a_pdf", "message": "the file does not begin like a PDF"}
    return data, None


def pages_to_read(count: int) -> list[int]:
    """Page indexes: the first 50 and the last 5; totals stand at one of the two ends."""
    if count <= FIRST_PAGES + LAST_PAGES:
        return list(range(count))
    return [*range(FIRST_PAGES), *range(count - LAST_PAGES, count)]


def run_pdf_text(job: Job) -> object:
    import pypdfium2

    data, answer = open_pdf(job)
    if answer:
        return answer
    try:
        with pypdfium2.PdfDocument(data) as document:
            return read_text(document, job.header["result_bytes"])
    except pypdfium2.PdfiumError as error:
        if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD:
            return {"error": "encrypted", "message": "the PDF needs a password"}
        return {"error": "broken", "message": clean(str(error))[:MAX_ERROR]}


def read_text(document: pypdfium2.PdfDocument, result_bytes: int) -> dict:
    """The text of the first and last pages, within the bounds."""
    import pypdfium2

    count = len(document)
    wanted = pages_to_read(count)
    room = min(MAX_TEXT_BYTES, result_bytes // 2)
    pages, unreadable, truncated = [], [], False
    for index in wanted:
        try:
            text = page_text(document, index)
        except pypdfium2.PdfiumError:
            text = ""
            unreadable.append(index + 1)
        size = len(text.encode())
        if size > room:
            text, truncated, size = text.encode()[:room].decode("utf-8", "ignore"), True, room
        room -= size
        pages.append(text)
    if len(unreadable) == len(wanted):
        return {"error": "broken", "message": "no page of the PDF can be read"}
    return pdf_answer("pypdfium2", pages, count, wanted, unreadable_pages=unreadable, text_truncated=truncated)


def page_text(document: pypdfium2.PdfDocument, index: int) -> str:
    with closing(document[index]) as page, closing(page.get_textpage()) as text:
        return clean(text.get_text_bounded())


def warm_up() -> None:
    """Reads a small PDF of ours, so that every fork has what the first reading sets up."""
    import pypdfium2

    with pypdfium2.PdfDocument(WARM_UP) as document:
        if page_text(document, 0) != "nova":
            raise RuntimeError("pypdfium2 does not read the text of a plain PDF")


def run_pdf_words(job: Job) -> object:
    import pdfplumber

    data, answer = open_pdf(job)
    if answer:
        return answer
    pages, room = [], MAX_WORDS
    try:
        with pdfplumber.open(io.BytesIO(data)) as document:
            count = len(document.pages)
            wanted = pages_to_read(count)
            for index in wanted:
                words = document.pages[index].extract_words()[:room]
                room -= len(words)
                pages.append([word_of(word) for word in words])
                document.pages[index].close()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - pdfminer raises anything on a hostile file
        name = " ".join(type(cause).__name__ for cause in (error, *error.args))
        kind = "encrypted" if "Password" in name or "Encryption" in name else "broken"
        return {"error": kind, "message": clean(message_of(error))}
    return pdf_answer("pdfplumber", pages, count, wanted, text_truncated=room == 0)


def word_of(word: dict) -> dict:
    places = {key: round(float(word[key]), 2) for key in ("x0", "x1", "top", "bottom")}
    return {"text": clean(word["text"]), **places}


def pdf_answer(method: str, pages: list, count: int, wanted: list, **more: object) -> dict:
    read = [index + 1 for index in wanted]
    return {"pages": pages, "page_count": count, "pages_read": read, "method": method, **more}
