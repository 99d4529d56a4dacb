"""Every page, in both languages, with hostile content in every field, and only what somebody may see."""

from __future__ import annotations

import html
from datetime import date
from decimal import Decimal
from urllib.parse import quote

import pytest
from sqlalchemy import text as sql
from sqlalchemy import update

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Execution, Message
from nova_pipelines_tests.web.site import Site, text_of

HOSTILE = (
    '"><script>alert(1)</script><img src=x onerror=alert(2)>{{7*7}}${7*7}\u202egnp.exe\u2066'
    "'\"--;</textarea></title><svg onload=alert(3)>\x01"
)
HUGE = "x" * 100_000 + "END"


def store(site: Site, **fields) -> int:
    """An invoice of one's own, as some node might have stored it."""
    row = {"client_slug": "idom", "total_amount": Decimal("10.00"), "currency": "EUR"} | fields
    with site.world.services.databases.facturas.session() as session:
        invoice = Invoice(**row)
        session.add(invoice)
        session.flush()
        return invoice.id


@pytest.fixture(scope="module")
def approval(site: Site):
    return site.asked(number="F-1")


def page(site: Site, path: str, *, language: str = "en", status: int = 200, role="viewer", clients=()) -> str:
    answer = site.as_(role, *clients, language=language).get(path)
    assert answer.status_code == status, answer.text[:2000]
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "style=" not in answer.text
    assert " on" + "click=" not in answer.text
    return answer.text


PAGES = [
    ("/pages/", "Resumen", "Overview"),
    ("/pages/invoices", "Facturas", "Invoices"),
    ("/pages/invoices/{invoice}", "Base imponible", "Net amount"),
    ("/pages/executions", "Ejecuciones", "Executions"),
    ("/pages/executions/{execution}", "Pasos dados", "Chain of work"),
    ("/pages/approvals", "Aprobaciones", "Approvals"),
    ("/pages/approvals/{approval}", "Al vencer|Plazo", "Deadline"),
    ("/pages/mailboxes", "Buzones", "Mailboxes"),
]


@pytest.mark.parametrize(("path", "spanish", "english"), PAGES)
def test_every_page_in_both_languages(site: Site, approval, path: str, spanish: str, english: str):
    numbers = {"invoice": approval.facts["invoice_id"], "execution": approval.execution_id, "approval": approval.id}
    path = path.format(**numbers)
    first = page(site, path, language="es-ES,es;q=0.9,en;q=0.5")
    second = page(site, path, language="en-GB,en")
    assert '<html lang="es">' in first
    assert any(word in text_of(first) for word in spanish.split("|"))
    assert '<html lang="en">' in second
    assert english in text_of(second)
    assert page(site, f"{path}?lang=es", language="en").startswith('<!DOCTYPE html>\n<html lang="es">')


def test_the_language_is_remembered(site: Site):
    browser = site.as_("viewer", language="en")
    assert "Facturas" in browser.get("/pages/?lang=es").text
    assert "Facturas" in browser.get("/pages/").text
    assert '<html lang="es">' in site.as_("viewer", language="de,fr;q=0.5").get("/pages/").text
    assert '<html lang="en">' in site.as_("viewer", language="es;q=0.1, en;q=0.9").get("/pages/").text


def test_an_invoice_stands_beside_its_document(site: Site, approval):
    number = approval.facts["invoice_id"]
    text = text_of(page(site, f"/pages/invoices/{number}"))
    assert "EUR 15,000.59" in text
    assert "TOTAL FACTURA 15.000,59 €" in text  # where it was found
    browser = site.as_("viewer")
    preview = browser.get(f"/pages/invoices/{number}/preview?page=0").text
    assert 'data-field="total_amount"' in preview
    assert 'data-field="supplier_tax_id"' in preview
    picture = browser.get(f"/pages/invoices/{number}/page.png?page=0")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert "cannot be shown" in browser.get(f"/pages/invoices/{number}/preview?page=9").text


def test_a_document_is_served_as_other_peoples(site: Site, approval):
    browser = site.as_("viewer")
    for path in (f"/pages/invoices/{approval.facts['invoice_id']}", f"/pages/executions/{approval.execution_id}"):
        answer = browser.get(f"{path}/document.pdf")
        assert answer.content.startswith(b"%PDF-")
        assert answer.headers["content-type"] == "application/pdf"
        assert answer.headers["content-security-policy"].startswith("sandbox;")
        assert "allow-scripts" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith('attachment; filename="factura0.pdf"')


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd", "passwd.pdf"),
        ("a\r\nSet-Cookie: x=1.pdf", "a__Set-Cookie_ x_1.pdf"),
        ('b";x=".pdf', "b__x__.pdf"),
        ("factura ñ.pdf", "factura _.pdf"),
        ("\u202efdp.exe", "_fdp.exe.pdf"),
        ("..", "document.pdf"),
    ],
)
def test_names_of_files_are_only_names(site: Site, approval, name: str, shown: str):
    number = store(site, pdf_filename=name, pdf_content=b"%PDF-1.4 x", pdf_size_bytes=10)
    answer = site.as_("viewer").get(f"/pages/invoices/{number}/document.pdf")
    assert f'filename="{shown}"' in answer.headers["content-disposition"]
    assert "set-cookie" not in answer.headers


def test_what_is_no_pdf_is_only_to_be_saved(site: Site):
    number = store(site, pdf_filename="x.pdf", pdf_content=b"<script>alert(1)</script>", pdf_size_bytes=9)
    answer = site.as_("viewer").get(f"/pages/invoices/{number}/document.pdf")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert "cannot be shown" in site.as_("viewer").get(f"/pages/invoices/{number}/preview").text


@pytest.mark.parametrize("text", [HOSTILE, HUGE], ids=["hostile", "huge"])
def test_hostile_texts_stay_texts(site: Site, approval, text: str):
    number = store(
        site,
        supplier_name=text,
        supplier_tax_id=text[:50],
        invoice_number=text[:100],
        email_from=text[:320],
        email_subject=text,
        pdf_filename=text,
        ocr_text=text,
        issue_date=date(2026, 11, 2),
        pdf_content=b"%PDF-",
        pdf_size_bytes=5,
    )
    nova = site.world.services.databases.nova
    execution = approval.execution_id
    with nova.session() as session:
        row = session.get_one(Execution, execution)
        before = session.get_one(Message, row.message_id).subject
        session.execute(update(Message).values(subject=text, sender=text))
        row.error = text
    try:
        for path in ("/pages/", "/pages/invoices", f"/pages/invoices/{number}", f"/pages/executions/{execution}"):
            shown = page(site, path)
            assert "<script>alert" not in shown
            assert "<img src=x" not in shown
            assert "<svg onload" not in shown
            assert "\u202e" not in shown
            assert "\u2066" not in shown
            assert "49" not in text_of(shown).partition("gnp.exe")[0][-20:]
            assert len(shown) < 200_000
        assert html.escape("<script>alert(1)</script>") in page(site, f"/pages/invoices/{number}") or text is HUGE
        hostile = site.as_("viewer").get("/pages/invoices", params={"q": text[:200]})
        assert "<script>alert" not in hostile.text
    finally:
        with nova.session() as session:
            session.execute(update(Message).values(subject=before, sender="ana@proveedores.example"))
            session.get_one(Execution, execution).error = None


def test_the_filter(site: Site):
    number = store(
        site,
        supplier_name="Cartón & Cía",
        invoice_number="100%_A",
        total_amount=Decimal("77.70"),
        issue_date=date(2025, 3, 4),
        status="rejected",
    )
    link = f'href="/pages/invoices/{number}"'
    for query in (
        "q=cart%C3%B3n",
        "q=100%25_",
        "status=rejected",
        "supplier=C%C3%ADa",
        "since=2025-03-04&until=2025-03-04",
        "least=77,70&most=77.70",
        "client=idom&q=Cart",
    ):
        assert link in page(site, f"/pages/invoices?{query}"), query
    for query in ("q=nothing-like-it", "q=%25%25%25", "status=approved", "until=2025-03-03", "least=77.71&most=78"):
        assert link not in page(site, f"/pages/invoices?{query}"), query
    for query in (
        "since=yesterday",
        "least=much",
        "least=NaN",
        "least=1e999",
        "status=%27;--",
        "before=-1",
        "q=" + "x" * 201,
    ):
        assert "not possible" in page(site, f"/pages/invoices?{query}", status=422), query


def test_page_after_page(site: Site):
    numbers = [store(site, supplier_name="Paged", invoice_number=str(n), supplier_tax_id="P1") for n in range(55)]
    first = page(site, "/pages/invoices?supplier=Paged")
    assert first.count('href="/pages/invoices/') - first.count('href="/pages/invoices/"') >= 50
    assert f'href="/pages/invoices/{numbers[-1]}"' in first
    assert f"before={numbers[5]}" in first
    second = page(site, f"/pages/invoices?supplier=Paged&before={numbers[5]}")
    assert f'href="/pages/invoices/{numbers[0]}"' in second
    assert f'href="/pages/invoices/{numbers[5]}"' not in second
    assert "Invoices: 55" in text_of(second)


def test_everybody_sees_only_their_clients(site: Site, approval):
    mine, theirs = store(site, supplier_name="Mine"), store(site, client_slug="other", supplier_name="Theirs")
    execution, invoice = approval.execution_id, approval.facts["invoice_id"]
    shown = page(site, "/pages/invoices", clients=["other"])
    assert "Theirs" in shown
    assert "Mine" not in shown
    assert "<option>idom" not in shown
    for path in (
        f"/pages/invoices/{mine}",
        f"/pages/invoices/{invoice}/document.pdf",
        f"/pages/invoices/{invoice}/page.png",
        f"/pages/executions/{execution}",
        f"/pages/executions/{execution}/live",
        f"/pages/executions/{execution}/document.pdf",
        f"/pages/approvals/{approval.id}",
    ):
        assert site.as_("admin", "other").get(path).status_code == 404, path
    assert "cannot be shown" not in site.as_("viewer", "idom").get(f"/pages/invoices/{invoice}/preview").text
    assert site.as_("admin", "other").get(f"/pages/invoices/{invoice}/preview").status_code == 404
    assert f"/pages/invoices/{theirs}" in shown
    assert f'href="/pages/executions/{execution}"' not in page(site, "/pages/executions", clients=["other"])
    assert f"/pages/approvals/{approval.id}" not in page(site, "/pages/approvals", clients=["other"])
    assert "idom" not in text_of(page(site, "/pages/mailboxes", clients=["other"]))
    assert "Dagster" not in text_of(page(site, "/pages/", clients=["other"]))
    csv = site.as_("viewer", "other").get("/pages/invoices.csv").text
    assert "Theirs" in csv
    assert "Mine" not in csv
    assert (
        site.as_("operator", "other").post(f"/pages/approvals/{approval.id}", data={"decision": "approved"}).status_code
        == 404
    )


def test_nobody_sees_nothing(site: Site, approval):
    for path, _, _ in PAGES:
        path = path.format(invoice=1, execution=1, approval=1)
        answer = site.as_(None).get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={quote(path, safe='')}")
        assert site.as_(None).get(path, headers={"accept": "*/*"}).status_code == 401, path
    for path in ("/pages/invoices.csv", "/pages/invoices.xlsx", "/pages/invoices/1/document.pdf"):
        answer = site.as_(None).get(path)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next={quote(path, safe='')}")
        assert site.as_(None).get(path, headers={"accept": "*/*"}).status_code == 401, path
    assert site.as_(None).get("/approvals", headers={"accept": "application/json"}).status_code == 401


def test_unknown_things_are_pages_too(site: Site):
    for path in (
        "/pages/invoices/999999",
        "/pages/invoices/99999999999999",
        "/pages/executions/0",
        "/pages/approvals/77",
    ):
        assert "not possible" in page(site, path, status=404)
    assert page(site, "/pages/executions/abc", status=422)
    assert site.as_("viewer").get("/pages/nothing").status_code == 404
    for name in ("..%2f..%2fcatalogue.py", "%2e%2e/rendering.py", ".hidden", "nothing.css"):
        assert site.as_(None).get(f"/pages/static/{name}").status_code == 404


def test_what_pages_are_made_of_is_there_for_everybody(site: Site):
    for name, kind in (("nova.css", "text/css"), ("nova.js", "text/javascript"), ("nova.svg", "image/svg+xml")):
        answer = site.as_(None).get(f"/pages/static/{name}")
        assert answer.headers["content-type"].startswith(kind)


def test_the_way_through_the_workflow_is_drawn(site: Site, approval):
    shown = page(site, f"/pages/executions/{approval.execution_id}")
    assert shown.count('class="edge taken"') == 7
    assert "s-in_approval" in shown
    assert "data-live" not in shown  # it waits for a person: nothing changes by itself
    assert f'href="/pages/approvals/{approval.id}"' in shown
    assert 'href="/runs/' in shown
    with site.world.services.databases.nova.session() as session:
        session.execute(update(Execution).where(Execution.id == approval.execution_id).values(status="running"))
    try:
        part = site.as_("viewer").get(f"/pages/executions/{approval.execution_id}/live").text
        assert "data-live" in part
        assert "<html" not in part
    finally:
        with site.world.services.databases.nova.session() as session:
            session.execute(update(Execution).where(Execution.id == approval.execution_id).values(status="in_approval"))


def test_a_definition_that_no_longer_compiles_is_a_table(site: Site):
    nodes = [{"id": "start", "type": "start", "next": "end"}, {"id": "end", "type": "end"}]
    compiled = site.publish({"name": "Old", "nodes": nodes})
    number = site.world.execution(compiled)
    site.world.run(compiled, executions=[number])
    with site.world.services.databases.nova.session() as session:  # as an earlier NOVA may have stored it
        for name in session.scalars(sql("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all():
            session.execute(sql(f'DROP TRIGGER "{name}"'))
        session.execute(sql(f"UPDATE workflow_versions SET definition = '{{}}' WHERE id = {compiled.version_id}"))  # noqa: S608
    shown = page(site, f"/pages/executions/{number}")
    assert "<svg" not in shown
    assert "start" in text_of(shown)


def test_mailboxes(site: Site, approval):
    text = text_of(page(site, "/pages/mailboxes"))
    assert "idom INBOX" in text
