"""The `dagster` command, as CI and administrators use it: no daemon, no NOVA process, waiting mail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nova_pipelines_tests.fixtures.postgres import clean_environment
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, ROOT, World, invoice_pdf

#: `job execute` of Dagster 1.13 reads no workspace file
EXECUTE = ["job", "execute", "-m", "nova_pipelines.definitions", "-j", "invoice_processing"]
PROGRAM = Path(sys.executable).parent / "dagster"
WORKSPACE = ["-w", "workspace.yaml"]


def dagster(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([PROGRAM, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == code, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return done


def test_before_the_first_migration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clean_environment(monkeypatch)
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("NOVA_HOME", str(tmp_path / "home"))

    done = dagster("definitions", "validate", *WORKSPACE, code=1)

    assert "does not exist yet (run `nova migrate`)" in done.stdout + done.stderr
    assert not (tmp_path / "home").exists()


@pytest.fixture(params=["with DAGSTER_HOME", "without DAGSTER_HOME"])
def dagster_home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    if request.param.startswith("without"):
        return None
    home = tmp_path / "dagster"
    home.mkdir()
    shutil.copyfile(ROOT / "dagster.yaml", home / "dagster.yaml")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    return home


def test_validate_and_list(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    world.publish(INVOICE_PROCESSING)

    assert "All code locations passed validation" in dagster("definitions", "validate", *WORKSPACE).stdout
    listed = dagster("job", "list", *WORKSPACE).stdout

    ops = {line.strip() for line in listed.partition("Job: invoice_processing")[2].splitlines()}
    assert {"start", "mail_fetch", "has_pdf", "extract_invoice", "amount", "invoice_write", "end"} <= ops


def test_execute_takes_the_waiting_mail(world: World, dagster_home: Path | None):
    world.publish(INVOICE_PROCESSING)
    uid = world.deliver(invoice_pdf("242.00"))
    before = files_here()

    done = dagster(*EXECUTE)

    assert "RUN_SUCCESS" in done.stderr
    (invoice,) = world.invoices()
    assert (f"{invoice.total_amount:.2f}", invoice.currency, invoice.status) == ("242.00", "EUR", "accepted")
    assert [row.status for row in world.executions()] == ["completed"]
    assert "\\Seen" in world.user.flags()[uid]
    assert files_here() == before
    if dagster_home is not None:
        assert (dagster_home / "history").exists()


def files_here() -> set[str]:
    """Dagster makes a folder for the time being; other tests may be making theirs."""
    return {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}


def test_execute_fails_where_the_work_fails(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    world.publish(INVOICE_PROCESSING)
    uid = world.deliver(b"%PDF-1.7\nbroken")

    done = dagster(*EXECUTE, code=1)

    assert "execution 1 at extract_invoice" in done.stderr
    assert world.invoices() == []
    assert "\\Seen" not in world.user.flags()[uid]
