"""What only SQLite can hold: columns of any type and text of any bytes. None of it hides a row or stops an audit."""

# ruff: noqa: S608 - the SQL is made of constants and numbers of these tests

from __future__ import annotations

import pytest

from nova_pipelines.compiler.audit import read_chain, verify_chains
from nova_pipelines.compiler.lookup import chain_entries
from nova_pipelines.database.session import Database, Databases
from nova_pipelines_tests.compiler.test_audit import named
from nova_pipelines_tests.fixtures.chains import change, write_chain


@pytest.fixture
def database_kind() -> str:
    return "sqlite"


@pytest.fixture
def nova(databases: Databases) -> Database:
    return databases.nova


@pytest.fixture
def sqlite_chain(nova: Database) -> int:
    """The second row of the chain of execution 1, which has three."""
    write_chain(nova, ["fetch", "decide", "save"])
    with nova.read() as session:
        return read_chain(session, 1)[1]["id"]


@pytest.mark.parametrize("value", ["'{\"a\": '", "CAST(x'ff7b' AS TEXT)", "x'00'", "9e999", "'[[[['"])
@pytest.mark.parametrize("column", ["input_context", "output_result", "execution_time", "timestamp", "node_id", "hash"])
def test_unreadable_values_are_named(nova: Database, sqlite_chain: int, column: str, value: str):
    change(nova, f"UPDATE chain_of_work SET {column} = {value} WHERE id = {sqlite_chain}")

    assert named(verify_chains(nova).findings, sqlite_chain).execution_id == 1
    with nova.read() as session:  # and can be looked at
        assert len(chain_entries(session, 1)) == 3


def test_a_place_that_is_no_number(nova: Database, sqlite_chain: int):
    change(nova, f"UPDATE chain_of_work SET seq = 'second' WHERE id = {sqlite_chain}")

    assert named(verify_chains(nova).findings, sqlite_chain).reason.endswith("is no number")


def test_another_spelling_of_the_same_time(nova: Database, sqlite_chain: int):
    change(nova, f"UPDATE chain_of_work SET timestamp = replace(timestamp, ' ', 'T') WHERE id = {sqlite_chain}")

    assert named(verify_chains(nova).findings, sqlite_chain)


def test_a_row_of_no_execution(nova: Database, sqlite_chain: int):
    change(nova, f"UPDATE chain_of_work SET execution_id = 'gone' WHERE id = {sqlite_chain}")

    found = named(verify_chains(nova).findings, sqlite_chain)
    assert (found.execution_id, found.node_id) == (None, "decide")
    assert "'gone'" in found.reason


def test_a_length_that_is_no_number(nova: Database, sqlite_chain: int):
    change(nova, "UPDATE executions SET chain_length = 'three' WHERE id = 1")

    assert "the execution's recorded length is no number" in [f.reason for f in verify_chains(nova).findings]
