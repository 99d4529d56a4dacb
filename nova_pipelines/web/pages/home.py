"""The overview, the health of the mailboxes, and the files that all pages use."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse

from nova_pipelines.database.approvals import count_approvals
from nova_pipelines.database.execution_views import count_by_status
from nova_pipelines.database.executions import STATUSES
from nova_pipelines.database.invoice_views import InvoiceFilter, count_invoices
from nova_pipelines.database.invoice_views import count_by_status as invoices_by_status
from nova_pipelines.database.listings import execution_filter, page_of_executions
from nova_pipelines.database.mail_places import places
from nova_pipelines.database.mailbox_views import view_mailboxes
from nova_pipelines.web.access import PUBLIC
from nova_pipelines.web.pages.common import Context, Looks, page_router
from nova_pipelines.web.pages.rendering import render, static_file
from nova_pipelines.web.seeing import clients_for

router = page_router()
_KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_LATEST = 8


@router.get("", dependencies=[Depends(PUBLIC)])
def begin() -> Response:
    return RedirectResponse("/pages/", 307)


@router.get("/")
def overview(request: Request, context: Context, principal: Looks) -> Response:
    clients = principal.clients
    with context.services.databases.nova.read() as session:
        counts = count_by_status(session, clients)
        waiting = count_approvals(session, open_only=True, clients=clients)
        wanted = execution_filter(clients=clients_for(session, principal, None))
        latest = page_of_executions(session, wanted, skip=0, limit=_LATEST)
    with context.services.databases.facturas.read() as session:
        by_status = invoices_by_status(session, clients)
        sums = count_invoices(session, InvoiceFilter(clients=clients))
    known = [status for status in STATUSES if counts.get(status)]
    return render(
        request,
        "home.html",
        counts=[(status, counts[status]) for status in (*known, *sorted(counts.keys() - set(STATUSES)))],
        waiting=waiting,
        latest=latest,
        by_status=sorted(by_status.items()),
        sums=sums,
    )


@router.get("/mailboxes")
def mailboxes(request: Request, context: Context, principal: Looks) -> Response:
    now = datetime.now(UTC)
    with context.services.databases.nova.read() as session:
        seen = [place for place in places(session) if principal.sees(place.client)]
        views = view_mailboxes(session, seen)
    return render(request, "mailboxes.html", views=views, now=now)


@router.get("/static/{name}", dependencies=[Depends(PUBLIC)])
def static(name: str) -> Response:
    content, digest = static_file(name)
    headers = {
        "Cache-Control": "public, max-age=86400",
        "ETag": f'"{digest}"',
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    }
    return Response(content, media_type=_KINDS[name.rpartition(".")[2]], headers=headers)
