"""One page of a PDF as a picture, and where some words stand on it. pdfium without JavaScript draws it: nothing in the
file runs, here or where the picture is shown."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from contextlib import closing
from typing import TYPE_CHECKING

from .job import MAX_ERROR, Job, clean
from .pdf import open_pdf

if TYPE_CHECKING:
    import pypdfium2

MAX_PIXELS = 2400
#: fields that are looked for on a page, and characters of one
MAX_FIND, MAX_WORDS = 20, 600


def run_pdf_page(job: Job) -> object:
    import pypdfium2

    data, answer = open_pdf(job)
    if answer:
        return answer
    wanted = json.loads(job.context_json)
    try:
        with pypdfium2.PdfDocument(data) as document:
            count = len(document)
            if not 0 <= wanted["page"] < count:
                return {"error": "no_such_page", "message": f"the document has {count} pages"}
            with closing(document[wanted["page"]]) as page:
                return {**picture(page, wanted["pixels"]), "page_count": count, "boxes": boxes(page, wanted["find"])}
    except pypdfium2.PdfiumError as error:
        kind = "encrypted" if error.err_code == pypdfium2.raw.FPDF_ERR_PASSWORD else "broken"
        return {"error": kind, "message": clean(str(error))[:MAX_ERROR]}


def picture(page: pypdfium2.PdfPage, pixels: int) -> dict:
    """The page so large that its longer side has `pixels`."""
    longer = max(page.get_width(), page.get_height(), 1.0)
    bitmap = page.render(scale=min(pixels, MAX_PIXELS) / longer, rev_byteorder=True, prefer_bgrx=False)
    width, height, channels, stride = bitmap.width, bitmap.height, bitmap.n_channels, bitmap.stride
    raw = bytes(bitmap.buffer)
    bitmap.close()
    # rows without what pdfium puts behind them, each with the filter "none" (PNG, 9.2)
    rows = b"".join(b"\0" + raw[y * stride : y * stride + width * channels] for y in range(height))
    png = png_of(width, height, {1: 0, 3: 2, 4: 6}[channels], rows)
    return {"png": base64.b64encode(png).decode(), "width": width, "height": height}


def png_of(width: int, height: int, colour: int, rows: bytes) -> bytes:
    """A PNG file with 8 bits a channel (ISO/IEC 15948)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def boxes(page: pypdfium2.PdfPage, find: dict) -> dict:
    """Where the words stand: in the line that they were read from, else where they are found first."""
    if page.get_rotation():
        return {}  # the places of characters are those of the page before it was turned
    left, bottom, right, top = page.get_bbox()
    width, height = right - left, top - bottom
    found = {}
    with closing(page.get_textpage()) as text:
        for name, (line, words) in list(find.items())[:MAX_FIND]:
            box = place(text, line[:MAX_WORDS], words[:MAX_WORDS])
            if box and width > 0 and height > 0:
                x0, y0, x1, y1 = box
                parts = ((x0 - left) / width, (top - y1) / height, (x1 - left) / width, (top - y0) / height)
                found[name] = [round(min(max(part, 0.0), 1.0), 4) for part in parts]
    return found


def place(text: pypdfium2.PdfTextPage, line: str, words: str) -> tuple | None:
    """left, bottom, right, top in the page's units."""
    begin = first(text, line, 0)
    # the last of the line, as it was read
    hits = []
    start = begin[0] if begin else 0
    while hit := first(text, words, start):
        if begin and hit[0] + hit[1] > begin[0] + begin[1]:
            break
        hits.append(hit)
        if not begin:
            break
        start = hit[0] + 1
    hit = hits[-1] if hits else begin or first(text, words, 0)
    if not hit:
        return None
    rects = [text.get_rect(index) for index in range(min(text.count_rects(*hit), 50))]
    if not rects:
        return None
    return (min(r[0] for r in rects), min(r[1] for r in rects), max(r[2] for r in rects), max(r[3] for r in rects))


def first(text: pypdfium2.PdfTextPage, words: str, start: int) -> tuple | None:
    if not words.strip():
        return None
    searcher = text.search(words, index=start, match_case=True)
    try:
        return searcher.get_next()
    finally:
        searcher.close()
