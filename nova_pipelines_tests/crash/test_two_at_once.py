"""Two workers at one execution at the same moment: one holds it, and the other one does nothing and says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nova_pipelines.compiler.audit import verify_chains
from nova_pipelines.compiler.chain_rows import Record
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.database.nova import Execution, OutboxMail
from nova_pipelines.database.session import Databases, open_databases
from nova_pipelines.domain.errors import Conflict, OutcomeUnknown
from nova_pipelines.nodes import send_mail
from nova_pipelines.nodes.services import MailPolicy, Services
from nova_pipelines_tests.crash.engine import Engine
from nova_pipelines_tests.crash.rows import add_executions
from nova_pipelines_tests.crash.ways import WAYS
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World


def test_of_two_runs_of_one_execution_one_holds_it_and_the_other_says_so(world: World, engine: Engine):
    compiled = world.publish(INVOICE_PROCESSING)
    WAYS["high"].deliver(world)
    number = world.execution(compiled)
    runs = [engine.launch([number]), engine.launch([number])]
    workers = [engine.start(run_id) for run_id in runs]
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert sorted(engine.status(run_id) for run_id in runs) == ["FAILURE", "SUCCESS"]
    winner, loser = sorted(runs, key=engine.status, reverse=True)
    (text,) = engine.failures(loser)
    assert f"execution {number} is held by run {winner}" in text
    assert [row.run_id for row in world.chain(number)] == [winner] * len(WAYS["high"].nodes)
    assert len(world.sink.messages) == len(world.invoices()) == 1


def test_a_claim_is_given_once(databases: Databases, database_urls: tuple[str, str]):
    """Both databases: of runs that claim at the same moment each execution goes to one."""
    ids, version_id = add_executions(databases.nova, 20)
    barrier, taken = threading.Barrier(4), {}

    def claim(run_id: str) -> None:
        with open_databases(*database_urls) as own:
            barrier.wait(20)
            taken[run_id] = Journal(own.nova, run_id).claim(ids, version_id)

    _together(*(lambda name=f"run-{n}": claim(name) for n in range(4)))
    assert sorted(number for numbers in taken.values() for number in numbers) == ids
    with databases.nova.read() as session:
        for run_id, numbers in taken.items():
            assert all(session.get_one(Execution, number).run_id == run_id for number in numbers)


def _together(*work: Callable[[], Any]) -> None:
    errors: list[BaseException] = []

    def guarded(function: Callable[[], Any]) -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - shown by the test itself, below
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors, errors


def _record(number: int, node: str, status: str = "success") -> Record:
    return Record(number, node, "action", status, before={}, after={"n": 1}, seconds=0.0)


@pytest.mark.parametrize("status", ["success", "failed"])
def test_a_worker_that_was_given_up_for_dead_records_nothing_more(databases: Databases, status: str):
    (number,), version_id = add_executions(databases.nova, 1)
    zombie = Journal(databases.nova, "first")
    zombie.claim([number], version_id)
    zombie.record([_record(number, "a")])
    heir = Journal(databases.nova, "second", frozenset({"first"}))
    assert heir.claim([number], version_id) == [number]
    with pytest.raises(Conflict, match=f"execution {number} is held by run second now"):
        zombie.record([_record(number, "b", status)])
    heir.record([_record(number, "b")])
    report = verify_chains(databases.nova)
    assert (report.rows, report.findings) == (2, [])


def test_an_outbox_row_is_begun_once(databases: Databases, database_urls: tuple[str, str]):
    """Both databases: should two workers ever stand at the same mail, one sends it and the other does not know."""
    (number,), _ = add_executions(databases.nova, 1)
    with databases.nova.session() as session:
        texts = {"message_id": "<a@b>", "sender": "a@b", "recipient": "c@d", "subject": "s", "body": "b"}
        row = OutboxMail(execution_id=number, node_id="tell", **texts)
        session.add(row)
        session.flush()
        row_id = row.id
    barrier, answers = threading.Barrier(4), []

    def begin() -> None:
        with open_databases(*database_urls) as own:
            services = cast("Services", SimpleNamespace(databases=own, mail_policy=MailPolicy()))
            barrier.wait(20)
            try:
                answers.append(send_mail._begin(services, row_id).state)
            except OutcomeUnknown:
                answers.append(None)

    _together(*[begin] * 4)
    assert answers.count("send") == 1
    assert answers.count(None) == 3


def test_an_execution_that_is_gone_is_said(databases: Databases):
    (number,), version_id = add_executions(databases.nova, 1)
    journal = Journal(databases.nova, "run")
    assert journal.claim([number, 99], version_id) == [number]
    assert journal.left_alone([number, 99]) == ["there is no execution 99"]
    with pytest.raises(Conflict, match="execution 99 is held by no run"):
        journal.record([_record(99, "a")])
