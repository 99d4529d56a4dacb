"""The words of the pages in Spanish and English, and which of the two somebody reads."""

from __future__ import annotations

from typing import Literal

from fastapi import Request

Language = Literal["es", "en"]
LANGUAGES: tuple[Language, ...] = ("es", "en")
#: what a switch in the page leaves in the browser
COOKIE = "nova_language"

#: key → (Spanish, English)
TEXTS: dict[str, tuple[str, str]] = {
    "overview": ("Resumen", "Overview"),
    "invoices": ("Facturas", "Invoices"),
    "executions": ("Ejecuciones", "Executions"),
    "approvals": ("Aprobaciones", "Approvals"),
    "mailboxes": ("Buzones", "Mailboxes"),
    "skip": ("Ir al contenido", "Skip to the content"),
    "menu": ("Páginas", "Pages"),
    "signed_in": ("Sesión de", "Signed in as"),
    "logout": ("Salir", "Log out"),
    "dagster": ("Abrir Dagster", "Open Dagster"),
    "other_language": ("English", "Español"),
    "search": ("Buscar", "Search"),
    "search_hint": ("proveedor, número, NIF, remitente, asunto…", "supplier, number, tax id, sender, subject…"),
    "filter": ("Filtrar", "Filter"),
    "clear": ("Quitar filtros", "Clear filters"),
    "more_filters": ("Más filtros", "More filters"),
    "client": ("Cliente", "Client"),
    "status": ("Estado", "Status"),
    "any": ("todos", "any"),
    "since": ("Desde", "From"),
    "until": ("Hasta", "To"),
    "least": ("Importe mínimo", "Least amount"),
    "most": ("Importe máximo", "Greatest amount"),
    "supplier": ("Proveedor", "Supplier"),
    "number": ("Número", "Number"),
    "invoice": ("Factura", "Invoice"),
    "date": ("Fecha", "Date"),
    "amount": ("Importe", "Amount"),
    "total_amount": ("Total", "Total"),
    "net_amount": ("Base imponible", "Net amount"),
    "tax_amount": ("Impuestos", "Tax"),
    "invoice_number": ("Número de factura", "Invoice number"),
    "issue_date": ("Fecha de emisión", "Date of issue"),
    "due_date": ("Vencimiento", "Due date"),
    "supplier_name": ("Proveedor", "Supplier"),
    "supplier_tax_id": ("NIF del proveedor", "Supplier's tax id"),
    "tax_id": ("NIF", "Tax id"),
    "currency": ("Moneda", "Currency"),
    "confidence": ("Confianza", "Confidence"),
    "field": ("Dato", "Field"),
    "value": ("Valor", "Value"),
    "found_at": ("Dónde se leyó", "Where it was found"),
    "page_n": ("página", "page"),
    "not_found_at": ("no está en el texto", "not in the text"),
    "not_read": ("no se leyó", "not read"),
    "export": ("Exportar", "Export"),
    "older": ("Anteriores", "Older"),
    "newest": ("Las más recientes", "Newest"),
    "none_found": ("Nada que mostrar.", "Nothing to show."),
    "document": ("Documento", "Document"),
    "save_pdf": ("Guardar el PDF", "Save the PDF"),
    "no_document": ("No hay documento.", "There is no document."),
    "preview": ("Imagen de la página", "Picture of page"),
    "preview_failed": ("No se puede mostrar la página", "The page cannot be shown"),
    "loading": ("Cargando…", "Loading…"),
    "previous_page": ("Página anterior", "Previous page"),
    "next_page": ("Página siguiente", "Next page"),
    "mail": ("Correo", "Mail"),
    "from": ("De", "From"),
    "subject": ("Asunto", "Subject"),
    "received": ("Fecha del correo", "Date of the mail"),
    "execution": ("Ejecución", "Execution"),
    "workflow": ("Flujo", "Workflow"),
    "version": ("versión", "version"),
    "started": ("Inicio", "Started"),
    "ended": ("Fin", "Ended"),
    "created": ("Creada", "Created"),
    "stored": ("Guardada", "Stored"),
    "run": ("Ejecución en Dagster", "Run in Dagster"),
    "error": ("Error", "Error"),
    "waits_until": ("Espera hasta", "Waits until"),
    "chain": ("Pasos dados", "Chain of work"),
    "graph": ("Camino por el flujo", "Way through the workflow"),
    "graph_text": (
        "Dibujo del flujo; la tabla de abajo dice lo mismo en palabras.",
        "Drawing of the workflow; the table below says the same in words.",
    ),
    "graph_too_large": ("El flujo es demasiado grande para dibujarlo.", "The workflow is too large to be drawn."),
    "node": ("Nodo", "Node"),
    "kind": ("Tipo", "Kind"),
    "seconds": ("Segundos", "Seconds"),
    "result": ("Resultado", "Result"),
    "time": ("Hora", "Time"),
    "refreshing": ("Se actualiza sola mientras trabaja.", "Refreshes by itself while it works."),
    "all": ("todas", "all"),
    "open": ("pendientes", "open"),
    "decided": ("decididas", "decided"),
    "asked": ("Pedida", "Asked"),
    "deadline": ("Plazo", "Deadline"),
    "at_deadline": ("Al vencer el plazo", "At the deadline"),
    "then_expired": ("sigue el camino «expired», o falla", "it takes the way “expired”, or fails"),
    "then_approve": ("se aprueba", "it is approved"),
    "then_reject": ("se rechaza", "it is rejected"),
    "then_fail": ("la ejecución falla", "the execution fails"),
    "then_escalate": ("se pregunta a otras personas", "others are asked"),
    "escalated": ("Pasada a otros", "Passed on"),
    "mail_problem": ("Correo", "Mail"),
    "decide": ("Decidir", "Decide"),
    "approve": ("Aprobar", "Approve"),
    "reject": ("Rechazar", "Reject"),
    "note": ("Nota (opcional)", "Note (optional)"),
    "note_kept": ("Se guarda con la decisión.", "Kept with the decision."),
    "decided_by": ("Decidió", "Decided by"),
    "decided_at": ("Decidida", "Decided"),
    "given_note": ("Nota", "Note"),
    "via_page": ("en la página", "in the page"),
    "via_link": ("por un enlace de correo", "by a link in a mail"),
    "via_api": ("por la API", "by the API"),
    "via_cli": ("por la línea de órdenes", "by the command line"),
    "via_deadline": ("al vencer el plazo", "at the deadline"),
    "may_not_decide": ("Para decidir hace falta el rol", "To decide you need the role"),
    "not_open": ("Ya no se puede decidir.", "It can no longer be decided."),
    "nothing_waits": ("Nada espera una decisión.", "Nothing waits for a decision."),
    "waiting_for_you": ("por decidir", "to be decided"),
    "confirm_approve": ("¿Aprobar?", "Approve?"),
    "confirm_reject": ("¿Rechazar?", "Reject?"),
    "as_whom": ("Se decide como", "You decide as"),
    "yes_approve": ("Sí, aprobar", "Yes, approve"),
    "yes_reject": ("Sí, rechazar", "Yes, reject"),
    "link_title": ("Decidir por enlace", "Decide by link"),
    "link_paste": (
        "Pegue aquí el código del enlace del correo (lo que sigue a #).",
        "Paste the code of the link in the mail here (what follows #).",
    ),
    "link_code": ("Código", "Code"),
    "go_on": ("Continuar", "Continue"),
    "done_approved": ("Aprobada.", "Approved."),
    "done_rejected": ("Rechazada.", "Rejected."),
    "done_goes_on": ("El flujo sigue por sí solo.", "The workflow goes on by itself."),
    "may_close": ("Puede cerrar esta página.", "You may close this page."),
    "not_possible": ("No ha sido posible", "That was not possible"),
    "back": ("Volver", "Back"),
    "look": ("Ver", "Look"),
    "last_success": ("Última lectura", "Last search"),
    "backlog": ("En espera", "Waiting"),
    "quarantined": ("Apartados", "Set aside"),
    "lag": ("Del correo al resultado", "From mail to result"),
    "healthy": ("bien", "well"),
    "failing": ("falla desde", "failing since"),
    "refused": ("acceso denegado", "login refused"),
    "never": ("nunca", "never"),
    "folder": ("Carpeta", "Folder"),
    "no_mailboxes": (
        "Ningún flujo activo lee un buzón que pueda ver.",
        "No live workflow reads a mailbox that you may see.",
    ),
    "latest": ("Últimas ejecuciones", "Latest executions"),
    # statuses
    "accepted": ("aceptada", "accepted"),
    "pending_approval": ("espera aprobación", "waits for approval"),
    "approved": ("aprobada", "approved"),
    "rejected": ("rechazada", "rejected"),
    "expired": ("vencida", "expired"),
    "pending": ("pendiente", "pending"),
    "running": ("en marcha", "running"),
    "in_approval": ("espera aprobación", "waits for approval"),
    "completed": ("completa", "completed"),
    "failed": ("fallida", "failed"),
    "needs_review": ("revisar", "needs review"),
    "unknown": ("incierta", "unknown"),
    "cancelled": ("cancelada", "cancelled"),
    "success": ("hecho", "done"),
    "stopped": ("terminó aquí", "stopped here"),
}


class Words:
    """The texts in one language: `words("invoices")`. An unknown key is shown as it is: statuses may be new."""

    def __init__(self, language: Language) -> None:
        self.language = language
        self._place = LANGUAGES.index(language)

    def __call__(self, key: str) -> str:
        found = TEXTS.get(key)
        return found[self._place] if found else key.replace("_", " ")


def language_of(request: Request) -> Language:
    """The one that was switched to; else the first known one of Accept-Language; else Spanish."""
    for given in (request.query_params.get("lang"), request.cookies.get(COOKIE)):
        for language in LANGUAGES:
            if given == language:
                return language
    return _accepted(request.headers.get("accept-language", "")[:500])


def _accepted(header: str) -> Language:
    """RFC 9110, 12.5.4: ranges with weights."""
    weights: dict[Language, float] = {}
    for part in header.split(","):
        tag, _, parameter = part.partition(";")
        name, _, weight = parameter.strip().partition("=")
        primary = tag.strip().lower().partition("-")[0]
        for language in LANGUAGES:
            if primary == language:
                value = _weight(weight) if name.strip() == "q" else 1.0
                weights[language] = max(value, weights.get(language, 0.0))
    best: Language = "en" if weights.get("en", 0.0) > weights.get("es", 0.0) else "es"
    return best


def _weight(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value <= 1 else 0.0
