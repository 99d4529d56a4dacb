"""What a workflow is told of a mail: what could not be opened, and who it is really from."""

from __future__ import annotations

import pytest

from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database.nova import Credential
from nova_pipelines_tests.adapters.test_mime_parts import PDF, bomb, zip_of
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, SENDER, World, invoice_pdf

PGP = b"-----BEGIN PGP MESSAGE-----\n\nhQEMA5\n-----END PGP MESSAGE-----\n"
RECEIVED = "from x by mx.idom.example; Mon, 3 Aug 2026 10:30:00 +0200"
PROVEEDORES = "mx.idom.example; dmarc={} header.from=proveedores.example"


@pytest.fixture
def compiled(world: World) -> Compiled:
    return world.publish(INVOICE_PROCESSING)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PGP, "is encrypted with OpenPGP, which NOVA cannot read"),
        (bomb(3_000_000), "(a ZIP bomb?)"),
    ],
    ids=["encrypted", "bomb"],
)
def test_what_cannot_be_opened_goes_to_a_person_and_not_to_the_sender(
    world: World, compiled: Compiled, content: bytes, words: str
):
    """ "No PDF was attached" would be wrong, and the invoice lost."""
    uid = world.deliver(content)
    assert world.run(compiled).success
    (execution,) = world.executions()
    assert execution.status == "needs_review"
    assert words in (execution.error or "")
    assert world.outbox() == []
    assert world.user.flags() == {uid: set()}


def test_beside_a_pdf_what_cannot_be_opened_waits_for_a_person_and_the_pdf_does_not(world: World, compiled: Compiled):
    world.deliver(invoice_pdf(), PGP)
    world.run(compiled)
    assert [(row.document_ordinal, row.status) for row in world.executions()] == [
        (0, "completed"),
        (-1, "needs_review"),
    ]
    assert len(world.invoices()) == 1


def test_an_invoice_in_an_archive_is_stored(world: World, compiled: Compiled):
    world.deliver(zip_of(("enero/factura.pdf", invoice_pdf())))
    assert world.run(compiled).success
    (invoice,) = world.invoices()
    assert (invoice.pdf_filename, invoice.total_amount) == ("factura.pdf", 242)


def trust_provider(world: World) -> None:
    with world.services.databases.nova.session() as session:
        credential = session.get_one(Credential, 1)
        credential.settings = credential.settings | {"authserv_id": "mx.idom.example"}


def from_provider(result: str) -> dict[str, str]:
    return {"Authentication-Results": PROVEEDORES.format(result), "Received": RECEIVED}


@pytest.mark.parametrize("headers", [from_provider("fail"), {"Received": RECEIVED}], ids=["fail", "none"])
def test_a_forged_sender_is_not_processed_and_gets_no_answer(world: World, compiled: Compiled, headers: dict[str, str]):
    """An answer would go to the one whose address was misused."""
    trust_provider(world)
    world.user.deliver(world.mail(PDF, **headers))
    assert world.run(compiled).success
    (execution,) = world.executions()
    result = world.result(execution.id)
    assert (execution.document_ordinal, result["sender_allowed"], result["has_pdf"]) == (-1, False, False)
    assert result["rejection"] == "sender_not_verified"
    assert result["email"]["verified"] is False
    assert result["email"]["verification"]
    assert result["action_taken"] == "email_not_sent"
    assert (world.outbox(), world.invoices()) == ([], [])


def test_a_verified_sender_is_processed(world: World, compiled: Compiled):
    trust_provider(world)
    world.user.deliver(world.mail(invoice_pdf(), **from_provider("pass")))
    assert world.run(compiled).success
    assert len(world.invoices()) == 1
    assert world.result(world.executions()[0].id)["email"]["verified"] is True


def test_without_a_provider_from_is_what_the_sender_wrote(world: World, compiled: Compiled):
    world.user.deliver(world.mail(invoice_pdf(), **from_provider("fail")))
    assert world.run(compiled).success
    assert len(world.invoices()) == 1
    email = world.result(world.executions()[0].id)["email"]
    assert (email["from"], email["verified"]) == (SENDER, None)
