"""Executions are found, listed, released for another try, and closed when their run is gone."""

from __future__ import annotations

import pytest

from nova_pipelines.database.executions import (
    MAX_LOST_RUNS,
    close_unfinished,
    count_by_status,
    find_execution,
    list_executions,
    release,
    with_status,
)
from nova_pipelines.database.nova import Execution, OutboxMail
from nova_pipelines.database.session import Database, Databases
from nova_pipelines.domain.errors import NotFound
from nova_pipelines.nodes.assignment import new_execution
from nova_pipelines_tests.fixtures.chains import publish_chained

STATUSES = ["pending", "running", "in_approval", "completed", "failed", "needs_review", "unknown"]


@pytest.fixture
def nova(databases: Databases) -> Database:
    return databases.nova


@pytest.fixture
def numbers(nova: Database) -> dict[str, int]:
    """One execution of each status, all of them held by a run."""
    workflow_id, version_id = publish_chained(nova)
    found: dict[str, int] = {}
    with nova.session() as session:
        for status in STATUSES:
            execution = new_execution(workflow_id, version_id, None, {})
            execution.status, execution.run_id = status, "run-1"
            if status in ("failed", "needs_review", "unknown"):
                execution.error, execution.failed_node, execution.result = "no luck", "tell", {"a": 1}
            session.add(execution)
            session.flush()
            found[status] = execution.id
    return found


def execution(nova: Database, number: int) -> Execution:
    with nova.read() as session:
        row = session.get_one(Execution, number)
        session.expunge(row)
        return row


@pytest.mark.parametrize("status", ["failed", "needs_review"])
def test_what_failed_or_waits_for_a_person_is_released(nova: Database, numbers: dict[str, int], status: str):
    with nova.session() as session:
        result = release(session, [numbers[status]])

    row = execution(nova, numbers[status])
    assert result.released == [row.id]
    assert (row.status, row.run_id, row.requested_at) == ("pending", None, None)
    assert (row.error, row.failed_node, row.result, row.completed_at) == (None, None, None, None)


def test_kept_for_a_run_of_this_process(nova: Database, numbers: dict[str, int]):
    with nova.session() as session:
        release(session, [numbers["failed"]], run_key="key-1")

    row = execution(nova, numbers["failed"])
    assert row.run_id == "key-1"
    assert row.requested_at is not None  # a run that never comes is asked for again


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("pending", "waiting already"),
        ("running", "it is running (run run-1)"),
        ("in_approval", "a person decides about it"),
        ("completed", "it is completed"),
        ("unknown", "may have been done already (no luck)"),
    ],
)
def test_everything_else_is_refused_with_its_reason(nova: Database, numbers: dict[str, int], status: str, reason: str):
    before = execution(nova, numbers[status]).run_id

    with nova.session() as session:
        result = release(session, [numbers[status], numbers["failed"]])

    assert result.released == [numbers["failed"]]
    assert [refusal.execution_id for refusal in result.refused] == [numbers[status]]
    assert reason in result.refused[0].reason
    assert (execution(nova, numbers[status]).status, execution(nova, numbers[status]).run_id) == (status, before)


@pytest.mark.parametrize("number", [0, -1, 4711, 2**31, 10**30])
def test_a_number_that_does_not_exist(nova: Database, numbers: dict[str, int], number: int):
    with nova.session() as session:
        assert release(session, [number]).refused[0].reason == "there is no such execution"
    with nova.read() as session, pytest.raises(NotFound):
        find_execution(session, number)


@pytest.mark.parametrize(("before", "after"), [("unknown", "pending"), ("sending", "pending"), ("sent", "sent")])
def test_force_sends_a_mail_again_that_may_have_been_sent(
    nova: Database, numbers: dict[str, int], before: str, after: str
):
    with nova.session() as session:
        mail = OutboxMail(
            execution_id=numbers["unknown"],
            node_id="tell",
            message_id="<1@nova>",
            sender="a@x.es",
            recipient="b@x.es",
            subject="s",
            body="b",
            status=before,
        )
        session.add(mail)

    with nova.session() as session:
        assert release(session, [numbers["unknown"]], force=True).released == [numbers["unknown"]]

    with nova.read() as session:
        assert session.get_one(OutboxMail, mail.id).status == after
    assert execution(nova, numbers["unknown"]).status == "pending"


def test_force_does_not_touch_what_is_complete_or_at_work(nova: Database, numbers: dict[str, int]):
    with nova.session() as session:
        result = release(session, [numbers["completed"], numbers["running"]], force=True)

    assert result.released == []


def test_a_number_given_twice_is_released_once(nova: Database, numbers: dict[str, int]):
    with nova.session() as session:
        result = release(session, [numbers["failed"], numbers["failed"]])

    assert (result.released, result.refused) == ([numbers["failed"]], [])


def test_lists_and_counts(nova: Database, numbers: dict[str, int]):
    with nova.read() as session:
        assert [row.execution.status for row in list_executions(session, limit=2)] == ["unknown", "needs_review"]
        assert [row.workflow for row in list_executions(session, statuses=["failed"])] == ["Chained"]
        assert list_executions(session, workflow_id=999) == []
        assert list_executions(session, client_id=1) == []
        assert with_status(session, "failed") == [numbers["failed"]]
        assert count_by_status(session) == dict.fromkeys(STATUSES, 1)


def test_a_run_that_is_gone_leaves_nothing_open(nova: Database, numbers: dict[str, int]):
    with nova.session() as session:
        assert close_unfinished(session, ["run-1", "key"], "the run ended") == 2

    assert [execution(nova, numbers[status]).status for status in STATUSES] == [
        "failed",
        "failed",
        "in_approval",
        "completed",
        "failed",
        "needs_review",
        "unknown",
    ]


def test_what_a_run_left_is_asked_for_again_and_not_for_ever(nova: Database, numbers: dict[str, int]):
    for turn in range(1, MAX_LOST_RUNS + 2):
        with nova.session() as session:
            session.get_one(Execution, numbers["running"]).run_id = "run-1"
            session.get_one(Execution, numbers["running"]).status = "running"
        with nova.session() as session:
            close_unfinished(session, ["run-1"], "the worker died", again=True)
        row = execution(nova, numbers["running"])
        assert row.error == "the worker died"
        if turn <= MAX_LOST_RUNS:
            assert (row.status, row.run_id, row.lost_runs) == ("pending", None, turn)
            assert row.waits_until is not None
    assert (row.status, row.lost_runs) == ("failed", MAX_LOST_RUNS)
