"""Clients and credentials over HTTP: secrets go in and never come out; who is limited to clients sees only theirs."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import select

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.nova import Credential
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING
from nova_pipelines_tests.web.api.conftest import Web

PASSWORD = "correct-horse-battery"
MAILBOX = {"imap_host": "imap.example.com", "smtp_host": "smtp.example.com", "user": "facturas@example.com"}


def test_a_client_is_made_listed_changed_and_deleted(web: Web):
    made = web.post("/clients", json={"name": "IDOM", "slug": "idom", "email": "facturas@idom.example"})
    assert (made.status_code, made.headers["location"]) == (201, "/clients/idom")
    assert made.json()["id"] == 1
    assert web.post("/clients", json={"name": "Other", "slug": "idom"}).status_code == 409
    assert web.get("/clients").json() == [made.json()]
    assert web.get("/clients/idom").json() == web.get("/clients/1").json() == made.json()
    changed = web.put("/clients/idom", json={"name": "IDOM S.A.", "email": None, "sender_whitelist": ["@a.example"]})
    assert changed.status_code == 200, changed.text
    assert {"name": "IDOM S.A.", "email": None, "sender_whitelist": ["@a.example"]}.items() <= changed.json().items()
    assert web.put("/clients/idom", json={"slug": "other"}).status_code == 422
    assert [web.delete("/clients/idom").status_code for _ in range(2)] == [204, 404]


def test_a_client_with_history_is_not_deleted(web: Web):
    web.customer()
    web.execution(web.workflow(), "idom")
    refused = web.delete("/clients/idom")
    assert refused.status_code == 409
    assert "is_active" in refused.json()["remedy"]
    assert web.get("/clients/idom").json()["is_active"] is True
    assert web.put("/clients/idom", json={"is_active": False}).json()["is_active"] is False
    assert web.post("/workflows/1/execute", json={"client_slug": "idom"}).status_code == 404


def test_secrets_are_stored_encrypted_and_never_answered(web: Web):
    """Old defect 4: credentials stood in answers."""
    web.customer()
    path = "/clients/idom/credentials/email/default"
    made = web.put(path, json=MAILBOX | {"password": PASSWORD})
    assert made.status_code == 200, made.text
    assert made.json()["settings"] == MAILBOX | {
        "imap_port": 993,
        "imap_tls": "ssl",
        "smtp_port": 587,
        "smtp_tls": "starttls",
    }
    answers = [made, web.get("/clients/idom/credentials"), web.get("/clients/idom"), web.get("/clients")]
    answers.append(web.put(path, json={"imap_port": 1993}))  # what is not given stays, the password too
    assert answers[-1].json()["settings"]["imap_port"] == 1993
    answers.append(web.put(path, json={"password": PASSWORD * 1000}))
    answers.append(web.put(path, json={"password": [PASSWORD]}))
    answers.append(web.put(path, json={"unknown": PASSWORD}))
    assert [answer.status_code for answer in answers[-3:]] == [422, 422, 422]
    for answer in answers:
        assert PASSWORD not in answer.text
    with web.services.databases.nova.read() as session:
        credential = session.scalars(select(Credential)).one()
        assert PASSWORD.encode() not in credential.secret
        assert web.services.box().decrypt(credential.secret) == {"password": PASSWORD}
    assert [web.delete(path).status_code for _ in range(2)] == [204, 404]


def test_a_database_and_a_second_mailbox(web: Web):
    web.customer()
    base = "/clients/idom/credentials"
    assert web.put(f"{base}/database/default", json={"password": "x" * 9}).status_code == 422
    url = "postgresql://nova@db.example:5432/facturas"
    assert web.put(f"{base}/database/default", json={"url": url, "password": "x" * 9}).status_code == 200
    refused = web.put(f"{base}/database/default", json={"url": "postgresql://nova:geheim@db.example/f"})
    assert (refused.status_code, "geheim" in refused.text) == (422, False)
    web.put(f"{base}/email/default", json=MAILBOX | {"password": PASSWORD})
    second = web.put(f"{base}/email/second", json=MAILBOX | {"password": PASSWORD, "primary": True})
    assert second.json()["is_primary"] is True
    shown = {(one["kind"], one["label"]): one["is_primary"] for one in web.get(base).json()}
    assert shown == {("email", "default"): False, ("email", "second"): True, ("database", "default"): True}


@pytest.mark.parametrize(
    "body",
    [
        *({}, {"name": "A"}, {"slug": "a"}, {"name": "", "slug": "a"}, {"name": 1, "slug": "a"}),
        *({"name": "A", "slug": "A B"}, {"name": "A", "slug": "../etc"}, {"name": "A", "slug": "a" * 101}),
        *({"name": "A", "slug": "a", "email": "x"}, {"name": "A", "slug": "a", "id": 7}),
        *({"name": "A", "slug": "a", "expose_credentials": "yes"}, {"name": "A\x00", "slug": "a"}),
        *({"name": "A", "slug": "a", "sender_whitelist": ["x"]}, {"name": "x" * 201, "slug": "a"}, [], "a", None),
    ],
    ids=range(17),
)
def test_wrong_clients_are_422(shared_web: Web, body: Any):
    answer = shared_web.post("/clients", content=json.dumps(body))
    assert answer.status_code == 422, answer.text
    assert shared_web.get("/clients").json() == []


@pytest.mark.parametrize("key", ["nobody", "0", "99999999999999999999", "x'--", "..%2f..", "%00", "{{7*7}}"])
def test_clients_that_there_are_not(shared_web: Web, key: str):
    for answer in (shared_web.get(f"/clients/{key}"), shared_web.get(f"/clients/{key}/credentials")):
        assert answer.status_code in (404, 422)
        assert "49" not in answer.text


def test_who_is_limited_sees_and_changes_only_theirs(web: Web):
    for slug in ("acme", "idom"):
        web.customer(slug)
        web.put(f"/clients/{slug}/credentials/email/default", json=MAILBOX | {"password": PASSWORD})
    workflow = web.workflow()
    begun = {slug: web.execution(workflow, slug) for slug in ("acme", "idom")}
    nobodys = web.execution(workflow)
    web.post("/workflows", content=INVOICE_PROCESSING.read_text())
    with web.services.databases.facturas.session() as session:
        for number, slug in enumerate(("acme", "idom", "acme"), start=1):
            session.add(Invoice(client_slug=slug, total_amount=Decimal("10.50"), document_sha256=str(number)))
    theirs = web.limited("idom")

    assert [row["slug"] for row in theirs.get("/clients").json()] == ["idom"]
    listed = theirs.get("/executions")
    assert ([row["client"] for row in listed.json()], listed.headers["x-total-count"]) == (["idom"], "1")
    assert theirs.get("/executions", params={"client": "acme"}).json() == []
    assert theirs.get("/executions", params={"client": "idom"}).headers["x-total-count"] == "1"
    listed = theirs.get("/invoices")
    assert ([row["id"] for row in listed.json()], listed.headers["x-total-count"]) == ([2], "1")
    assert [row["client"] for row in theirs.get("/mailboxes").json()] == ["idom"]
    assert len(web.get("/mailboxes").json()) == 2
    for strange in (begun["acme"], nobodys):
        number = strange["execution_id"]
        for method, path in (("get", ""), ("get", "/chain"), ("get", "/events"), ("post", "/cancel")):
            assert theirs.request(method, f"/executions/{number}{path}").status_code == 404
        assert theirs.post(f"/executions/{number}/retry").status_code == 404
        assert theirs.get(f"/tasks/{strange['task_id']}").status_code == 404
    assert theirs.get("/invoices/1").status_code == 404
    assert theirs.get("/invoices/2").json()["total_amount"] == "10.5000"
    assert theirs.get("/clients/acme").status_code == theirs.get("/clients/acme/credentials").status_code == 404
    assert theirs.put("/clients/acme/credentials/email/default", json={"imap_port": 1}).status_code == 404
    assert theirs.delete("/clients/acme/credentials/email/default").status_code == 404
    path = f"/workflows/{workflow['id']}/execute"
    assert theirs.post(path, json={"client_slug": "acme"}).status_code == 404
    assert theirs.post(path, json={}).status_code == 422
    assert theirs.post(path, json={"client_slug": "idom"}).status_code == 202
    assert theirs.get(f"/executions/{begun['idom']['execution_id']}").status_code == 200
    # what belongs to no client alone
    assert [theirs.get("/workflows").status_code, theirs.post("/clients", json={}).status_code] == [403, 403]
    assert web.get("/executions").headers["x-total-count"] == "4"


def test_without_a_principal_every_route_is_401(shared_web: Web):
    nobody = shared_web.somebody("nobody")
    for path in ("/clients", "/workflows", "/executions", "/executions/1/events", "/invoices", "/mailboxes"):
        assert nobody.get(path).status_code == 401
    assert nobody.post("/workflows", content="{}").status_code == 401


def test_invoices_have_exact_amounts_and_no_document(web: Web):
    with web.services.databases.facturas.session() as session:
        invoice = Invoice(
            client_slug="idom", total_amount=Decimal("1234567.8901"), pdf_content=b"%PDF", ocr_text="Total"
        )
        session.add(invoice)
    (row,) = web.get("/invoices").json()
    assert row["total_amount"] == "1234567.8901"
    assert "pdf_content" not in row
    shown = web.get(f"/invoices/{row['id']}").json()
    assert shown == row | {"ocr_text": "Total"}
    for number in (0, 2, 2**31, 10**30):
        assert web.get(f"/invoices/{number}").status_code == 404
    assert web.get("/invoices", params={"status": "x"}).status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [("PATCH", "/clients"), ("DELETE", "/executions/1"), ("POST", "/invoices"), ("PUT", "/workflows/1/execute")],
)
def test_a_method_that_a_path_does_not_know_is_405(shared_web: Web, method: str, path: str):
    answer = shared_web.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"]


def test_paths_below_our_own_that_there_are_not_are_404(shared_web: Web):
    for path in ("/clients/a/b/c", "/executions/1/x", "/workflows/1/x", "/invoices/1/x", "/mailboxes/x"):
        assert shared_web.get(path).status_code == 404
