"""`/mailboxes`: how each mailbox is that a workflow reads."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from nova_pipelines.database.mail_places import places
from nova_pipelines.database.mailbox_views import MailboxView, view_mailboxes
from nova_pipelines.database.types import utc_now
from nova_pipelines.nodes.alerts import Limits
from nova_pipelines.nodes.mailbox_rows import mailbox_row
from nova_pipelines.web.access import VIEWER
from nova_pipelines.web.answers import as_json, refusals
from nova_pipelines.web.kept import Kept
from nova_pipelines.web.reads import reads
from nova_pipelines.web.routes.workflows import Context
from nova_pipelines.web.seeing import Who
from nova_pipelines.web.shapes import MailboxShape

router = APIRouter(prefix="/mailboxes", tags=["mailboxes"], dependencies=[Depends(VIEWER)])


@router.get("", response_model=list[MailboxShape], responses=refusals(), summary="How each mailbox is")
@reads
def list_mailboxes(who: Who, context: Context, request: Request) -> Response:
    """As it was a second ago at most."""
    limits, now = Limits.of(context.settings), utc_now()

    def read() -> list[MailboxView]:
        with context.services.databases.nova.read() as session:
            return view_mailboxes(session, places(session))

    kept: Kept[list[MailboxView]] = request.app.state.mailboxes
    views = kept.of(read)
    return as_json([mailbox_row(view, limits, now) for view in views if who.sees(view.place.client)])
