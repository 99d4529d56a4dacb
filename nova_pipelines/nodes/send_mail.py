"""The kind `send_mail`: answers the sender (or writes to somebody else) through an outbox, at most once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue
from sqlalchemy import select

from nova_pipelines.adapters.compose import Outgoing, compose, own_message_id
from nova_pipelines.adapters.mail_headers import clean_line
from nova_pipelines.adapters.smtp import SmtpConfig, send
from nova_pipelines.database.nova import OutboxMail
from nova_pipelines.database.outbox import Begun, Limit, begin, note_failure, note_sent, put_off
from nova_pipelines.domain.errors import (
    NeedsPerson,
    NovaError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
    Unavailable,
)
from nova_pipelines.domain.workflow import Node
from nova_pipelines.nodes.answering import Answered, address_key, answered_mail
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
    Sets `action_taken: email_sent`. Machines, lists, bounces and our own mailboxes are not answered (RFC 3834):
    `email_not_sent`; one address gets so many answers an hour and a day, and more wait for a person: `email_held`.
    """

    one_of = (("template",), ("subject", "body"))

    type: Literal["send_mail"]
    template: Annotated[str, Field(json_schema_extra={"enum": _NAMES}), AfterValidator(_known)] | None = None
    subject: str | None = Field(default=None, max_length=1_000)
    body: str | None = Field(default=None, max_length=100_000)
    to: str | None = Field(default=None, max_length=1_000)


@dataclass(frozen=True, slots=True)
class Letter:
    """`answered` is the mail that came in, where this one answers it."""

    recipient: str
    subject: str
    body: str
    answered: Answered | None = None


def run(node: SendMailNode, item: Item, services: Services) -> Result:
    if item.client is None:
        raise PermanentError(
            f"node {node.id!r} has no client to write for", remedy="give one: nova run WORKFLOW --client SLUG"
        )
    answered = answered_mail(item, services) if node.to is None else None
    if answered is not None and answered.refusal and not _was_written(services, node, item):
        context = item.context | {"action_taken": "email_not_sent"}
        return Result(context=context, decision=f"not answered: {answered.refusal}"[:200])
    letter = write(node, item, answered, services)
    config, sender = services.smtp(item.client)
    row_id = _outbox_row(services, node, item, letter, sender)
    begun = _begin(services, row_id)
    if begun.state == "held":
        raise NeedsPerson(
            f"{begun.reason}: mail {row_id} waits in the outbox",
            remedy=f"look: nova outbox show {row_id}; then nova outbox resolve {row_id} --resend, or --drop",
            context={**item.context, "action_taken": "email_held"},
        )
    if begun.state == "send":
        _send(services, row_id, config)
    taken = "email_dropped" if begun.state == "dropped" else "email_sent"
    return Result(
        context=item.context | {"action_taken": taken},
        decision=begun.reason[:200] or None,
        metadata={"to": letter.recipient, "mail": letter.subject},
    )


def write(node: SendMailNode, item: Item, answered: Answered | None, services: Services) -> Letter:
    """The letter for an item. Raises PermanentError when nobody can be written to or a template fails."""
    if node.template is not None:
        subject, body = render_own(node.template, item.context)
        texts = {"to": node.to or ""}
        rendered = render_template(texts, item, services, node.timeout) if node.to else texts
    else:
        texts = {"subject": node.subject or "", "body": node.body or "", "to": node.to or ""}
        rendered = render_template(texts, item, services, node.timeout)
        subject, body = rendered["subject"], rendered["body"]
    recipient = answered.recipient if answered is not None else rendered["to"].strip()
    if "@" not in recipient or any(c in recipient for c in "\r\n,;<> "):
        raise PermanentError(
            f"node {node.id!r} has nobody to write to", remedy="set `to`, or put a mail_fetch node before it"
        )
    return Letter(recipient, clean_line(subject, 250), body, answered)


def _was_written(services: Services, node: SendMailNode, item: Item) -> bool:
    """Whether this mail lies in the outbox already: its fate is told there, whatever has changed since."""
    with services.databases.nova.read() as session:
        query = select(OutboxMail.id).filter_by(execution_id=item.execution_id, node_id=node.id)
        return session.scalar(query) is not None


def _outbox_row(services: Services, node: SendMailNode, item: Item, letter: Letter, sender: str) -> int:
    with services.databases.nova.session() as session:
        row = session.scalars(select(OutboxMail).filter_by(execution_id=item.execution_id, node_id=node.id)).first()
        if row is None:
            answered = letter.answered
            row = OutboxMail(
                execution_id=item.execution_id,
                node_id=node.id,
                message_id=own_message_id(item.execution_id, node.id, sender),
                sender=sender,
                sender_name=item.client.name if item.client else None,
                recipient=letter.recipient,
                recipient_name=answered.name if answered else None,
                recipient_key=address_key(letter.recipient) if answered else None,
                subject=letter.subject,
                body=letter.body,
                in_reply_to=answered.in_reply_to if answered else None,
                thread=" ".join(answered.thread) if answered else None,
                status="pending",
            )
            session.add(row)
            session.flush()
        return row.id


def _begin(services: Services, row_id: int) -> Begun:
    """Whether this call sends. Raises OutcomeUnknown if a crash hides whether it was sent before."""
    policy = services.mail_policy
    limits = (
        Limit(policy.per_hour, timedelta(hours=1), "hour"),
        Limit(policy.per_day, timedelta(days=1), "24 hours"),
    )
    with services.databases.nova.session() as session:
        begun = begin(session, row_id, limits)
    if begun.state == "unknown":
        raise OutcomeUnknown(
            f"mail {row_id} of the outbox may have been sent before a crash",
            remedy=f"look: nova outbox show {row_id}; then nova outbox resolve {row_id} --sent, --resend or --drop",
        )
    return begun


def deliver(services: Services, row_id: int, config: SmtpConfig, *, more: str = "") -> None:
    """Sends a mail of the outbox unless that is done. `more`: what stands below its text and is not to be stored.

    Raises Unavailable where it is to be tried later, OutcomeUnknown, and what else a server says.
    """
    if _begin(services, row_id).state == "send":
        _send(services, row_id, config, more)


def _send(services: Services, row_id: int, config: SmtpConfig, more: str = "") -> None:
    nova = services.databases.nova
    with nova.read() as session:
        mail = _outgoing(session.get_one(OutboxMail, row_id))
    mail = replace(mail, body=mail.body + more)
    try:
        # our own address, not <>, is the return path: a bounce comes to the mailbox, where it is known as one and
        # is not answered (RFC 3834 4 allows both); the null sender is refused or rewritten by Microsoft and Google
        send(config, compose(mail), sender=mail.sender, recipients=[mail.recipient])
    except TransientError as error:
        raise _put_off(services, row_id, error) from error
    except NovaError as error:
        with nova.session() as session:
            note_failure(session, row_id, "unknown" if isinstance(error, OutcomeUnknown) else "failed", str(error))
        raise
    with nova.session() as session:
        note_sent(session, row_id)


def _put_off(services: Services, row_id: int, error: TransientError) -> NovaError:
    """The server said "later", or is away: the execution waits, up to a bound in time."""
    policy = services.mail_policy
    with services.databases.nova.session() as session:
        seconds = put_off(session, row_id, str(error), first_wait=policy.retry_seconds, give_up=policy.give_up_seconds)
    if seconds is not None:
        return Unavailable(error.message, after_seconds=seconds, remedy=f"`nova outbox show {row_id}` tells more")
    hours = f"{policy.give_up_seconds / 3_600:g}"
    return PermanentError(
        f"the mail was not taken for {hours} h: {error.message}" if policy.give_up_seconds else error.message,
        remedy=f"mend it, then: nova outbox resolve {row_id} --resend",
    )


def _outgoing(row: OutboxMail) -> Outgoing:
    return Outgoing(
        sender=row.sender,
        sender_name=row.sender_name or "",
        recipient=row.recipient,
        recipient_name=row.recipient_name or "",
        subject=row.subject,
        body=row.body,
        message_id=row.message_id,
        date=row.created_at,
        answer=row.in_reply_to is not None or row.recipient_key is not None,
        in_reply_to=row.in_reply_to,
        thread=tuple((row.thread or row.in_reply_to or "").split()),
    )


KIND = NodeKind(type="send_mail", model=SendMailNode, run=run, uses_sandbox=True)
