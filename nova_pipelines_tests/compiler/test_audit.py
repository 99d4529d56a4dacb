"""Every kind of tampering with the chain of work is found and named, on both databases."""

# ruff: noqa: S608 - the SQL is made of constants and numbers of these tests

from __future__ import annotations

import pytest

from nova_pipelines.compiler.audit import Finding, read_chain, verify_chains
from nova_pipelines.compiler.lookup import chain_entries
from nova_pipelines.database.session import Database, Databases
from nova_pipelines_tests.fixtures.chains import change, write_chain

NODES = ["fetch", "decide", "save"]
BIG = {"text": "ñ" * 40_000}


@pytest.fixture
def nova(databases: Databases) -> Database:
    return databases.nova


@pytest.fixture
def chains(nova: Database) -> tuple[int, int]:
    """A chain of three rows with a big value, and one of two rows."""
    return write_chain(nova, NODES, context=BIG), write_chain(nova, NODES[:2], last="failed")


def row_ids(nova: Database, execution_id: int) -> list[int]:
    with nova.read() as session:
        return [row["id"] for row in read_chain(session, execution_id)]


def is_sqlite(nova: Database) -> bool:
    return nova.engine.dialect.name == "sqlite"


def named(findings: list[Finding], row_id: int) -> Finding:
    return next(finding for finding in findings if finding.row_id == row_id)


def test_untouched_chains_are_intact(nova: Database, chains: tuple[int, int]):
    report = verify_chains(nova)

    assert report.intact, report.findings
    assert (report.executions, report.rows) == (2, 5)


def test_one_execution_alone(nova: Database, chains: tuple[int, int]):
    change(nova, f"DELETE FROM chain_of_work WHERE execution_id = {chains[0]} AND seq = 2")

    assert verify_chains(nova, chains[1]).intact
    report = verify_chains(nova, chains[0])
    assert (report.executions, report.rows) == (1, 2)
    assert next((found.seq, found.row_id) for found in report.findings) == (2, None)


#: column → a new value for one row, as SQL
CHANGED = {
    "node_id": "'decidf'",
    "node_type": "'decisiom'",
    "code_executed": "'context[''x''] = 2'",
    "execution_time": "0.250001",
    "status": "'succesT'",
    "error_message": "'x'",
    "decision_result": "'trua'",
    "path_taken": "NULL",
    "run_id": "'run-x'",
    "prev_hash": "replace(prev_hash, substr(prev_hash, 9, 1), '_')",
    "hash": "replace(hash, substr(hash, 9, 1), '_')",
    "sandbox_seconds": "2.500001",
    "cost_nano_usd": "75626",
}


@pytest.mark.parametrize("column", CHANGED)
def test_one_byte_of_a_column(nova: Database, chains: tuple[int, int], column: str):
    target = row_ids(nova, chains[0])[1]

    change(nova, f"UPDATE chain_of_work SET {column} = {CHANGED[column]} WHERE id = {target}")

    report = verify_chains(nova)
    assert not report.intact
    found = named(report.findings, target)
    assert found.execution_id == chains[0]
    assert found.node_id == ("decidf" if column == "node_id" else "decide")
    assert all(finding.execution_id == chains[0] for finding in report.findings)


@pytest.mark.parametrize("column", ["input_context", "output_result"])
def test_one_byte_of_a_context(nova: Database, chains: tuple[int, int], column: str):
    target = row_ids(nova, chains[0])[1]
    text = f"replace(CAST({column} AS TEXT), 'value 1', 'value 7')"

    change(
        nova, f"UPDATE chain_of_work SET {column} = {text if is_sqlite(nova) else f'{text}::json'} WHERE id = {target}"
    )

    assert named(verify_chains(nova).findings, target).node_id == "decide"


def test_a_blank_in_a_context(nova: Database, chains: tuple[int, int]):
    """The same value in another text is a change too."""
    target = row_ids(nova, chains[0])[1]
    text = "replace(CAST(input_context AS TEXT), ':', ': ')"

    change(
        nova,
        f"UPDATE chain_of_work SET input_context = {text if is_sqlite(nova) else f'{text}::json'} WHERE id = {target}",
    )

    assert named(verify_chains(nova).findings, target)


def test_a_microsecond_of_the_time(nova: Database, chains: tuple[int, int]):
    target = row_ids(nova, chains[0])[1]
    later = "substr(timestamp, 1, 25) || CASE substr(timestamp, 26, 1) WHEN '0' THEN '1' ELSE '0' END"
    value = later if is_sqlite(nova) else "timestamp + interval '1 microsecond'"

    change(nova, f"UPDATE chain_of_work SET timestamp = {value} WHERE id = {target}")

    assert named(verify_chains(nova).findings, target)


@pytest.mark.parametrize("value", ["'infinity'", "'4713-01-01 BC'"])
def test_a_time_that_python_cannot_hold(nova: Database, chains: tuple[int, int], value: str):
    target = row_ids(nova, chains[0])[1]

    change(nova, f"UPDATE chain_of_work SET timestamp = {value} WHERE id = {target}")

    assert named(verify_chains(nova).findings, target)


def test_the_place_in_the_chain(nova: Database, chains: tuple[int, int]):
    target = row_ids(nova, chains[0])[1]

    change(nova, f"UPDATE chain_of_work SET seq = 9 WHERE id = {target}")

    report = verify_chains(nova)
    assert named(report.findings, target)
    assert "row 2 is missing" in [finding.reason for finding in report.findings]


def test_a_row_moved_to_another_execution(nova: Database, chains: tuple[int, int]):
    target = row_ids(nova, chains[0])[2]

    change(nova, f"UPDATE chain_of_work SET execution_id = {chains[1]} WHERE id = {target}")

    report = verify_chains(nova)
    assert named(report.findings, target).execution_id == chains[1]
    assert [(f.execution_id, f.reason) for f in report.findings if f.row_id is None] == [
        (chains[0], "row 3 is missing")
    ]


def test_the_number_of_a_row(nova: Database, chains: tuple[int, int]):
    first, second, third = row_ids(nova, chains[0])

    change(nova, f"UPDATE chain_of_work SET id = 1000 WHERE id = {second}")

    assert named(verify_chains(nova).findings, third).reason == "the row's id is not after that of the row before"
    assert first < third


def test_removed_rows(nova: Database, chains: tuple[int, int]):
    change(nova, f"DELETE FROM chain_of_work WHERE execution_id = {chains[0]}")
    change(nova, f"DELETE FROM chain_of_work WHERE execution_id = {chains[1]} AND seq = 2")

    reasons = {(finding.execution_id, finding.reason) for finding in verify_chains(nova).findings}
    assert reasons == {(chains[0], "rows 1 to 3 are missing"), (chains[1], "row 2 is missing")}


def test_an_inserted_row(nova: Database, chains: tuple[int, int]):
    columns = (
        "node_type, code_executed, input_context, output_result, execution_time, decision_result, path_taken, "
        "run_id, timestamp, prev_hash, hash, error_message"
    )
    change(
        nova,
        f"INSERT INTO chain_of_work (id, execution_id, seq, node_id, status, {columns}) "
        f"SELECT 500, execution_id, 4, 'forged', 'stopped', {columns} FROM chain_of_work "
        f"WHERE execution_id = {chains[0]} AND seq = 3",
    )

    found = named(verify_chains(nova).findings, 500)
    assert (found.execution_id, found.node_id) == (chains[0], "forged")


@pytest.mark.parametrize(("column", "value"), [("chain_head", "'abc'"), ("chain_length", "7"), ("chain_length", "0")])
def test_what_the_execution_records(nova: Database, chains: tuple[int, int], column: str, value: str):
    change(nova, f"UPDATE executions SET {column} = {value} WHERE id = {chains[1]}")

    assert {finding.execution_id for finding in verify_chains(nova).findings} == {chains[1]}


@pytest.mark.parametrize("statement", ["DELETE FROM blobs", "UPDATE blobs SET data = {empty}"])
def test_a_big_value_outside_of_the_rows(nova: Database, chains: tuple[int, int], statement: str):
    change(nova, statement.format(empty="x'00'" if is_sqlite(nova) else "'\\x00'::bytea"))

    findings = verify_chains(nova).findings
    assert [(f.execution_id, f.row_id, f.node_id) for f in findings] == [
        (chains[0], row_ids(nova, chains[0])[0], "fetch")
    ]
    with nova.read() as session:  # and it can still be looked at
        assert "$unreadable" in chain_entries(session, chains[0])[0]["input_context"]


def test_more_executions_than_are_held_at_once(nova: Database, chains: tuple[int, int], monkeypatch):
    monkeypatch.setattr("nova_pipelines.compiler.audit._HEADS", 2)
    third = write_chain(nova, NODES)
    change(nova, f"UPDATE chain_of_work SET status = 'x' WHERE execution_id = {third} AND seq = 1")

    report = verify_chains(nova)
    assert (report.executions, report.rows) == (3, 8)
    assert {finding.execution_id for finding in report.findings} == {third}
