"""PDFs as they came, and pictures of their pages. Both are other people's files: a browser must run nothing of them.

A page is shown as a picture that the sandbox has drawn. Browsers refuse to show a PDF under `sandbox`, phones show none
within a page at all, and the viewers that do show it run its scripts; a picture can be marked where a fact was read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import Response
from sqlalchemy import select

from nova_pipelines.adapters.sandbox.base import Job, Limits, Status, Task
from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.invoice_views import content_of
from nova_pipelines.database.nova import Execution, MessageDocument
from nova_pipelines.domain.errors import NotFound, PermanentError
from nova_pipelines.domain.reading.evidence import Place
from nova_pipelines.nodes.services import Services

#: of the longer side of a picture
PIXELS = 1400
#: bytes of pictures that are kept, and pages that are drawn at the same time
KEPT_BYTES, DRAWN_AT_ONCE = 32 * 1024 * 1024, 2
_LIMITS = Limits(wall_seconds=30, cpu_seconds=20, result_bytes=24 * 1024 * 1024)
#: sandbox without any permission: no script, no form, no window, an origin of its own
PDF_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Picture:
    """A page as a PNG. `boxes`: name → (left, top, width, height) as parts of 1."""

    png: bytes
    width: int
    height: int
    page_count: int
    boxes: Mapping[str, tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class Document:
    content: bytes
    filename: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


def document_of_invoice(services: Services, invoice: Invoice) -> Document:
    """From the document store; where it is not there, as facturas keeps it. Raises NotFound."""
    content: bytes | None = None
    if invoice.document_sha256 and services.store.exists(invoice.document_sha256):
        content = services.store.get(invoice.document_sha256)
    if content is None:
        with services.databases.facturas.read() as session:
            content = content_of(session, invoice.id)
    if content is None:
        raise NotFound(f"invoice {invoice.id} has no document")
    return Document(content, invoice.pdf_filename or f"invoice-{invoice.id}.pdf")


def document_of_execution(services: Services, execution: Execution) -> Document:
    """The PDF that an execution works on. Raises NotFound where it works on none."""
    query = select(MessageDocument).where(
        MessageDocument.message_id == execution.message_id,
        MessageDocument.ordinal == execution.document_ordinal,
        MessageDocument.is_pdf,
    )
    with services.databases.nova.read() as session:
        found = session.scalars(query).first()
    if found is None:
        raise NotFound(f"execution {execution.id} has no document")
    return Document(services.store.get(found.sha256), found.filename)


def has_document(services: Services, execution: Execution) -> bool:
    query = select(MessageDocument.id).where(
        MessageDocument.message_id == execution.message_id,
        MessageDocument.ordinal == execution.document_ordinal,
        MessageDocument.is_pdf,
    )
    with services.databases.nova.read() as session:
        return session.scalar(query.limit(1)) is not None


def pdf_response(document: Document) -> Response:
    """The file itself, to be saved and not to be opened in the browser: whose viewer runs the scripts of a PDF,
    whatever `Content-Security-Policy` says."""
    is_pdf = b"%PDF-" in document.content[:1024]
    headers = {
        "Content-Security-Policy": PDF_POLICY,
        "X-Content-Type-Options": "nosniff",
        "Content-Disposition": disposition(document.filename),
        "Cache-Control": "private, no-store",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
    }
    kind = "application/pdf" if is_pdf else "application/octet-stream"
    return Response(document.content, media_type=kind, headers=headers)


def disposition(filename: str) -> str:
    """A Content-Disposition (RFC 6266) whose name is only a name: no path, no quotes, no turned writing."""
    name = re.sub(r"[^\w.()+ -]", "_", filename.replace("\\", "/").rpartition("/")[2]).strip(" .")[-120:]
    name = name or "document.pdf"
    if not name.lower().endswith(".pdf"):
        name += ".pdf"
    ascii_name = name.encode("ascii", "replace").decode().replace("?", "_")
    return f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"


class Pictures:
    """Draws pages and keeps the last ones. Of one web process; may be asked by several threads."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._kept: OrderedDict[str, Picture] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(DRAWN_AT_ONCE)

    def page(self, document: Document, page: int, places: Mapping[str, Place] | None = None) -> Picture:
        """A page (from 0) with the boxes of those places that are on it. Blocks for about a second at first.

        Raises PermanentError for what cannot be drawn, and what the sandbox raises.
        """
        find = {name: [place.line, place.words] for name, place in (places or {}).items() if place.page == page}
        key = hashlib.sha256(json.dumps([document.sha256, page, find], sort_keys=True).encode()).hexdigest()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._places:
            picture = self._draw(document, page, find)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = picture
                self._size += len(picture.png)
            while self._size > KEPT_BYTES and len(self._kept) > 1:
                self._size -= len(self._kept.popitem(last=False)[1].png)
        return picture

    def _draw(self, document: Document, page: int, find: dict[str, list[str]]) -> Picture:
        wanted = {"page": page, "pixels": PIXELS, "find": find}
        job = Job(task=Task.PDF_PAGE, context=wanted, files={"document.pdf": document.content}, limits=_LIMITS)
        # a session of its own: a local one lives as long as the thread that opened it, and a cloud's is billed
        with self._services.backend().session(network=False, life_seconds=120) as session:
            outcome = session.run(job)
        answer = outcome.result or {}
        if outcome.status is not Status.OK or "error" in answer:
            raise PermanentError(str(answer.get("message") or outcome.error or "the page cannot be drawn")[:300])
        return _checked(answer)


def _checked(answer: dict[str, Any]) -> Picture:
    """The sandbox's answer, which a hostile file may have made. Raises PermanentError."""
    try:
        png = base64.b64decode(answer["png"], validate=True)
        width, height, count = int(answer["width"]), int(answer["height"]), int(answer["page_count"])
        boxes = {str(name): _box(*map(float, box)) for name, box in answer["boxes"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, binascii.Error):
        raise PermanentError("the page could not be drawn: its picture is none") from None
    if not png.startswith(_PNG) or not (0 < width <= 5_000 and 0 < height <= 5_000 and 0 < count < 100_000):
        raise PermanentError("the page could not be drawn: its picture is none")
    return Picture(png, width, height, count, boxes)


def _box(left: float, top: float, right: float, bottom: float) -> tuple[float, float, float, float]:
    if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1):
        raise ValueError("outside of the page")
    return left, top, right - left, bottom - top
