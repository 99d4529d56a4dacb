"""The three ways through the Invoice Processing workflow, and what must be true after each, crash or no crash."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.worker import Kill
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf


@dataclass(frozen=True)
class Way:
    """`nodes` in order; `total` of the invoice that is sent, or None; what must come out."""

    nodes: tuple[str, ...]
    total: str | None
    invoices: int
    mails: int

    def deliver(self, world: World, number: int = 1) -> int:
        pdfs = [invoice_pdf(self.total, number=f"F-{number}")] if self.total else []
        return world.deliver(*pdfs, subject=f"Factura {number}", Message_ID=f"<m{number}@proveedores.example>")


WAYS = {
    "low": Way(("start", "mail_fetch", "has_pdf", "extract_invoice", "amount", "invoice_write", "end"), "242.00", 1, 0),
    "high": Way(
        ("start", "mail_fetch", "has_pdf", "extract_invoice", "amount", "approval", "tell_sender", "end"),
        "15000.59",
        1,
        1,
    ),
    "no_pdf": Way(("start", "mail_fetch", "has_pdf", "no_pdf", "end"), None, 0, 1),
}


def crash(engine: Engine, run_id: str, *kills: Kill) -> str | None:
    """A worker that dies, found dead; returns the daemon's retry of the run, if there is one."""
    assert engine.work(run_id, *kills) == -9, f"the worker outlived {kills}:\n{engine.log.read_text()[-4000:]}"
    engine.bury(run_id)
    return engine.retry(run_id)


def crash_and_retry(world: World, engine: Engine, way: Way, *kills: Kill) -> int:
    """One mail, one worker for each of `kills` that dies there, and one that is left alone. The mail's UID."""
    world.publish(INVOICE_PROCESSING)
    uid = way.deliver(world)
    run_id = engine.launch()
    for kill in kills:
        retry = crash(engine, run_id, kill)
        assert retry is not None
        run_id = retry
    assert engine.work(run_id) == 0
    assert engine.status(run_id) == "SUCCESS", engine.failures(run_id)
    return uid


def assert_once(world: World, ways: list[Way], uids: list[int]) -> None:
    """Every mail's work was done, and done once: chain, invoices, mails out, ledger, flags."""
    executions = world.executions()
    assert [row.status for row in executions] == ["completed"] * len(ways)
    for execution, way in zip(executions, ways, strict=True):
        rows = [(row.node_id, row.status) for row in world.chain(execution.id)]
        assert rows == [(node, "success") for node in way.nodes]
    report = verify_chains(world.services.databases.nova)
    assert report.findings == []
    assert report.rows == sum(len(way.nodes) for way in ways)
    stored = Counter(invoice.processed_by_execution_id for invoice in world.invoices())
    assert stored == Counter({row.id: 1 for row, way in zip(executions, ways, strict=True) if way.invoices})
    sent = Counter(mail.message["Message-ID"] for mail in world.sink.messages)
    assert len(sent) == sum(sent.values()) == sum(way.mails for way in ways)
    assert [row.status for row in world.outbox()] == ["sent"] * len(sent)
    assert {row.message_id for row in world.outbox()} == set(sent)
    messages = world.messages()
    assert [(message.uid, message.status) for message in messages] == [(uid, "assigned") for uid in uids]
    assert all(message.flagged_at for message in messages)
    assert sorted(message.id for message in messages) == sorted(row.message_id or 0 for row in executions)
    flags = world.user.flags()
    assert all("\\Seen" in flags[uid] for uid in uids)
