"""Pages of invoices: the list with its filter, one invoice beside its document, and exports."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from fastapi.responses import StreamingResponse

from nova_pipelines.database.execution_views import client_slugs
from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.invoice_views import (
    STATUSES,
    InvoiceFilter,
    count_invoices,
    each_invoice,
    find_invoice,
    list_invoices,
)
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.domain.reading.evidence import Place, find_places
from nova_pipelines.web.access import Principal
from nova_pipelines.web.pages.catalogue import language_of
from nova_pipelines.web.pages.common import (
    PAGE_SIZE,
    Context,
    Looks,
    amount_in,
    choice_in,
    date_in,
    number_in,
    page_router,
    pictures_of,
    words_in,
)
from nova_pipelines.web.pages.documents import Pictures, document_of_invoice, pdf_response
from nova_pipelines.web.pages.exports import csv_chunks
from nova_pipelines.web.pages.rendering import plain, render

router = page_router()
#: what was read from a document, in the order of the page
FIELDS = (
    *("supplier_name", "supplier_tax_id", "invoice_number", "issue_date", "due_date"),
    *("net_amount", "tax_amount", "total_amount"),
)
_NAMES = ("q", "client", "status", "supplier", "since", "until", "least", "most")
_XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_EXPORT = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
Drawer = Annotated[Pictures, Depends(pictures_of)]


def filter_of(params: Mapping[str, str], principal: Principal) -> InvoiceFilter:
    """The filter of an address. Raises PermanentError that names what is wrong."""
    return InvoiceFilter(
        clients=principal.clients,
        words=words_in(params, "q"),
        client=words_in(params, "client"),
        status=choice_in(params, "status", STATUSES),
        supplier=words_in(params, "supplier"),
        since=date_in(params, "since"),
        until=date_in(params, "until"),
        least=amount_in(params, "least"),
        most=amount_in(params, "most"),
    )


@router.get("/invoices")
def invoices(request: Request, context: Context, principal: Looks) -> Response:
    params = request.query_params
    wanted, before = filter_of(params, principal), number_in(params, "before")
    with context.services.databases.facturas.read() as session:
        rows = list_invoices(session, wanted, before=before, limit=PAGE_SIZE + 1)
        sums = count_invoices(session, wanted)
    with context.services.databases.nova.read() as session:
        clients = client_slugs(session, principal.clients)
    given = {name: params[name] for name in _NAMES if params.get(name)}
    older = urlencode({**given, "before": rows[PAGE_SIZE - 1].id}) if len(rows) > PAGE_SIZE else None
    return render(
        request,
        "invoices.html",
        rows=rows[:PAGE_SIZE],
        sums=sums,
        given={name: params.get(name, "") for name in _NAMES},
        narrowed=bool(given.keys() - {"q"}),
        query=urlencode(given),
        older=older,
        first=before is None,
        clients=clients,
        statuses=STATUSES,
    )


@router.get("/invoices.csv")
def as_csv(request: Request, context: Context, principal: Looks) -> Response:
    wanted, language = filter_of(request.query_params, principal), language_of(request)
    chunks = csv_chunks(each_invoice(context.services.databases.facturas, wanted), language)
    headers = _EXPORT | {"Content-Disposition": f'attachment; filename="{_file_name()}.csv"'}
    return StreamingResponse(chunks, media_type="text/csv; charset=utf-8", headers=headers)


@router.get("/invoices.xlsx")
def as_xlsx(request: Request, context: Context, principal: Looks) -> Response:
    from nova_pipelines.web.pages.spreadsheets import file_chunks, xlsx_file

    wanted, language = filter_of(request.query_params, principal), language_of(request)
    file = xlsx_file(each_invoice(context.services.databases.facturas, wanted), language)
    headers = _EXPORT | {"Content-Disposition": f'attachment; filename="{_file_name()}.xlsx"'}
    return StreamingResponse(file_chunks(file), media_type=_XLSX, headers=headers)


def _file_name() -> str:
    return f"nova-invoices-{datetime.now(UTC):%Y%m%d-%H%M}"


@router.get("/invoices/{number}")
def invoice(request: Request, context: Context, principal: Looks, number: int) -> Response:
    row = _invoice(context, principal, number)
    places = places_of(row)
    fields = [(name, getattr(row, name), places.get(name)) for name in FIELDS]
    page = places["total_amount"].page if "total_amount" in places else 0
    document = row.document_sha256 is not None or row.pdf_size_bytes is not None
    return render(request, "invoice.html", row=row, fields=fields, page=page, has_document=document)


def places_of(row: Invoice) -> dict[str, Place]:
    """Where the fields of an invoice stand in its text, as far as they are found there."""
    return find_places(row.ocr_text or "", {name: getattr(row, name) for name in FIELDS})


def _invoice(context: Any, principal: Principal, number: int) -> Invoice:
    with context.services.databases.facturas.read() as session:
        return find_invoice(session, number, principal.clients)


@router.get("/invoices/{number}/document.pdf")
def document(context: Context, principal: Looks, number: int) -> Response:
    return pdf_response(document_of_invoice(context.services, _invoice(context, principal, number)))


@router.get("/invoices/{number}/preview")
def preview(request: Request, context: Context, principal: Looks, pictures: Drawer, number: int) -> Response:
    """A part of the page of an invoice: the picture with its marks, or why there is none."""
    row = _invoice(context, principal, number)
    page = number_in(request.query_params, "page") or 0
    try:
        picture = pictures.page(document_of_invoice(context.services, row), page, places_of(row))
    except NovaError as error:
        return render(request, "_preview.html", picture=None, reason=plain(error.message), page=page, base="")
    return render(request, "_preview.html", picture=picture, reason="", page=page, base=f"/pages/invoices/{number}")


@router.get("/invoices/{number}/page.png")
def page_png(request: Request, context: Context, principal: Looks, pictures: Drawer, number: int) -> Response:
    row = _invoice(context, principal, number)
    page = number_in(request.query_params, "page") or 0
    return png_response(pictures.page(document_of_invoice(context.services, row), page, places_of(row)).png)


def png_response(png: bytes) -> Response:
    headers = {"Cache-Control": "private, max-age=300", "X-Content-Type-Options": "nosniff"}
    return Response(png, media_type="image/png", headers=headers)
