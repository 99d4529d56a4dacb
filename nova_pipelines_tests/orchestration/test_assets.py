"""Reports of the invoice table, made by Dagster from real databases: exact, honest about currencies, safe to read."""

import base64
import csv
import stat
import struct
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import dagster as dg
import pytest

from nova_pipelines.orchestration import charts, frames
from nova_pipelines.orchestration.assets import ASSETS, SENSORS, invoices_by_month, invoices_by_supplier
from nova_pipelines.orchestration.checks import CHECKS
from nova_pipelines_tests.orchestration.rows import HOSTILE, add_invoice

PNG = b"\x89PNG\r\n\x1a\n"


def materialize(asset):
    """The metadata of the asset's materialization."""
    result = dg.materialize([asset])
    (event,) = result.asset_materializations_for_node(asset.op.name)
    return {key: value.value for key, value in event.metadata.items()}


def rows_of(metadata):
    with Path(metadata["CSV"]).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.reader(file))


def picture(metadata):
    text = metadata["chart"]
    assert text.startswith("![")
    png = base64.b64decode(text.partition("base64,")[2].removesuffix(")"), validate=True)
    assert png.startswith(PNG)
    return png


@pytest.mark.usefixtures("database_settings")
def test_sums_are_exact_and_currencies_stay_apart(databases):
    for total in ("0.10", "0.20"):
        add_invoice(databases, issue_date=date(2026, 8, 3), net_amount="0.05", tax_amount="0.01", total_amount=total)
    add_invoice(databases, issue_date=date(2026, 8, 4), total_amount="0.30", currency="USD")
    add_invoice(databases, issue_date=date(2026, 8, 4), total_amount="1500", status="pending_approval")
    add_invoice(databases, issue_date=date(2026, 7, 31), total_amount="1500", currency="JPY")
    add_invoice(databases, issue_date=None, total_amount="9.99")
    metadata = materialize(invoices_by_month)
    assert rows_of(metadata) == [
        ["month", "currency", "status", "count", "net", "tax", "total"],
        ["2026-07", "JPY", "accepted", "1", "", "", "1500"],
        ["2026-08", "EUR", "accepted", "2", "0.10", "0.02", "0.30"],
        ["2026-08", "EUR", "pending_approval", "1", "", "", "1500.00"],
        ["2026-08", "USD", "accepted", "1", "", "", "0.30"],
        ["unknown", "EUR", "accepted", "1", "", "", "9.99"],
    ]
    assert metadata["dagster/row_count"] == 5
    assert metadata["invoices"] == 6
    assert "| 2026-08 | EUR | accepted | 2 | 0,10 € | 0,02 € | 0,30 € |" in metadata["table"]
    assert len(picture(metadata)) < 60_000


@pytest.mark.usefixtures("database_settings")
def test_sums_keep_what_a_float_would_lose(databases):
    for total in ("90071992547.41", "90071992547.41", "0.01"):
        add_invoice(databases, issue_date=date(2026, 1, 1), total_amount=total)
    assert rows_of(materialize(invoices_by_month))[1][-1] == "180143985094.83"


@pytest.mark.usefixtures("database_settings")
def test_an_empty_table_gives_empty_reports(databases):
    for asset in (invoices_by_month, invoices_by_supplier):
        metadata = materialize(asset)
        assert metadata["dagster/row_count"] == 0
        assert len(rows_of(metadata)) == 1
        assert metadata["chart"] == "There are no invoices yet."


@pytest.mark.usefixtures("database_settings")
def test_suppliers_are_known_by_tax_id_else_by_name(databases):
    same = {"currency": "EUR", "total_amount": "100.00"}
    add_invoice(databases, supplier_name="Papel", supplier_tax_id="B-12345678", issue_date=date(2026, 5, 1), **same)
    add_invoice(databases, supplier_name="Papel S.L.", supplier_tax_id="b12345678", issue_date=date(2026, 4, 1), **same)
    add_invoice(databases, supplier_name="Papel S.L.", supplier_tax_id="B12345678", currency="USD", total_amount="7")
    add_invoice(databases, supplier_name="Tinta  SA", supplier_tax_id=None, **same)
    add_invoice(databases, supplier_name="TINTA SA", supplier_tax_id=None, **same | {"status": "pending_approval"})
    add_invoice(databases, supplier_name=None, supplier_tax_id=None, total_amount="-50")
    assert rows_of(materialize(invoices_by_supplier)) == [
        ["supplier", "tax_id", "currency", "count", "total", "last_date"],
        ["Papel S.L.", "b12345678", "EUR", "2", "200.00", "2026-05-01"],
        ["TINTA SA", "unknown", "EUR", "2", "200.00", ""],
        ["unknown", "unknown", "EUR", "1", "-50.00", ""],
        ["Papel S.L.", "B12345678", "USD", "1", "7.00", ""],
    ]


@pytest.mark.usefixtures("database_settings")
def test_hostile_names_neither_break_the_report_nor_act_in_it(databases):
    for name in (HOSTILE, '=HYPERLINK("http://evil.example")', "two\r\nlines", "$\\frac{$", "x" * 10_000):
        add_invoice(databases, supplier_name=name, supplier_tax_id=None)
    metadata = materialize(invoices_by_supplier)
    lines = metadata["table"].splitlines()
    assert len(lines) == 2 + 5
    assert all(line.replace("\\|", "").count("|") == 7 for line in lines)
    assert "<" not in metadata["table"]
    assert "://" not in metadata["table"]  # the UI would make a link of it
    names = [row[0] for row in rows_of(metadata)[1:]]
    assert HOSTILE in names
    assert '\'=HYPERLINK("http://evil.example")' in names
    picture(metadata)


@pytest.mark.usefixtures("database_settings")
def test_a_report_is_replaced_at_once_and_for_its_owner_only(databases, tmp_path):
    first = Path(materialize(invoices_by_month)["CSV"])
    add_invoice(databases)
    with first.open("rb") as reader:  # somebody reads the old one meanwhile
        second = Path(materialize(invoices_by_month)["CSV"])
        assert reader.read().count(b"\n") == 1
    assert second == first == tmp_path / "home" / "reports" / "invoices_by_month.csv"
    assert stat.S_IMODE(first.stat().st_mode) == 0o600
    assert [path.name for path in first.parent.iterdir()] == ["invoices_by_month.csv"]


@pytest.mark.usefixtures("database_settings", "databases")
def test_a_folder_that_cannot_be_made_is_named_with_its_remedy(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "reports").write_text("a file is in the way")
    with pytest.raises(dg.Failure, match=r"reports.* cannot be made.*NOVA_HOME"):
        materialize(invoices_by_month)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "report.csv"
    path.write_bytes(b"old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exception, match="disk full"):
        frames.write_csv(frames._frame([], frames.MONTH_COLUMNS), path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("report.csv", b"old")]


def test_importing_the_assets_imports_neither_pandas_nor_matplotlib():
    program = (
        "import sys, nova_pipelines.orchestration.assets, nova_pipelines.orchestration.checks\n"
        "print(sorted({'pandas', 'numpy', 'matplotlib', 'pdfplumber'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def definitions():
    return dg.Definitions(assets=ASSETS, asset_checks=CHECKS, sensors=SENSORS)


def test_reports_and_checks_follow_a_materialization_of_the_table():
    everything = {asset.key for asset in (invoices_by_month, invoices_by_supplier)} | {
        key for check in CHECKS for key in check.check_keys
    }
    selection = dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks()
    with dg.DagsterInstance.ephemeral() as instance:

        def tick(cursor=None):
            return dg.evaluate_automation_conditions(definitions(), instance, cursor=cursor, asset_selection=selection)

        before = tick()
        assert before.total_requested == 0
        instance.report_runless_asset_event(dg.AssetMaterialization("invoices"))
        after = tick(before.cursor)
        assert {result.key for result in after.results if result.true_subset.size} == everything
        again = tick(after.cursor)
        assert again.total_requested == 0


def test_the_sensor_runs_by_default_and_covers_assets_and_checks():
    (sensor,) = SENSORS
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    graph = definitions().resolve_asset_graph()
    assert sensor.asset_selection.resolve(graph) == graph.get_all_asset_keys()
    assert sensor.asset_selection.resolve_checks(graph) == graph.asset_check_keys


def test_the_table_is_described_for_the_ui():
    (spec,) = [spec for asset in ASSETS for spec in asset.specs if spec.key == dg.AssetKey("invoices")]
    columns = {column.name: column for column in spec.metadata["dagster/column_schema"].columns}
    assert columns["total_amount"].type == "NUMERIC(18, 4)"
    assert columns["total_amount"].constraints.nullable is False
    assert columns["net_amount"].constraints.nullable is True
    assert spec.group_name == "facturas"


# ---------------------------------------------------------------- charts


def height(png):
    return struct.unpack(">I", png[20:24])[0]


def month_rows(*rows):
    return frames._frame([(*row[:3], 1, None, None, Decimal(row[3])) for row in rows], frames.MONTH_COLUMNS)


def test_each_currency_has_axes_of_its_own(tmp_path):
    one = charts.month_chart(month_rows(("2026-01", "EUR", "accepted", "1")), tmp_path)
    two = charts.month_chart(
        month_rows(("2026-01", "EUR", "accepted", "1"), ("2026-01", "USD", "accepted", "1")), tmp_path
    )
    assert height(two) == 2 * height(one)
    many = [{"currency": code, "count": 9 - i} for i, code in enumerate(("EUR", "USD", "GBP", "JPY", "CHF"))]
    assert charts.currencies(many) == ["EUR", "USD", "GBP", "JPY"]


def test_months_without_invoices_are_shown_and_misread_dates_push_none_out():
    assert charts.shown_months({"2025-12", "2026-02", "unknown"}) == ["2025-12", "2026-01", "2026-02", "unknown"]
    assert charts.shown_months({"1924-01", "2026-01", "2026-02", "2099-01"}) == [
        "1924-01",
        "2026-01",
        "2026-02",
        "2099-01",
    ]
    assert len(charts.shown_months({f"{year}-01" for year in range(1900, 2000)})) == charts.MAX_MONTHS
    assert charts.shown_months({"unknown"}) == ["unknown"]


def test_credit_notes_hang_below_the_line(tmp_path):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    rows = month_rows(("2026-01", "EUR", "accepted", "-40"), ("2026-01", "EUR", "pending_approval", "100"))
    charts._draw_months(axes, rows.to_dict("records"), "EUR")
    spans = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches)
    assert spans == [(0, -40), (0, 100)]


def test_signs_that_the_font_lacks_are_replaced():
    assert charts.readable("中文 Ñandú\u202e\x07") == "?? Ñandú??"
    assert len(charts.readable("x" * 100)) == 32
