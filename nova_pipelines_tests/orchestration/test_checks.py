"""Asset checks: each is broken by real rows of both databases, and says what is wrong and what to do."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import dagster as dg
import pytest
from sqlalchemy import text

from nova_pipelines.orchestration import invoice_audit, ledger_audit, runs
from nova_pipelines.orchestration.checks import CHECKS
from nova_pipelines.orchestration.findings import Finding, check_result
from nova_pipelines_tests.orchestration.rows import (
    HOSTILE,
    add_execution,
    add_invoice,
    add_message,
    add_workflow,
)

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
TWO_HOURS = timedelta(hours=2)

pytestmark = pytest.mark.usefixtures("database_settings")


def evaluate(name, instance=None):
    """Runs one check as Dagster does: (passed, severity, metadata)."""
    (check,) = [check for check in CHECKS if check.check_key.name == name]
    result = dg.materialize([check], instance=instance, selection=dg.AssetSelection.all_asset_checks())
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation.passed, evaluation.severity, {key: value.value for key, value in evaluation.metadata.items()}


def titles(metadata):
    return {key for key in metadata if key.endswith(")")}


def drop_unique_indexes(databases):
    with databases.facturas.session() as session:
        for name in ("uq_invoices_execution", "uq_invoices_document", "uq_invoices_business_key"):
            session.execute(text(f"DROP INDEX {name}"))


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", [check.check_key.name for check in CHECKS])
def test_an_empty_table_passes(databases, name):
    passed, severity, metadata = evaluate(name)
    assert passed
    assert severity is ERROR  # Dagster's default: a check that passed has no severity to tell
    assert (metadata["errors"], metadata["warnings"], titles(metadata)) == (0, 0, set())


@pytest.mark.parametrize("name", [check.check_key.name for check in CHECKS])
def test_sound_rows_pass(databases, name):
    ids = add_workflow(databases)
    message = add_message(databases, ids, status="flagged")
    first = add_execution(databases, ids, message_id=message, document_ordinal=0)
    add_invoice(databases, processed_by_execution_id=first, net_amount="100.00", tax_amount="21.00")
    passed, _, metadata = evaluate(name)
    assert passed, metadata


@pytest.mark.parametrize("name", ["no_duplicates", "every_mail_accounted_for"])
def test_a_table_that_is_missing_is_said_in_plain_words(databases, name):
    with databases.facturas.session() as session:
        session.execute(text("DROP TABLE invoices"))
    with pytest.raises(dg.Failure, match=r"lacks tables.*nova migrate"):
        evaluate(name)


# ---------------------------------------------------------------- duplicates


def test_rows_that_the_lost_indexes_let_in_are_found(databases):
    drop_unique_indexes(databases)
    same = [
        {"document_sha256": "ab" * 32},
        {"supplier_tax_id": "B1", "invoice_number": "7"},
        {"processed_by_execution_id": 4},
    ]
    ids = [[add_invoice(databases, **values), add_invoice(databases, **values)] for values in same]
    passed, severity, metadata = evaluate("no_duplicates")
    assert (passed, severity, metadata["errors"]) == (False, ERROR, 3)
    for title, pair in zip(
        ("The same document (1)", "The same supplier and number (1)", "The same execution and node (1)"),
        ids,
        strict=True,
    ):
        assert f"| {pair[0]}, {pair[1]} |" in metadata[title]


def test_the_same_keys_of_two_clients_and_missing_keys_are_no_duplicates(databases):
    shared = {"document_sha256": "ab" * 32, "supplier_tax_id": "B1", "invoice_number": "7"}
    for client in ("idom", "other"):
        add_invoice(databases, client_slug=client, **shared)
    for _ in range(2):
        add_invoice(databases, document_sha256=None, supplier_tax_id=None, invoice_number=None)
    assert evaluate("no_duplicates")[0]


def test_one_invoice_read_twice_a_little_differently_is_a_warning(databases):
    one = add_invoice(databases, supplier_tax_id="B-123", invoice_number="F 2026/7", total_amount="99.10")
    two = add_invoice(databases, supplier_tax_id="b123", invoice_number="f2026/7", total_amount="99.10")
    three = add_invoice(databases, supplier_tax_id=None, invoice_number="F2026-7", total_amount="99.10")
    others = [
        {"supplier_tax_id": "B1", "invoice_number": "8"},
        {"supplier_tax_id": "B2", "invoice_number": "8"},  # another supplier
        {"supplier_tax_id": "B-1", "invoice_number": "8", "total_amount": "5"},  # another amount
        {"supplier_tax_id": "B--1", "invoice_number": "8", "currency": "USD"},
    ]
    for values in others:
        add_invoice(databases, **values)
    passed, severity, metadata = evaluate("no_duplicates")
    assert (passed, severity, metadata["warnings"]) == (False, WARN, 1)
    assert f"| {one}, {two}, {three} | idom |" in metadata["Look like the same invoice (1)"]
    assert "99,10 €" in metadata["Look like the same invoice (1)"]


# ---------------------------------------------------------------- amounts


def test_zero_is_an_error(databases):
    number = add_invoice(databases, total_amount="0", net_amount="0")
    passed, severity, metadata = evaluate("amounts_positive")
    assert (passed, severity) == (False, ERROR)
    assert f"| {number} | idom |" in metadata["Total of zero (1)"]


def test_a_credit_note_is_a_warning(databases):
    add_invoice(databases, total_amount="-121", net_amount="-100", tax_amount="-21")
    add_invoice(databases, total_amount="-5")
    passed, severity, metadata = evaluate("amounts_positive")
    assert (passed, severity) == (False, WARN)
    assert titles(metadata) == {"Credit notes, or misread (2)"}
    assert "-121,00 €" in metadata["Credit notes, or misread (2)"]


@pytest.mark.parametrize(("net", "total"), [("100", "-121"), ("-100", "121")])
def test_net_and_total_of_opposite_sign_are_an_error(databases, net, total):
    add_invoice(databases, total_amount=total, net_amount=net)
    passed, severity, metadata = evaluate("amounts_positive")
    assert (passed, severity) == (False, ERROR)
    assert titles(metadata) == {"Net and total of opposite sign (1)"}


# ---------------------------------------------------------------- sums


@pytest.mark.parametrize(
    ("net", "tax", "total"),
    [
        ("0.10", "0.20", "0.30"),
        ("100.00", "21.00", "121.01"),
        ("-100.00", "-21.00", "-121.00"),
        ("82644628.10", "17355371.90", "100000000.00"),
        (None, "21.00", "9.99"),
        ("100.00", None, "9.99"),
    ],
)
def test_sums_to_the_cent_pass_without_a_word(databases, net, tax, total):
    add_invoice(databases, net_amount=net, tax_amount=tax, total_amount=total)
    passed, _, metadata = evaluate("totals_add_up")
    assert (passed, titles(metadata)) == (True, set())


def test_a_wrong_sum_is_an_error_and_a_rounding_a_warning(databases):
    wrong = add_invoice(databases, net_amount="100.00", tax_amount="21.00", total_amount="1210.00")
    add_invoice(databases, net_amount="100.00", tax_amount="21.00", total_amount="121.02")
    passed, severity, metadata = evaluate("totals_add_up")
    assert (passed, severity, metadata["invoices"]) == (False, ERROR, 2)
    assert titles(metadata) == {"Net and tax do not come to the total (1)", "Off by more than a cent (1)"}
    assert f"| {wrong} | idom |" in metadata["Net and tax do not come to the total (1)"]
    assert "-1.089,00 €" in metadata["Net and tax do not come to the total (1)"]
    assert "-0,02 €" in metadata["Off by more than a cent (1)"]


@pytest.mark.parametrize(
    ("net", "tax", "total", "words"),
    [
        ("1000.00", "210.00", "1060.00", "IRPF 15 %"),
        ("333.33", "70.00", "380.00", "IRPF 7 %"),
        ("-1000.00", "-210.00", "-1060.00", "IRPF 15 %"),
        ("1000.00", "210.00", "1020.00", "IRPF 19 %"),
        ("100.00", "21.00", "126.20", "recargo 5.2 %"),
    ],
)
def test_withheld_tax_and_surcharge_explain_a_difference(databases, net, tax, total, words):
    add_invoice(databases, net_amount=net, tax_amount=tax, total_amount=total)
    passed, _, metadata = evaluate("totals_add_up")
    assert passed
    (title,) = titles(metadata)
    assert words in metadata[title]


def test_a_few_cents_of_a_small_invoice_are_not_explained_away():
    assert invoice_audit.explain(Decimal("0.04"), Decimal("0.50")) == ("rounding", "")
    assert invoice_audit.explain(Decimal("0.50"), Decimal("0.50")) == ("wrong", "")


# ---------------------------------------------------------------- everything accounted for


def test_a_mail_without_an_execution_is_an_error_but_a_copy_is_not(databases):
    ids = add_workflow(databases)
    good = add_message(databases, ids, status="flagged")
    add_execution(databases, ids, message_id=good, document_ordinal=-1)
    add_message(databases, ids, status="flagged", duplicate_of=good)
    lost = [add_message(databases, ids, status=status, subject=HOSTILE) for status in ("assigned", "flagged")]
    passed, severity, metadata = evaluate("every_mail_accounted_for")
    assert (passed, severity, metadata["mails"]) == (False, ERROR, 4)
    shown = metadata["Mails without an execution (2)"]
    assert all(f"| {number} |" in shown for number in lost)
    assert f"| {good} |" not in shown
    assert "<" not in shown


def test_a_mail_that_is_done_and_not_marked_for_long_is_a_warning(databases):
    ids, now = add_workflow(databases), datetime.now(UTC)
    long_done, just_done, at_work, marked = (
        add_message(databases, ids, status="assigned", flagged_at=flagged_at) for flagged_at in (None, None, None, now)
    )
    for message, completed_at in ((long_done, now - TWO_HOURS), (just_done, now), (marked, now - TWO_HOURS)):
        add_execution(databases, ids, message_id=message, document_ordinal=0, completed_at=completed_at)
    add_execution(databases, ids, message_id=at_work, document_ordinal=0, completed_at=now - TWO_HOURS)
    add_execution(databases, ids, message_id=at_work, document_ordinal=1, status="needs_review")
    passed, severity, metadata = evaluate("every_mail_accounted_for")
    assert (passed, severity) == (False, WARN)
    assert titles(metadata) == {"Mails that are done and not marked in the mailbox (1)"}


def test_mails_that_a_person_settled_or_removed_are_accounted_for(databases):
    ids = add_workflow(databases)
    add_message(databases, ids, status="gone", age=TWO_HOURS, error="it was removed from the folder")
    settled = {"handled_at": datetime.now(UTC), "handled_by": "ana", "handled_note": "entered by hand"}
    add_message(databases, ids, status="quarantined", error="larger than allowed", **settled)
    passed, _, metadata = evaluate("every_mail_accounted_for")
    assert passed
    assert titles(metadata) == {"Mails without an execution, and why (2)"}


def test_mails_that_wait_too_long_or_were_set_aside_are_warnings(databases):
    ids = add_workflow(databases)
    for status in ("seen", "stored"):
        add_message(databases, ids, status=status)  # just came
        add_message(databases, ids, status=status, age=TWO_HOURS)
    add_message(databases, ids, status="quarantined", error="larger than allowed")
    add_message(databases, ids, status="duplicate", age=TWO_HOURS)
    passed, severity, metadata = evaluate("every_mail_accounted_for")
    assert (passed, severity, metadata["warnings"]) == (False, WARN, 3)
    assert titles(metadata) == {"Mails that wait for over an hour (2)", "Mails set aside (1)"}
    assert "larger than allowed" in metadata["Mails set aside (1)"]


def test_an_execution_that_nobody_asked_a_run_for_is_a_warning(databases):
    ids = add_workflow(databases)
    add_execution(databases, ids, status="pending")
    old = add_execution(databases, ids, status="pending", age=TWO_HOURS)
    passed, severity, metadata = evaluate("every_mail_accounted_for")
    assert (passed, severity) == (False, WARN)
    assert f"| {old} | Invoice Processing |" in metadata["Executions that wait for over an hour (1)"]


def test_stored_invoices_that_are_gone_are_found(databases):
    ids = add_workflow(databases)
    there = add_invoice(databases)
    saved = add_execution(databases, ids, wrote=("invoice_saved", 1))
    add_invoice(databases, processed_by_execution_id=saved)
    add_execution(databases, ids, wrote=("invoice_duplicate", there))
    gone = [
        add_execution(databases, ids, wrote=("invoice_saved", 4711)),
        add_execution(databases, ids, wrote=("invoice_duplicate", 4711)),
        add_execution(databases, ids, wrote=("invoice_saved", 4712), status="failed"),  # at a later node
    ]
    passed, severity, metadata = evaluate("every_mail_accounted_for")
    assert (passed, severity, metadata["errors"]) == (False, ERROR, 3)
    shown = metadata["Invoices that were stored and are gone (3)"]
    assert all(f"| {number} | save |" in shown for number in gone)
    assert metadata["executions completed"] == 4
    assert metadata["executions failed"] == 1


def test_what_code_says_of_itself_is_not_taken_for_a_stored_invoice(databases):
    """A definition of the old dialect sets `action_taken` and writes to its client's own database."""
    ids = add_workflow(databases)
    add_execution(databases, ids, result={"action_taken": "invoice_saved", "invoice_id": 5}, chain_length=3)
    assert evaluate("every_mail_accounted_for")[0]


def test_rows_of_unknown_executions_are_found(databases):
    ids = add_workflow(databases)
    known = add_execution(databases, ids)
    add_invoice(databases, processed_by_execution_id=known)
    add_invoice(databases, processed_by_execution_id=None)  # entered by hand
    lost = add_invoice(databases, processed_by_execution_id=9_999)
    passed, severity, metadata = evaluate("every_mail_accounted_for")
    assert (passed, severity) == (False, ERROR)
    assert metadata["Invoices of unknown executions (1)"].endswith(f"| 9999 | {lost} |")


def test_many_executions_are_read_in_pieces(databases):
    ids = add_workflow(databases)
    with databases.nova.session() as session:
        columns = "task_id, workflow_id, version_id, status, initial_context, chain_head, chain_length, created_at"
        values = f":task, {ids[2]}, {ids[3]}, 'completed', '{{}}', '', 1, :now"
        session.execute(
            text(f"INSERT INTO executions ({columns}) VALUES ({values})"),  # noqa: S608
            [{"task": f"many-{number}", "now": datetime.now(UTC)} for number in range(1_203)],
        )
    last = add_execution(databases, ids, wrote=("invoice_saved", 1))
    _, _, metadata = evaluate("every_mail_accounted_for")
    assert f"| {last} | save |" in metadata["Invoices that were stored and are gone (1)"]


# ---------------------------------------------------------------- runs


@dg.job
def nothing():
    pass


def a_run(instance, status, *, key=None, **tags):
    tags |= {runs.RUN_KEY: key} if key else {}
    run = instance.create_run_for_job(nothing, tags=tags)
    if status is dg.DagsterRunStatus.FAILURE:
        instance.report_run_failed(run)
    elif status is dg.DagsterRunStatus.CANCELED:
        instance.report_run_canceled(run)
    assert instance.get_run_by_id(run.run_id).status is status
    return run.run_id


FAILURE, STARTED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.NOT_STARTED


def later():
    return datetime.now(UTC) + timedelta(minutes=10)


def test_runs_that_ended_are_told_from_those_that_live(databases):
    with dg.DagsterInstance.ephemeral() as instance:
        live = a_run(instance, STARTED)
        dead = a_run(instance, FAILURE)
        canceled = a_run(instance, dg.DagsterRunStatus.CANCELED, key="key-1")
        a_run(instance, STARTED, key="key-2")
        goes_on = a_run(instance, FAILURE, **{runs.RETRY: live})
        gave_up = a_run(instance, FAILURE, **{runs.RETRY: dead})
        names = [live, dead, "key-1", "key-2", goes_on, gave_up, "never"]
        assert runs.ended_runs(instance, names, later()) == {
            dead: "failure",
            "key-1": "canceled",
            gave_up: "failure",
            "never": ledger_audit.UNKNOWN_RUN,
        }
        assert runs.ended_runs(instance, [canceled], later()) == {canceled: "canceled"}
        # the sensors that close its executions have not had their turn yet
        assert runs.ended_runs(instance, [dead], datetime.now(UTC)) == {}


def test_executions_of_dead_runs_are_errors(databases):
    ids = add_workflow(databases)
    now = datetime.now(UTC)
    dead = add_execution(databases, ids, status="running", run_id="dead")
    add_execution(databases, ids, status="completed", run_id="dead")
    add_execution(databases, ids, status="running", run_id="live")
    add_execution(databases, ids, status="running", run_id="never")
    forgotten = add_execution(databases, ids, status="running", run_id="never", age=TWO_HOURS)
    asked = add_execution(databases, ids, status="pending", run_id="dead-key")

    def ended(names):
        assert set(names) == {"dead", "live", "never", "dead-key"}
        return {"dead": "failure", "dead-key": "canceled", "never": ledger_audit.UNKNOWN_RUN}

    finding = ledger_audit.dead_runs(databases.nova, ended, now)
    assert [row[0] for row in finding.rows] == [dead, forgotten, asked]
    assert f"nova executions retry {dead} {forgotten} {asked}" in finding.remedy


def test_an_execution_that_ends_while_we_look_is_not_reported(databases):
    ids = add_workflow(databases)
    number = add_execution(databases, ids, status="running", run_id="dead")

    def ended(names):
        with databases.nova.session() as session:
            session.execute(text("UPDATE executions SET status = 'completed' WHERE id = :id"), {"id": number})
        return dict.fromkeys(names, "failure")

    assert ledger_audit.dead_runs(databases.nova, ended, datetime.now(UTC)).rows == []


def test_the_check_asks_its_own_instance_for_runs(databases):
    ids = add_workflow(databases)
    with dg.DagsterInstance.ephemeral() as instance:
        add_execution(databases, ids, status="running", run_id=a_run(instance, STARTED))
        assert evaluate("every_mail_accounted_for", instance)[0]
        add_execution(databases, ids, status="running", run_id="never", age=TWO_HOURS)
        passed, severity, metadata = evaluate("every_mail_accounted_for", instance)
    assert (passed, severity) == (False, ERROR)
    assert titles(metadata) == {"Executions of runs that are over (1)"}


# ---------------------------------------------------------------- words


def test_tables_are_capped_and_counts_are_not():
    rows = [(number,) for number in range(1_000)]
    result = check_result([Finding("Many", "warning", "Look.", ("id",), rows)], {"rows": 1_000})
    shown = result.metadata["Many (1000)"].value
    assert "… and 800 more" in shown
    assert "| 999 |" not in shown
    assert result.metadata["warnings"].value == 1_000


def test_notes_do_not_fail_a_check():
    assert check_result([Finding("Seen", "note", "Fine.", ("id",), [(1,)])], {}).passed
