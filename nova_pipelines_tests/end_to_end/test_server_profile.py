"""The server profile without containers: the commands of docker-compose.yml on a real PostgreSQL, with a real
mailbox and a real SMTP server; deploy/process/dagster.yaml in place of deploy/dagster.yaml (the launcher alone)."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from email.message import EmailMessage
from typing import Any, Literal

import pytest
from sqlalchemy import create_engine, text

from nova_pipelines.settings import normalise_database_url
from nova_pipelines_tests.deploy.compose import ROOT
from nova_pipelines_tests.deploy.engine import Engine
from nova_pipelines_tests.deploy.stack import PASSWORD, Stack, created_databases, wait_until
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser, require_dovecot
from nova_pipelines_tests.fixtures.smtp_sink import USER, SmtpSink
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, SENDER, invoice_pdf

NODES = ["start", "mail_fetch", "has_pdf", "extract_invoice", "amount", "invoice_write", "end"]
JOB = {"repositoryName": "__repository__", "repositoryLocationName": "nova"}

RUNS = "{runsOrError{... on Runs{results{runId status jobName tags{key value}}}... on PythonError{message}}}"
SENSOR = """query($s:SensorSelector!){sensorOrError(sensorSelector:$s){
  ... on Sensor{sensorState{id}} ... on PythonError{message}}}"""
START = """mutation($s:SensorSelector!){startSensor(sensorSelector:$s){
  ... on Sensor{sensorState{status}} ... on PythonError{message}}}"""
STOP = """mutation($id:String!){stopSensor(id:$id){
  ... on StopSensorMutationResult{instigationState{status}} ... on PythonError{message}}}"""
LAUNCH = """mutation($p:ExecutionParams!){launchRun(executionParams:$p){__typename
  ... on LaunchRunSuccess{run{runId}} ... on PythonError{message}
  ... on RunConfigValidationInvalid{errors{message}}}}"""


@pytest.fixture
def urls(postgres_server):
    with created_databases(postgres_server) as made:
        yield made


@pytest.fixture
def user():
    """A mailbox whose name and password the SMTP sink takes too: a client has one account for both."""
    require_dovecot()
    with DovecotServer() as dovecot:
        fresh = dovecot.new_user()
        yield dataclasses.replace(fresh, name=USER, home=fresh.home.with_name(USER))


@pytest.fixture
def sink():
    with SmtpSink(login=True) as made:
        yield made


@pytest.fixture
def stack(urls, tmp_path, request):
    with running(Stack(tmp_path, urls, _free_ports()), request) as made:
        yield made


@contextmanager
def running(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Stack]:
    """Ends the stack's processes; shows their logs when the test failed."""
    failures = request.session.testsfailed
    try:
        yield stack
    finally:
        stack.stop()
        if request.session.testsfailed > failures:
            sys.stderr.write(stack.logs())


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


@pytest.mark.timeout(240)
def test_mail_becomes_a_row_by_graphql_and_by_sensor(stack, user, sink):
    stack.run("migrate")
    stack.start("code")
    _add_client(stack, user, sink)
    stack.wait_healthy("code")
    stack.start("web")
    stack.wait_healthy("web")
    assert "live now" in stack.run("code", ["nova", "workflow", "load", str(INVOICE_PROCESSING)])
    # before the daemon runs: a tick that is under way while its sensor is stopped would still take the mail
    _switch_sensor(stack, "stop")
    stack.start("daemon")

    first = _deliver(user, "60.50", "F-2026-001")
    run_id = _launch(stack, {"ops": {"start": {"config": {"client": "idom"}}}})
    assert _finished_runs(stack) == {run_id: "SUCCESS"}
    assert _invoices(stack) == {"F-2026-001": (Decimal("60.50"), "EUR", "accepted", "idom")}
    assert _seen(user) == {first}
    assert sink.messages == []

    _switch_sensor(stack, "start")
    low, high = _deliver(user, "423.50", "F-2026-002"), _deliver(user, "12100.00", "F-2026-003")
    rows = wait_until("three rows in facturas", lambda: len(found := _invoices(stack)) == 3 and found, seconds=60)
    assert rows["F-2026-002"] == (Decimal("423.50"), "EUR", "accepted", "idom")
    assert rows["F-2026-003"] == (Decimal("12100.00"), "EUR", "pending_approval", "idom")
    by_sensor = _finished_runs(stack, launched_by="mailbox_sensor")
    assert by_sensor.keys() == _finished_runs(stack).keys() - {run_id}
    assert set(by_sensor.values()) == {"SUCCESS"}
    wait_until(r"all mails are \Seen", lambda: _seen(user) == {first, low, high}, seconds=20)
    (answer,) = sink.wait_for(1)
    assert answer.recipients == [SENDER]

    by_graphql, low_amount, _ = _executions(stack)
    assert by_graphql["nodes"] == low_amount["nodes"] == NODES
    assert by_graphql["status"] == low_amount["status"] == "completed"
    assert by_graphql["result"].keys() == low_amount["result"].keys()

    stack.wait_healthy("daemon", seconds=30)
    assert list(stack.working_folder.iterdir()) == [], "read-only in the image"
    _leaves_no_secret(stack)


@pytest.mark.timeout(180)
def test_a_run_needs_no_more_than_its_container_is_given(urls, tmp_path, request, user, sink):
    """deploy/dagster.yaml unchanged, DockerRunLauncher with it; the engine alone is a stand-in, which runs a
    container's command with the image's environment and the variables that the launcher passes by name."""
    made: list[Stack] = []

    def start_container(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (tmp_path / "run.log").open("ab") as log:
            return subprocess.Popen(
                made[0].command(command),
                env=made[0].image_environment() | environment,
                cwd=made[0].working_folder,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    with Engine(start_container) as engine:
        configuration = ROOT / "deploy" / "dagster.yaml"
        made.append(Stack(tmp_path, urls, _free_ports(), configuration, engine.host))
        with running(made[0], request) as stack:
            stack.run("migrate")
            _add_client(stack, user, sink)
            stack.run("code", ["nova", "workflow", "load", str(INVOICE_PROCESSING)])
            stack.start("code")
            stack.wait_healthy("code")
            stack.start("daemon")
            low = _deliver(user, "423.50", "F-2026-001")
            rows = wait_until("a row in facturas", lambda: _invoices(stack), seconds=60)
            assert rows == {"F-2026-001": (Decimal("423.50"), "EUR", "accepted", "idom")}
            wait_until(r"the mail is \Seen", lambda: _seen(user) == {low}, seconds=20)
            (container,) = engine.containers.values()
            assert container.process is not None
            assert container.process.wait(20) == 0
            _leaves_no_secret(stack)
    assert engine.refused == []
    assert _refused_by_the_gate(engine.calls) == set()
    assert container.body["Image"] == "nova-pipelines:latest"
    assert container.networks == ["nova-db", "facturas-db", "nova-outside"]
    command = " ".join(container.body["Cmd"])
    assert PASSWORD not in command
    assert container.environment["NOVA_SECRET_KEY"] not in command


def _refused_by_the_gate(calls: list[str]) -> set[str]:
    """The calls that deploy/docker-start.conf would not let through."""
    text = (ROOT / "deploy/docker-start.conf").read_text(encoding="utf-8")
    rules = re.findall(r"location ~ (\S+) \{\s+limit_except (GET|POST) ", text)
    assert len(rules) == 2
    return {call for call in calls if not any(
        call.split()[0] == method and re.search(rule, call.split()[1]) for rule, method in rules)}  # fmt: skip


def _add_client(stack: Stack, user: MailUser, sink: SmtpSink) -> None:
    """As docs/deploy.md says, in the code server's container."""
    add = "nova client add idom --name IDOM --email facturas@idom.example --allow-sender @proveedores.example"
    stack.run("code", add.split())
    mailbox = (
        f"nova client credentials set idom email --user {user.name} --address facturas@idom.example "
        f"--imap-host {user.host} --imap-port {user.tls_port} --imap-tls ssl "
        f"--smtp-host {sink.host} --smtp-port {sink.port} --smtp-tls none "
        f"--ca-file {user.ca_file} --password-env MAIL_PASSWORD"
    )
    stack.run("code", mailbox.split(), MAIL_PASSWORD=user.password)


def _deliver(user: MailUser, total: str, number: str) -> int:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = SENDER, "facturas@idom.example", f"Factura {number}"
    message["Message-ID"] = f"<{number}@proveedores.example>"
    message.set_content("Adjunto la factura.")
    message.add_attachment(
        invoice_pdf(total, number=number), maintype="application", subtype="pdf", filename=f"{number}.pdf"
    )
    return user.deliver(message)


def _seen(user: MailUser) -> set[int]:
    return {uid for uid, flags in user.flags().items() if "\\Seen" in flags}


def _invoices(stack: Stack) -> dict[str, tuple[Any, ...]]:
    rows = _rows(stack, "facturas", "SELECT invoice_number, total_amount, currency, status, client_slug FROM invoices")
    return {row[0]: tuple(row[1:]) for row in rows}


def _executions(stack: Stack) -> list[dict[str, Any]]:
    executions = _rows(stack, "nova", "SELECT id, status, result FROM executions ORDER BY id")
    chains = _rows(stack, "nova", "SELECT execution_id, node_id FROM chain_of_work ORDER BY execution_id, seq")
    return [
        {
            "status": status,
            "result": result if isinstance(result, dict) else json.loads(result),
            "nodes": [node for execution, node in chains if execution == number],
        }
        for number, status, result in executions
    ]


def _rows(stack: Stack, database: str, query: str) -> list[Any]:
    engine = create_engine(normalise_database_url(stack.urls[database]))
    try:
        with engine.connect() as connection:
            return list(connection.execute(text(query)))
    finally:
        engine.dispose()


def _graphql(stack: Stack, query: str, **variables: Any) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(f"{stack.url}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        found = json.load(answer)
    assert not found.get("errors"), found
    return found["data"]


def _finished_runs(stack: Stack, launched_by: str = "") -> dict[str, str]:
    """Status by id of the workflow's runs, once none is waiting or under way. (Reports have runs of their own.)

    `launched_by`: only of the runs that this sensor asked for.
    """

    def finished() -> list[dict[str, Any]] | None:
        found = _graphql(stack, RUNS)["runsOrError"]["results"]
        runs = [run for run in found if run["jobName"] == "invoice_processing"]
        return runs if all(run["status"] in ("SUCCESS", "FAILURE", "CANCELED") for run in runs) else None

    runs = wait_until("all runs have finished", finished, seconds=60)
    return {run["runId"]: run["status"] for run in runs if launched_by in str(run["tags"])}


def _switch_sensor(stack: Stack, what: Literal["start", "stop"]) -> None:
    selector = {**JOB, "sensorName": "mailbox_sensor"}
    if what == "start":
        answer = _graphql(stack, START, s=selector)["startSensor"]["sensorState"]["status"]
        assert answer == "RUNNING", answer
        return
    sensor = _graphql(stack, SENSOR, s=selector)["sensorOrError"]
    answer = _graphql(stack, STOP, id=sensor["sensorState"]["id"])["stopSensor"]["instigationState"]["status"]
    assert answer == "STOPPED", answer


def _launch(stack: Stack, config: dict[str, Any]) -> str:
    parameters = {
        "selector": {**JOB, "jobName": "invoice_processing"},
        "runConfigData": config,
        "mode": "default",
    }
    answer = _graphql(stack, LAUNCH, p=parameters)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return answer["run"]["runId"]


def _leaves_no_secret(stack: Stack) -> None:
    """No password of a database and no key in any log or compute log."""
    key = stack.environment("code")["NOVA_SECRET_KEY"]
    logs = [*stack.home.glob("*.log"), *(stack.home / "nova" / "dagster").rglob("*.*")]
    for path in logs:
        if path.is_file():
            content = path.read_bytes()
            assert key.encode() not in content, path
            assert PASSWORD.encode() not in content, path
