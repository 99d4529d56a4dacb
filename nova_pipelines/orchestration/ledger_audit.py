"""Whether every mail, execution and invoice row has its counterpart: ledger, journal, facturas, Dagster's runs.

The three are read one after another while work goes on. So what looks lost is looked at once more, in the order
in which the work is done (execution → row in facturas → journal → end of the run), before it is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import JSON, Select, case, func, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute

from nova_pipelines.database.facturas import Invoice
from nova_pipelines.database.mailbox_views import quarantined
from nova_pipelines.database.nova import ChainRow, Execution, Message, Workflow
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.orchestration.findings import Finding, chunks

#: a mail that is not taken up by then is stuck
STUCK = timedelta(hours=1)
#: rows of a note: it grows for ever and asks for nothing
SHOWN = 50

_MAIL = ("message", "from", "subject", "received", "status", "error")


def counts(databases: Databases) -> dict[str, int]:
    """Numbers of mails and of executions by status."""
    by_status = select(Execution.status, func.count()).group_by(Execution.status)
    with databases.nova.read() as session:
        executions = {f"executions {status}": number for status, number in session.execute(by_status)}
        return {"mails": session.scalar(select(func.count()).select_from(Message)) or 0, **executions}


# ---------------------------------------------------------------- mails


def lost_mails(nova: Database) -> Finding:
    """Mails that count as taken up although no execution has them. Copies of a mail need none."""
    query = select(Message).where(
        Message.status.in_(["assigned", "flagged"]),
        Message.duplicate_of.is_(None),
        Message.id.not_in(select(Execution.message_id).where(Execution.message_id.is_not(None))),
    )
    remedy = "Nobody works on these mails: set them back to 'stored' in the table messages, the sensor takes them up."
    return Finding("Mails without an execution", "error", remedy, _MAIL, _mails(nova, query))


def stuck_mails(nova: Database, now: datetime) -> list[Finding]:
    """Mails that wait for longer than STUCK, those that were set aside, and those that are done and not marked."""
    waiting = select(Message).where(Message.status.in_(["seen", "stored"]), Message.created_at < now - STUCK)
    aside = select(Message).where(quarantined())
    return [
        Finding(
            "Mails that wait for over an hour",
            "warning",
            "'seen': the mail could not be fetched, see the error and `nova doctor`. 'stored': no active workflow "
            "reads this client's folder, load one, or start it by hand.",
            _MAIL,
            _mails(nova, waiting),
        ),
        Finding(
            "Mails set aside",
            "warning",
            "They could not be read and block no other. `nova mailbox quarantine show N`, then "
            "`nova mailbox quarantine release N`: read again, or with --handled settled by hand.",
            _MAIL,
            _mails(nova, aside),
        ),
        Finding(
            "Mails that are done and not marked in the mailbox",
            "warning",
            "Their executions were completed over an hour ago. The mailbox sensor repeats it while the workflow is "
            "active: see its errors, `nova mailbox status` and `nova mailbox events`.",
            _MAIL,
            _mails(nova, _unmarked(now)),
        ),
    ]


def settled_mails(nova: Database) -> Finding:
    """What left the ledger by another way than an execution: removed before it was read, or settled by hand."""
    gone = select(Message).where((Message.status == "gone") | Message.handled_at.is_not(None))
    remedy = "Removed from the server before they could be read, or settled by a person: `nova mailbox events`."
    return Finding(
        "Mails without an execution, and why",
        "note",
        remedy,
        _MAIL,
        _mails(nova, gone.order_by(Message.id.desc()).limit(SHOWN)),
    )


def _unmarked(now: datetime) -> Select[Message]:
    done = (
        select(Execution.message_id)
        .where(Execution.message_id.is_not(None))
        .group_by(Execution.message_id)
        .having(
            func.count() == func.count(case((Execution.status == "completed", 1))),
            func.max(Execution.completed_at) < now - STUCK,
        )
    )
    return select(Message).where(Message.status == "assigned", Message.flagged_at.is_(None), Message.id.in_(done))


def _mails(nova: Database, query: Any) -> list[tuple[object, ...]]:
    with nova.read() as session:
        return [
            (
                message.id,
                message.sender or "",
                message.subject or "",
                f"{message.created_at:%Y-%m-%d %H:%M} UTC",
                message.status,
                message.error or "",
            )
            for message in session.scalars(query.order_by(Message.id))
        ]


def stuck_executions(nova: Database, now: datetime) -> Finding:
    """Executions for which no run was asked for longer than STUCK."""
    query = (
        select(Execution, Workflow.name)
        .join(Workflow, Workflow.id == Execution.workflow_id)
        .where(Execution.status == "pending", Execution.run_id.is_(None), Execution.created_at < now - STUCK)
        .order_by(Execution.id)
    )
    with nova.read() as session:
        rows = [
            (execution.id, name, execution.message_id or "", f"{execution.created_at:%Y-%m-%d %H:%M} UTC")
            for execution, name in session.execute(query)
        ]
    remedy = "No run was asked for: does the daemon run, with the mailbox sensor, and is the workflow active? "
    remedy += "See `nova doctor`, or start the workflow by hand."
    headers = ("execution", "workflow", "message", "since")
    return Finding("Executions that wait for over an hour", "warning", remedy, headers, rows)


# ---------------------------------------------------------------- rows


def rows_and_executions(databases: Databases) -> list[Finding]:
    """Rows that the journal says were written and are not there, and rows of executions that are not there."""
    worked = _numbers(databases.nova, Execution.id, Execution.chain_length > 0)
    owners = _numbers(databases.facturas, Invoice.processed_by_execution_id)
    claims = _claims(databases.nova, sorted(worked - owners))
    saved = _present(databases.facturas, Invoice.processed_by_execution_id, [execution for execution, *_ in claims])
    there = _present(databases.facturas, Invoice.id, [invoice for *_, invoice in claims if invoice is not None])
    missing = [
        (execution, node, action, invoice or "")
        for execution, node, action, invoice in claims
        if (action == "invoice_saved" and execution not in saved)
        or (action == "invoice_duplicate" and invoice not in there)
    ]
    orphans = sorted(owners - _present(databases.nova, Execution.id, owners))
    return [
        Finding(
            "Invoices that were stored and are gone",
            "error",
            "The journal says that the row was written: restore it from the backup of facturas. "
            "Was FACTURAS_DATABASE_URL changed?",
            ("execution", "node", "action", "invoice"),
            missing,
        ),
        Finding(
            "Invoices of unknown executions",
            "error",
            "No execution has this number: was nova-db restored from an older backup, or DATABASE_URL changed?",
            ("execution", "invoices"),
            _invoices_of(databases.facturas, orphans),
        ),
    ]


def _numbers(database: Database, column: InstrumentedAttribute[Any], *where: Any) -> set[int]:
    with database.read() as session:
        return set(session.scalars(select(column).where(column.is_not(None), *where).distinct()))


def _present(database: Database, column: InstrumentedAttribute[Any], wanted: Iterable[int]) -> set[int]:
    found: set[int] = set()
    with database.read() as session:
        for piece in chunks(sorted(set(wanted))):
            found.update(session.scalars(select(column).where(column.in_(piece))))
    return found


def _claims(nova: Database, execution_ids: Sequence[int]) -> list[tuple[int, str, str, int | None]]:
    """What `invoice_write` recorded for executions: (execution, node, action, invoice).

    The journal and not the result is asked: code of a workflow may write there what it likes.
    """
    output = type_coerce(ChainRow.output_result, JSON)
    found: list[tuple[int, str, str, int | None]] = []
    with nova.read() as session:
        for piece in chunks(execution_ids):
            query = (
                select(
                    ChainRow.execution_id,
                    ChainRow.node_id,
                    output["action_taken"].as_string(),
                    output["invoice_id"].as_integer(),
                )
                .where(
                    ChainRow.execution_id.in_(piece),
                    ChainRow.node_type == "invoice_write",
                    ChainRow.status == "success",
                )
                .order_by(ChainRow.execution_id)
            )
            found += [(execution, node, action, invoice) for execution, node, action, invoice in session.execute(query)]
    return found


def _invoices_of(facturas: Database, execution_ids: Sequence[int]) -> list[tuple[object, ...]]:
    found: dict[int | None, list[str]] = {}
    with facturas.read() as session:
        for piece in chunks(execution_ids):
            query = (
                select(Invoice.processed_by_execution_id, Invoice.id)
                .where(Invoice.processed_by_execution_id.in_(piece))
                .order_by(Invoice.id)
            )
            for execution_id, invoice_id in session.execute(query):
                found.setdefault(execution_id, []).append(str(invoice_id))
    return [(execution_id, ", ".join(ids)) for execution_id, ids in found.items()]


# ---------------------------------------------------------------- runs


def dead_runs(nova: Database, ended: Callable[[Sequence[str]], dict[str, str]], now: datetime) -> Finding:
    """Executions at work whose run is over. `ended`: how the runs of these ids ended, without those that live.

    Executions that began less than STUCK ago may be on their way to a run that is not to be seen yet: those
    count only if their run did end.
    """
    at_work = select(Execution).where(Execution.status.in_(["running", "pending"]), Execution.run_id.is_not(None))
    with nova.read() as session:
        suspects = list(session.scalars(at_work.order_by(Execution.id)))
    over = ended(sorted({execution.run_id for execution in suspects if execution.run_id}))
    with nova.read() as session:  # once more: they may have come to their end meanwhile
        still = {
            (execution.id, execution.run_id)
            for piece in chunks(execution.id for execution in suspects)
            for execution in session.scalars(at_work.where(Execution.id.in_(piece)))
        }
    rows = [
        (execution.id, execution.status, execution.run_id or "", over[execution.run_id or ""])
        for execution in suspects
        if (execution.id, execution.run_id) in still
        and execution.run_id in over
        and (over[execution.run_id] != UNKNOWN_RUN or (execution.started_at or execution.created_at) < now - STUCK)
    ]
    numbers = " ".join(str(row[0]) for row in rows[:20])
    remedy = f"Nobody works on them any more: `nova executions retry {numbers}`. Does the daemon run, with its sensors?"
    return Finding("Executions of runs that are over", "error", remedy, ("execution", "status", "run", "ended"), rows)


UNKNOWN_RUN = "not known to Dagster"
