"""The invoice table as an asset, and the reports that follow it.

Nodes of the kind `invoice_write` report the table's materializations; the reports are made here, from the table.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import dagster as dg

from nova_pipelines.compiler.report import table
from nova_pipelines.database.facturas import FacturasBase, Invoice
from nova_pipelines.domain.errors import NovaError, TransientError
from nova_pipelines.domain.money import format_amount
from nova_pipelines.nodes.invoice_write import KIND
from nova_pipelines.nodes.services import ServicesFactory
from nova_pipelines.orchestration import charts, frames
from nova_pipelines.orchestration.resources import services_resource
from nova_pipelines.settings import load_settings

T = TypeVar("T", bound=dg.AssetsDefinition)
INVOICES = dg.AssetKey(KIND.asset or "invoices")
GROUP = "facturas"
OWNERS = ["team:accounting"]

_ABOUT = {
    "client_slug": "The client whose mailbox the invoice came to.",
    "document_sha256": "SHA-256 of the document; a client's document is stored once.",
    "issue_date": "Date of issue, as it stands on the document.",
    "net_amount": "Taxable amount, before tax.",
    "tax_amount": "VAT (IVA), all rates together.",
    "total_amount": "What is to be paid: with tax, after withheld income tax (IRPF). Credit notes are negative.",
    "currency": "Code of ISO 4217.",
    "confidence": "How certain the reading is, from 0 to 1.",
    "status": "`accepted`, or `pending_approval` for a person to decide; then `approved` or `rejected`.",
    "processed_by_execution_id": "The execution that stored the row: `nova chain show` tells how.",
}


def _table_schema() -> dg.TableSchema:
    invoices_table = FacturasBase.metadata.tables[Invoice.__tablename__]
    columns = [
        dg.TableColumn(
            column.name,
            str(column.type),
            description=_ABOUT.get(column.name),
            constraints=dg.TableColumnConstraints(nullable=bool(column.nullable), unique=bool(column.primary_key)),
        )
        for column in invoices_table.columns
    ]
    unique = [
        f"unique: {', '.join(column.name for column in index.columns)}"
        for index in sorted(invoices_table.indexes, key=lambda index: str(index.name))
        if index.unique
    ]
    return dg.TableSchema(columns, constraints=dg.TableConstraints(unique))


invoices = dg.AssetSpec(
    INVOICES,
    description="The table `invoices` of facturas: one row for each invoice, stored exactly once. Written by the "
    "nodes `invoice_write` of workflows; each run that worked on it tells its number of rows and the newest of them.",
    group_name=GROUP,
    owners=OWNERS,
    kinds={"sql", "table"},
    tags={"nova/database": "facturas"},
    metadata={"dagster/column_schema": _table_schema(), "dagster/table_name": f"facturas.{Invoice.__tablename__}"},
)


def _report(
    name: str,
    description: str,
    columns: dict[str, tuple[str, str]],
    frame_of: Callable[[Any], Any],
    chart_of: Callable[[Any, Path], bytes | None],
) -> dg.AssetsDefinition:
    schema = dg.TableSchema([dg.TableColumn(key, kind, description=text) for key, (kind, text) in columns.items()])

    @dg.asset(
        name=name,
        description=description,
        deps=[INVOICES],
        group_name=GROUP,
        owners=OWNERS,
        kinds={"pandas", "csv"},
        metadata={"dagster/column_schema": schema},
        required_resource_keys={"services"},
        automation_condition=dg.AutomationCondition.eager(),
        retry_policy=dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL),
    )
    def report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        factory: ServicesFactory = context.resources.services
        home = load_settings().nova_home
        path = home / "reports" / f"{name}.csv"
        with readable_errors():
            read = frames.read_invoices(factory.services.databases.facturas)
            frame = frame_of(read)
            frames.write_csv(frame, path)
            png = chart_of(frame, home / "cache" / "matplotlib")
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": len(frame),
                "invoices": len(read),
                "chart": dg.MetadataValue.md(charts.as_markdown(png, description)),
                "table": dg.MetadataValue.md(table(list(frame.columns), frames.cells(frame, format_amount))),
                "CSV": dg.MetadataValue.path(path),
            }
        )

    return bind(report)


def bind(definition: T) -> T:
    """The asset or check with its services: a repository, unlike Definitions, binds none by itself."""
    (bound,) = dg.with_resources([definition], {"services": services_resource})
    return cast("T", bound)


@contextmanager
def readable_errors() -> Iterator[None]:
    """NOVA's errors end a step with their text and not with a traceback; only passing ones are tried again."""
    try:
        yield
    except NovaError as error:
        raise dg.Failure(description=str(error), allow_retries=isinstance(error, TransientError)) from error


invoices_by_month = _report(
    "invoices_by_month",
    "Invoices by month of issue, currency and status. Amounts of different currencies are never added up.",
    {
        "month": ("string", "Month of issue, such as 2026-08; `unknown` where no date was read."),
        "currency": ("string", "Code of ISO 4217."),
        "status": ("string", "`accepted`, `pending_approval`, `approved` or `rejected`."),
        "count": ("int", "Number of invoices."),
        "net": ("decimal", "Sum of the net amounts that were read."),
        "tax": ("decimal", "Sum of the taxes that were read."),
        "total": ("decimal", "Sum of the totals, which every invoice has."),
    },
    frames.by_month,
    charts.month_chart,
)

invoices_by_supplier = _report(
    "invoices_by_supplier",
    "Invoices by supplier and currency, whatever their status. A supplier is known by its tax id, else by its name.",
    {
        "supplier": ("string", "Name, as it was read last."),
        "tax_id": ("string", "Tax id, as it was read last."),
        "currency": ("string", "Code of ISO 4217."),
        "count": ("int", "Number of invoices."),
        "total": ("decimal", "Sum of the totals."),
        "last_date": ("date", "Last date of issue."),
    },
    frames.by_supplier,
    charts.supplier_chart,
)

TABLE = dg.AssetsDefinition(specs=[invoices])
ASSETS = [TABLE, invoices_by_month, invoices_by_supplier]


def with_mail(fixed: Sequence[Any], mail: Sequence[dg.AssetSpec]) -> list[Any]:
    """The fixed definitions with the clients' mail, and the invoice table below it in the lineage."""
    if not mail:
        return list(fixed)
    table = dg.AssetsDefinition(specs=[invoices.replace_attributes(deps=[spec.key for spec in mail])])
    return [*(table if one is TABLE else one for one in fixed), dg.AssetsDefinition(specs=mail)]


#: on without a click; once a minute, so that many small runs cause few reports
SENSORS = [
    dg.AutomationConditionSensorDefinition(
        "reports_and_checks_sensor",
        target=dg.AssetSelection.assets(INVOICES, *(asset.key for asset in (invoices_by_month, invoices_by_supplier))),
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes the reports anew and runs the checks after the invoice table was written.",
    )
]
