"""`nova costs`: what sandboxes cost, added up exactly, and by what prices."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from nova_pipelines.database.costs import costs
from nova_pipelines.database.nova import ChainRow
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.rates import SandboxRates
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import Nova, arithmetic
from nova_pipelines_tests.fixtures.chains import write_chain


def test_the_public_price_of_the_default_sandbox(nova: Nova):
    """2 vCPU and 0.5 GiB: $0.00003025 a second (nova-system.md, "Cost")."""
    rates = load_settings().e2b_rates
    assert rates.usd_per_second == Decimal("0.00003025")
    assert rates.nano_usd(1) == 30_250
    assert rates.nano_usd(0.0001) == 3  # to the nearest
    assert rates.as_of.year == 2026


def test_rates_are_settings(nova: Nova, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NOVA_E2B_VCPUS", "4")
    monkeypatch.setenv("NOVA_E2B_USD_PER_VCPU_SECOND", "0.00002")
    monkeypatch.setenv("NOVA_E2B_RATES_DATE", "2027-01-15")
    rates = load_settings().e2b_rates
    assert isinstance(rates, SandboxRates)
    assert rates.usd_per_second == Decimal("0.00008225")
    assert nova.json("costs")["rates"]["as_of"] == "2027-01-15"


def test_nothing_yet(nova: Nova):
    assert "no execution has used a sandbox" in nova("costs").out
    assert nova.json("costs")["costs"] == []


def test_a_run_is_accounted_for(nova: Nova, tmp_path):
    """By the local sandbox: seconds, and no price."""
    (tmp_path / "double.json").write_text(arithmetic())
    nova("workflow", "load", tmp_path / "double.json")
    nova("client", "add", "idom")
    nova.program("run", "double it", "--client", "idom", "--context", '{"amount": 12}', "--wait")
    (row,) = nova.json("costs")["costs"]
    assert (row["workflow"], row["client"], row["executions"]) == ("Double It", "idom", 1)
    assert 0 < row["sandbox_seconds"] < 60
    assert row["usd"] == "0.000000000"
    shown = nova.json("executions", "show", "1")
    assert shown["sandbox_seconds"] == pytest.approx(row["sandbox_seconds"], abs=0.001)
    entries = {entry["node_id"]: entry for entry in nova.json("chain", "show", "1")["entries"]}
    assert entries["work"]["sandbox_seconds"] > 0
    assert entries["work"]["cost_nano_usd"] == 0
    assert entries["start"]["sandbox_seconds"] is None


def test_sums_are_exact_on_both_databases(databases):
    """Each chain of the fixture has one row that cost 75,625 · 10⁻⁹ dollars."""
    nova: Database = databases.nova
    for _ in range(3):
        write_chain(nova, ["a", "b", "c"])
    with nova.read() as session:
        (row,) = costs(session)
        assert (row.workflow, row.client, row.executions) == ("Chained", None, 3)
        assert row.usd == Decimal("0.000226875")
        assert row.sandbox_seconds == pytest.approx(7.5)
        assert costs(session, since=utc_now() + timedelta(minutes=1)) == []
        assert session.query(ChainRow).count() == 9


def test_the_table_says_that_it_is_an_estimate(nova: Nova):
    database = Database(f"sqlite:///{nova.home / 'nova.db'}")
    write_chain(database, ["a", "b"])
    database.close()
    said = nova("costs", "--days", "7")
    assert "Chained" in said.out
    assert "0.0001" in said.out
    assert "an estimate by E2B's public prices of 2026-08-01" in said.err
