"""Mails that ask people for a decision, through the outbox. Their links are made when they leave, and stored nowhere.

A mail that does not go out keeps nobody from deciding: the trouble is noted beside the question and in the outbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select

from nova_pipelines.adapters.compose import own_message_id
from nova_pipelines.adapters.mail_headers import clean_line
from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.approvals import note_mail_problem
from nova_pipelines.database.nova import OutboxMail
from nova_pipelines.domain.approval_links import PURPOSE, Answer, Link, sign
from nova_pipelines.domain.errors import NovaError, PermanentError, Unavailable
from nova_pipelines.nodes.base import Item
from nova_pipelines.nodes.send_mail import deliver
from nova_pipelines.nodes.services import Services

#: path of the page that a link opens; what follows `#` stays in the browser, so it is in no log of any server
PAGE = "/pages/decide"
_LABELS = (
    ("supplier", "Proveedor / Supplier"),
    ("number", "Factura / Invoice"),
    ("amount", "Importe / Amount"),
    ("issue_date", "Fecha / Date"),
    ("due_date", "Vencimiento / Due"),
    ("from", "De / From"),
    ("subject", "Asunto / Subject"),
    ("document", "Documento / Document"),
)


def tell(services: Services, row: Approval, item: Item, addresses: Sequence[str]) -> Unavailable | None:
    """Sends what has not been sent yet, once to each address; the first mail that is to be tried later, if any."""
    if not addresses:
        return None
    later: list[Unavailable] = []
    problems: list[str] = []
    try:
        if item.client is None:
            raise PermanentError("the execution has no client whose mail account could be used")
        config, sender = services.smtp(item.client)
        for mail_id, address in _rows(services, row, item, sender, addresses):
            try:
                deliver(services, mail_id, config, more=_links(services, row, address))
            except Unavailable as error:
                later.append(error)
            except NovaError as error:
                problems.append(f"{address}: {error}")
    except NovaError as error:
        problems.append(str(error))
    with services.databases.nova.session() as session:
        note_mail_problem(session, row.id, "; ".join([*problems, *(error.message for error in later)]) or None)
    return min(later, key=lambda error: error.after_seconds) if later else None


def _rows(
    services: Services, row: Approval, item: Item, sender: str, addresses: Sequence[str]
) -> list[tuple[int, str]]:
    """(number, address) of the mails of this question in the outbox, which are made at the first call."""
    # a blank never begins a node's id, so no other mail of this execution has such a name
    names = {f" {row.round}.{place} {row.node_id}": address for place, address in enumerate(addresses, start=1)}
    with services.databases.nova.session() as session:
        query = select(OutboxMail).where(OutboxMail.execution_id == item.execution_id, OutboxMail.node_id.in_(names))
        found = {mail.node_id: mail for mail in session.scalars(query)}
        for name, address in names.items():
            if name not in found:
                found[name] = OutboxMail(
                    execution_id=item.execution_id,
                    node_id=name,
                    message_id=own_message_id(item.execution_id, name, sender),
                    sender=sender,
                    sender_name=item.client.name if item.client else None,
                    recipient=address,
                    subject=_subject(row),
                    body=_body(row, item),
                    status="pending",
                )
                session.add(found[name])
        session.flush()
        return [(found[name].id, address) for name, address in names.items()]


def _subject(row: Approval) -> str:
    about = " ".join(str(row.facts[name]) for name in ("supplier", "number", "amount") if name in row.facts)
    return clean_line(f"Aprobación pendiente / Approval needed: {about or row.title}", 250)


def _body(row: Approval, item: Item) -> str:
    lines = [
        f"{item.workflow_name}: {row.title}",
        "",
        *(f"{label}: {row.facts[name]}" for name, label in _LABELS if name in row.facts),
        "",
        f"Decida antes de / Decide before: {_moment(row.deadline_at)}",
        "",
    ]
    return "\n".join(lines)


def _links(services: Services, row: Approval, address: str) -> str:
    def link(answer: Answer) -> str:
        token = sign(key, Link(row.id, answer, row.deadline_at, row.link_nonce, address))
        return f"{services.public_url}{PAGE}#{token}"

    key = services.box().derived(PURPOSE)[0]
    return (
        f"Aprobar / Approve:\n{link('approved')}\n\nRechazar / Reject:\n{link('rejected')}\n\n"
        f"Se confirma en la página que se abre. / You confirm in the page that opens.\n"
        f"Ver / Look: {services.public_url}/pages/approvals/{row.id}\n"
    )


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
