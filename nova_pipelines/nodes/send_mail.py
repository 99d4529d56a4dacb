"""The kind `send_mail`: answers the sender (or writes to somebody else) through an outbox, at most once."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, JsonValue
from sqlalchemy import select

from nova_pipelines.adapters.smtp import send
from nova_pipelines.database.nova import OutboxMail
from nova_pipelines.domain.errors import NovaError, OutcomeUnknown, PermanentError, TransientError
from nova_pipelines.domain.workflow import Node
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.templates import TEMPLATES, render_own, render_template

_NAMES: list[JsonValue] = [*sorted(TEMPLATES)]


def _known(template: str) -> str:
    if template not in TEMPLATES:
        raise ValueError(f"no template {template[:60]!r}: known are {', '.join(sorted(TEMPLATES))}")
    return template


class SendMailNode(Node):
    """Sends one mail: a `template` of NOVA's, or `subject` and `body` (Jinja2 over `context`).

    `to` is an address (or a Jinja2 template of one); without it the sender of the mail is answered.
    Sets `action_taken: email_sent`. Automatic mails are not answered (RFC 3834).
    """

    one_of = (("template",), ("subject", "body"))

    type: Literal["send_mail"]
    template: Annotated[str, Field(json_schema_extra={"enum": _NAMES}), AfterValidator(_known)] | None = None
    subject: str | None = Field(default=None, max_length=1_000)
    body: str | None = Field(default=None, max_length=100_000)
    to: str | None = Field(default=None, max_length=1_000)


@dataclass(frozen=True, slots=True)
class Letter:
    recipient: str
    subject: str
    body: str


def run(node: SendMailNode, item: Item, services: Services) -> Result:
    if item.client is None:
        raise PermanentError(
            f"node {node.id!r} has no client to write for", remedy="give one: nova run WORKFLOW --client SLUG"
        )
    email = item.context.get("email")
    answered = email if isinstance(email, dict) else {}
    if node.to is None and answered.get("automatic"):
        return Result(context=item.context | {"action_taken": "email_not_sent"}, decision="automatic mail")
    letter = write(node, item, answered, services)
    config, sender = services.smtp(item.client)
    row_id = _outbox_row(services, node, item, letter, sender, answered)
    if _begin(services, row_id):
        _send(services, row_id, config)
    context = item.context | {"action_taken": "email_sent"}
    return Result(context=context, metadata={"to": letter.recipient, "mail": letter.subject})


def write(node: SendMailNode, item: Item, answered: dict[str, Any], services: Services) -> Letter:
    """The letter for an item. Raises PermanentError when nobody can be written to or a template fails."""
    if node.template is not None:
        subject, body = render_own(node.template, item.context)
        texts = {"to": node.to or ""}
        rendered = render_template(texts, item, services, node.timeout) if node.to else texts
    else:
        texts = {"subject": node.subject or "", "body": node.body or "", "to": node.to or ""}
        rendered = render_template(texts, item, services, node.timeout)
        subject, body = rendered["subject"], rendered["body"]
    recipient = rendered["to"].strip() if node.to else answered.get("reply_to") or answered.get("from")
    if not isinstance(recipient, str) or "@" not in recipient or any(c in recipient for c in "\r\n,;<> "):
        raise PermanentError(
            f"node {node.id!r} has nobody to write to", remedy="set `to`, or put a mail_fetch node before it"
        )
    return Letter(recipient, " ".join(subject.split())[:250], body)


def message_id(execution_id: int, node_id: str, sender: str) -> str:
    """Deterministic: the same work can be recognised by the receiving side too."""
    digest = hashlib.sha256(f"{execution_id}\x00{node_id}".encode()).hexdigest()[:16]
    return f"<nova.{execution_id}.{digest}@{sender.rpartition('@')[2] or 'localhost'}>"


def _outbox_row(
    services: Services,
    node: SendMailNode,
    item: Item,
    letter: Letter,
    sender: str,
    answered: dict[str, Any],
) -> int:
    with services.databases.nova.session() as session:
        row = session.scalars(select(OutboxMail).filter_by(execution_id=item.execution_id, node_id=node.id)).first()
        if row is None:
            row = OutboxMail(
                execution_id=item.execution_id,
                node_id=node.id,
                message_id=message_id(item.execution_id, node.id, sender),
                sender=sender,
                recipient=letter.recipient,
                subject=letter.subject,
                body=letter.body,
                in_reply_to=answered.get("message_id"),
                status="pending",
            )
            session.add(row)
            session.flush()
        return row.id


def _begin(services: Services, row_id: int) -> bool:
    """True: this call sends. False: it was sent before. Raises OutcomeUnknown if a crash hides which."""
    with services.databases.nova.session() as session:
        row = session.get_one(OutboxMail, row_id, with_for_update=True)
        if row.status == "sent":
            return False
        if row.status in ("pending", "failed"):
            row.status, row.attempts, row.error = "sending", row.attempts + 1, None
            return True
        row.status = "unknown"
        found = row.message_id
    raise OutcomeUnknown(
        f"the mail {found} may have been sent before a crash",
        remedy="look into the sent mails of the account, then mark it or retry it",
    )


def _send(services: Services, row_id: int, config: Any) -> None:
    with services.databases.nova.read() as session:
        row = session.get_one(OutboxMail, row_id)
        message, sender, recipient = _compose(row), row.sender, row.recipient
    try:
        send(config, message, sender=sender, recipients=[recipient])
    except OutcomeUnknown as error:
        _note(services, row_id, "unknown", error)
        raise
    except TransientError as error:
        _note(services, row_id, "pending", error)
        raise
    except NovaError as error:
        _note(services, row_id, "failed", error)
        raise
    _note(services, row_id, "sent", None)


def _note(services: Services, row_id: int, status: str, error: NovaError | None) -> None:
    with services.databases.nova.session() as session:
        row = session.get_one(OutboxMail, row_id)
        row.status, row.error = status, str(error) if error else None
        row.sent_at = datetime.now(UTC) if status == "sent" else None


def _compose(row: OutboxMail) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = row.sender, row.recipient, row.subject
    message["Message-ID"] = row.message_id
    message["Date"] = format_datetime(row.created_at)
    message["Auto-Submitted"] = "auto-replied"  # RFC 3834: other machines must not answer this
    if row.in_reply_to and row.in_reply_to.isascii() and "\n" not in row.in_reply_to:
        message["In-Reply-To"] = message["References"] = row.in_reply_to
    message.set_content(row.body)
    return message


KIND = NodeKind(type="send_mail", model=SendMailNode, run=run, uses_sandbox=True)
