"""The texts of mails: NOVA's own, and those that a workflow brings along.

Own templates are rendered here (trusted text, hostile data). A workflow's template is code of a user
and is rendered in the sandbox, where neither `{{ 'a' * 10**9 }}` nor an endless loop harms anybody.
"""

from __future__ import annotations

from typing import Any

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nova_pipelines.adapters.sandbox.base import Job, Limits, Status
from nova_pipelines.domain.errors import CodeError, PermanentError
from nova_pipelines.domain.money import format_amount
from nova_pipelines.nodes.base import Item
from nova_pipelines.nodes.services import Services

#: name → (subject, body); Spanish first, English below, as the clients' suppliers need it
TEMPLATES: dict[str, tuple[str, str]] = {
    "high_amount": (
        "Re: {{ email.subject or 'su factura' }}",
        "Hemos recibido su factura {{ invoice.invoice_number or '' }} por {{ amount }}.\n"
        "Supera el límite de aprobación automática: la revisará una persona.\n\n"
        "We received your invoice {{ invoice.invoice_number or '' }} over {{ amount }}. It is above the limit for\n"
        "automatic approval: a person will look at it.\n",
    ),
    "no_pdf": (
        "Re: {{ email.subject or 'su mensaje' }}",
        "{% if rejection == 'sender_not_allowed' %}"
        "Su dirección {{ email['from'] }} no está autorizada para enviar facturas a este buzón.\n\n"
        "Your address {{ email['from'] }} is not on the list of senders of this mailbox.\n"
        "{% else %}"
        "Su mensaje no lleva ningún PDF: adjunte la factura y envíelo de nuevo.\n\n"
        "No PDF was attached to your message: please attach the invoice and send it again.\n"
        "{% endif %}",
    ),
    "rejected": (
        "Re: {{ email.subject or 'su factura' }}",
        "Su factura {{ invoice.invoice_number or '' }} por {{ amount }} no ha sido aprobada.\n\n"
        "Your invoice {{ invoice.invoice_number or '' }} over {{ amount }} was not approved.\n",
    ),
    "unreadable": (
        "Re: {{ email.subject or 'su factura' }}",
        "No hemos podido leer su factura con seguridad: la revisará una persona.\n\n"
        "We could not read your invoice with confidence: a person will look at it.\n",
    ),
}

_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
_COMPILED = {name: tuple(_ENVIRONMENT.from_string(text) for text in texts) for name, texts in TEMPLATES.items()}

#: runs in the sandbox; `context` holds the texts and the item's context
_RENDER = """
from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
names = {**context["context"], "context": context["context"]}
context = {name: environment.from_string(text).render(names) for name, text in context["texts"].items()}
"""


def render_own(name: str, context: dict[str, Any]) -> tuple[str, str]:
    """Subject and body of one of NOVA's templates. Raises PermanentError for a context that lacks a name."""
    subject, body = _COMPILED[name]
    names = {"email": {}, "invoice": {}, "rejection": "", **context, "amount": _amount(context)}
    try:
        return subject.render(names), body.render(names)
    except TemplateError as error:
        raise PermanentError(
            f"the template {name!r} cannot be filled: {error}", remedy="put a mail_fetch node before it"
        ) from None


def render_template(texts: dict[str, str], item: Item, services: Services, timeout: float) -> dict[str, str]:
    """A workflow's own templates, rendered in the sandbox. Raises CodeError with the reason."""
    job = Job(
        code=_RENDER,
        context={"texts": texts, "context": item.context},
        limits=Limits(wall_seconds=timeout, cpu_seconds=timeout),
    )
    outcome = services.run_job(job)
    if outcome.status is not Status.OK or outcome.result is None:
        raise CodeError(f"the template cannot be filled: {outcome.error}", remedy="correct the template")
    return {name: str(outcome.result.get(name, "")) for name in texts}


def _amount(context: dict[str, Any]) -> str:
    invoice = context.get("invoice")
    if not isinstance(invoice, dict) or invoice.get("total_amount") is None:
        return "?"
    return format_amount(invoice["total_amount"], str(invoice.get("currency") or ""))
