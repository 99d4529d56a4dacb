"""The asset checks of the invoice table: what a person would look for, after each time it was written."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import dagster as dg

from nova_pipelines.nodes.services import Services
from nova_pipelines.orchestration import invoice_audit, ledger_audit
from nova_pipelines.orchestration.assets import INVOICES, bind, readable_errors
from nova_pipelines.orchestration.findings import Finding, check_result
from nova_pipelines.orchestration.runs import ended_runs

Audit = Callable[[Services, dg.DagsterInstance], dg.AssetCheckResult]


def _check(name: str, description: str, audit: Audit) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=INVOICES,
        name=name,
        description=description,
        required_resource_keys={"services"},
        automation_condition=dg.AutomationCondition.eager(),
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        with readable_errors():
            return audit(context.resources.services.services, context.instance)

    return bind(evaluate)


def _of_table(audit: Callable[..., list[Finding]]) -> Audit:
    def run(services: Services, _instance: dg.DagsterInstance) -> dg.AssetCheckResult:
        facturas = services.databases.facturas
        return check_result(audit(facturas), {"invoices": invoice_audit.invoice_count(facturas)})

    return run


def account(services: Services, instance: dg.DagsterInstance) -> dg.AssetCheckResult:
    """Mails, executions, invoice rows and runs against each other."""
    now, databases = datetime.now(UTC), services.databases

    def ended(names: Sequence[str]) -> dict[str, str]:
        return ended_runs(instance, names, now)

    found = [
        ledger_audit.lost_mails(databases.nova),
        *ledger_audit.rows_and_executions(databases),
        ledger_audit.dead_runs(databases.nova, ended, now),
        *ledger_audit.stuck_mails(databases.nova, now),
        ledger_audit.settled_mails(databases.nova),
        ledger_audit.stuck_executions(databases.nova, now),
    ]
    return check_result(found, ledger_audit.counts(databases))


CHECKS = [
    _check(
        "no_duplicates",
        "No document, no number of a supplier and no work of an execution stands in the table twice. "
        "Warns of rows that look like the same invoice.",
        _of_table(invoice_audit.duplicates),
    ),
    _check(
        "amounts_positive",
        "No total is zero, and net and total have one sign. Warns of totals below zero, which are right for "
        "credit notes only.",
        _of_table(invoice_audit.amounts),
    ),
    _check(
        "totals_add_up",
        "Net + tax = total to the cent, where all three were read; less withheld income tax (IRPF), or with the "
        "surcharge of equivalence.",
        _of_table(invoice_audit.sums),
    ),
    _check(
        "every_mail_accounted_for",
        "Every mail that was taken up has an execution, every stored invoice its row, every row its execution, and "
        "no execution waits for a run that is over. Warns of mails that wait, were set aside, or are not marked yet.",
        account,
    ),
]
