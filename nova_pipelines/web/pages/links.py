"""The page that the links of a mail open. Looking decides nothing: programs that read mail open every link.

The token of a link stands behind `#`, which a browser sends to nobody: no access log, proxy or Referer holds it. A
small script puts it into the form and asks for the question by POST; without scripts a person pastes it there.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Form, Request, Response

from nova_pipelines.database.approvals import MAX_NOTE
from nova_pipelines.domain.approval_links import MAX_TOKEN
from nova_pipelines.domain.errors import Conflict
from nova_pipelines.web.access import PUBLIC
from nova_pipelines.web.deciding import decide_by_link, read_link
from nova_pipelines.web.pages.common import Context, page_router
from nova_pipelines.web.pages.rendering import render

router = page_router()
Token = Annotated[str, Form(min_length=1, max_length=MAX_TOKEN)]


@router.get("/decide", dependencies=[Depends(PUBLIC)])
def opened(request: Request) -> Response:
    return render(request, "link.html")


@router.post("/decide/look", dependencies=[Depends(PUBLIC)])
def look(request: Request, context: Context, token: Token) -> Response:
    """What would be decided, about what, and as whom."""
    link, listed = read_link(context, token)
    row = listed.approval
    if not listed.open or row.link_nonce != link.nonce:
        by, when = row.decided_by or "—", row.decided_at
        what = f"approval {row.id} was {row.status} by {by} at {when:%Y-%m-%d %H:%M} UTC" if when else "it is over"
        raise Conflict(what)
    return render(request, "link_confirm.html", link=link, listed=listed, row=row, token=token, max_note=MAX_NOTE)


@router.post("/decide", dependencies=[Depends(PUBLIC)])
def decide(
    request: Request, context: Context, token: Token, note: Annotated[str, Form(max_length=MAX_NOTE)] = ""
) -> Response:
    link, done = decide_by_link(context, token, note=note)
    return render(request, "link_done.html", link=link, done=done)
