"""`/invoices`: the invoice table of facturas."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.listings import INVOICE_FIELDS, count_invoices, invoice_filter, page_of_invoices
from nova_pipelines.domain.errors import NotFound
from nova_pipelines.web.access import VIEWER
from nova_pipelines.web.answers import KEYED, KeyedPageDep, as_json, as_list, refusals
from nova_pipelines.web.reads import reads
from nova_pipelines.web.routes.executions import Slug
from nova_pipelines.web.routes.workflows import Context
from nova_pipelines.web.seeing import Who, slugs_for
from nova_pipelines.web.shapes import InvoiceShape, InvoiceSummary

router = APIRouter(prefix="/invoices", tags=["invoices"], dependencies=[Depends(VIEWER)])

InvoiceId = Annotated[int, Path(description="Number of an invoice")]


@router.get(
    "",
    response_model=list[InvoiceSummary],
    responses={200: KEYED, **refusals()},
    summary="List invoices, the newest first",
)
@reads
def list_invoices(
    who: Who,
    page: KeyedPageDep,
    context: Context,
    request: Request,
    client: Slug = None,
    status: Annotated[Literal["accepted", "pending_approval", "rejected"] | None, Query()] = None,
) -> Response:
    slugs = slugs_for(who, client)
    wanted = invoice_filter(clients=slugs, status=status)
    with context.services.databases.facturas.look() as session:
        rows = page_of_invoices(session, wanted, skip=page.skip, limit=page.limit, before=page.before)
        key = ("invoices", status, None if slugs is None else tuple(sorted(slugs)))
        totals = request.app.state.totals
        return as_list(rows, page, lambda: totals.of(key, lambda most: count_invoices(session, wanted, most)))


@router.get("/{invoice_id}", response_model=InvoiceShape, responses=refusals(404), summary="An invoice, with its text")
@reads
def show(invoice_id: InvoiceId, who: Who, context: Context) -> Response:
    with context.services.databases.facturas.read() as session:
        invoice = session.get(Invoice, invoice_id) if 0 < invoice_id < 2**31 else None
        if invoice is None or not who.sees(invoice.client_slug or None):
            raise NotFound(f"there is no invoice {invoice_id}")
        return as_json({name: getattr(invoice, name) for name in (*INVOICE_FIELDS, "ocr_text")})
