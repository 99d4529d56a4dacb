"""A workflow file of the old firm, unchanged: it speaks IMAP, SMTP and PostgreSQL by itself and reads PDFs with fitz.

Against a real Dovecot, SMTP server and PostgreSQL, in the local sandbox and in E2B's (by its wire protocol).
"""

from __future__ import annotations

import dataclasses
import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any

import dagster as dg
import pytest

from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database.clients import find_client, set_credential, update_client
from nova_pipelines.database.executions import release
from nova_pipelines.database.nova import Execution
from nova_pipelines.domain.masking import MASK, spellings
from nova_pipelines.domain.needs import CREDENTIAL_KEYS, SECRET_KEYS
from nova_pipelines.nodes.registry import read_definition
from nova_pipelines.orchestration import sensors
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY, E2BWire
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, require_dovecot
from nova_pipelines_tests.fixtures.http_server import WebServer
from nova_pipelines_tests.fixtures.location import load_repository
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.tcp_postgres import ClientDatabase, TcpPostgres
from nova_pipelines_tests.fixtures.world import SENDER, World, invoice_pdf, make_world

OLD = Path(__file__).parents[1] / "fixtures" / "old_invoice_processing.json"
ACCOUNT = "facturas@idom.example"
#: with characters that are written differently in URLs, JSON, Python and base64
MAIL_PASSWORD = f"mail/{secrets.token_hex(6)}+x="
DATABASE_PASSWORD = f"db'ñ\"\\{secrets.token_hex(6)}&%"
ALL_KEYS = frozenset().union(*CREDENTIAL_KEYS.values()) | {"client_slug"}


@pytest.fixture(scope="module")
def dovecot() -> Iterator[DovecotServer]:
    """One whose password is long enough to be hidden."""
    require_dovecot()
    with DovecotServer(password=MAIL_PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def tcp_postgres() -> Iterator[TcpPostgres]:
    with TcpPostgres() as server:
        yield server


@pytest.fixture
def client_database(tcp_postgres: TcpPostgres) -> Iterator[ClientDatabase]:
    with tcp_postgres.database(DATABASE_PASSWORD) as made:
        yield made


@pytest.fixture(scope="module")
def wire() -> Iterator[E2BWire]:
    server = E2BWire()
    yield server
    server.close()


@pytest.fixture
def old(
    request: pytest.FixtureRequest,
    dovecot: DovecotServer,
    client_database: ClientDatabase,
    sqlite_template: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[World]:
    """The client `idom`, not marked yet, with a mailbox and a database of its own; `param`: the sandbox."""
    backend = getattr(request, "param", "local")
    env = {"NOVA_SANDBOX": backend}
    if backend == "e2b":
        wire = request.getfixturevalue("wire")
        monkeypatch.setenv("E2B_API_URL", wire.url)
        monkeypatch.setenv("E2B_SANDBOX_URL", wire.url)
        env["E2B_API_KEY"] = KEY
    user = dovecot.new_user()
    user = dataclasses.replace(user, name=f"{user.name}-{ACCOUNT}", home=user.home.with_name(f"{user.name}-{ACCOUNT}"))
    with SmtpSink(tls="starttls", login=True) as sink:
        sink.user, sink.password = user.name, MAIL_PASSWORD
        with make_world(user, sink, sqlite_template, tmp_path, monkeypatch, **env) as world:
            with world.services.databases.nova.session() as session:
                client, box = find_client(session, "idom"), world.services.box()
                settings, secret = {"url": client_database.url}, {"password": DATABASE_PASSWORD}
                set_credential(session, box, client, "database", settings=settings, secret=secret)
            yield world


def mark(world: World, **marks: bool) -> None:
    with world.services.databases.nova.session() as session:
        update_client(session, find_client(session, "idom"), **marks)


def run(world: World, compiled: Compiled, records: Path | None = None, **config: Any) -> tuple[bool, Any]:
    """Whether a run succeeded, and its last execution. Dagster's records stand in the folder `records`, if given."""
    if records is not None:
        records.mkdir(exist_ok=True)
    made = dg.DagsterInstance.local_temp(str(records)) if records is not None else dg.DagsterInstance.ephemeral()
    with made as instance:
        success = world.run(compiled, instance=instance, **(config or {"client": "idom"})).success
    return success, world.executions()[-1]


def one_node(code: str, *more: str) -> str:
    """start → n0 → n1 … → end."""
    names = [f"n{number}" for number in range(1 + len(more))]
    nodes = [{"id": name, "type": "action", "code": text} for name, text in zip(names, (code, *more), strict=True)]
    ways = ["start", *names, "end"]
    edges = [{"from": a, "to": b} for a, b in pairwise(ways)]
    return json.dumps(
        {
            "name": "One",
            "nodes": [{"id": "start", "type": "start"}, *nodes, {"id": "end", "type": "end"}],
            "edges": edges,
        }
    )


def assert_nowhere(world: World, *folders: Path) -> None:
    """Neither password stands anywhere, in any spelling: in files as they are, and in every value of a database."""
    assert searched(world, *folders) == []
    probe = world.settings.nova_home / "probe.txt"
    probe.write_text(f"x{MAIL_PASSWORD}")
    assert searched(world, *folders), "the search would find it"
    probe.unlink()


FORMS = {form.encode() for secret in (MAIL_PASSWORD, DATABASE_PASSWORD) for form in spellings(secret)}


def found_in(text: bytes) -> bool:
    return any(form in text for form in FORMS)


def searched(world: World, *folders: Path) -> list[str]:
    found = []
    files = [path for folder in (world.settings.nova_home, *folders) for path in folder.rglob("*") if path.is_file()]
    assert {"nova.db", "facturas.db"} <= {path.name for path in files}
    for path in files:
        texts = [path.read_bytes(), *(values(path) if path.suffix == ".db" else [])]
        found += [str(path) for text in texts if found_in(text)]
    return found


def values(path: Path) -> Iterator[bytes]:
    """A long value lies scattered over a database file: it is asked for."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - names of its own tables
                yield from (value if isinstance(value, bytes) else str(value).encode() for value in row)


# ---------------------------------------------------------------- the whole workflow


HIGH = {"email_processed": True, "pdf_extracted": True, "amount_detected": 12100.0}
HIGH |= {"decision": "high_amount", "action_taken": "email_sent"}
LOW = HIGH | {"amount_detected": 242.0, "decision": "low_amount", "action_taken": "invoice_saved"}


@pytest.mark.parametrize("old", ["local", "e2b"], indirect=True)
def test_the_old_invoice_workflow_runs_unchanged(
    old: World, client_database: ClientDatabase, tmp_path: Path, wire: E2BWire
):
    mark(old, expose_credentials=True, allow_network=True)
    compiled = old.publish(OLD)
    uids = [old.deliver(invoice_pdf("12100.00", number="F-1")), old.deliver(invoice_pdf("242.00", number="F-2"))]
    uids += [old.deliver(subject="¿Llegó?"), old.deliver(invoice_pdf("363.00"), sender="eve@other.example")]
    numbers = [old.execution(compiled) for _ in uids]

    success, _ = run(old, compiled, tmp_path / "dagster", executions=numbers)

    assert [(row.status, row.error) for row in old.executions()] == [("completed", None)] * 4
    assert success
    assert all("\\Seen" in old.user.flags()[uid] for uid in uids)
    high, low, no_pdf, stranger = map(old.result, numbers)
    assert HIGH.items() <= high.items()
    assert LOW.items() <= low.items()
    assert no_pdf["action_taken"] == stranger["action_taken"] == "rejection_sent"
    assert_invoice_and_mails(old, client_database, low["invoice_id"])
    creates = [made["allow_internet_access"] for made in wire.creates]
    assert creates == ([True] if old.settings.sandbox == "e2b" else []), "one sandbox for all nodes and executions"
    assert len(wire.kills) == len(creates)
    nodes = ["start", "read_and_extract", "has_pdf_decision", "extract_text", "find_amount", "amount_decision"]
    assert [row.node_id for row in old.chain(numbers[1])] == [*nodes, "save_db", "end"]
    for row in (row for number in numbers for row in old.chain(number)):
        assert ALL_KEYS & {*row.input_context, *row.output_result} == set()
    old.services.databases.close()
    assert_nowhere(old, tmp_path / "dagster")


def assert_invoice_and_mails(old: World, database: ClientDatabase, invoice_id: int) -> None:
    columns = "id, email_from, pdf_filename, pdf_size_bytes - length(pdf_content), ocr_method, total_amount, currency"
    row = (invoice_id, SENDER, "factura0.pdf", 0, "pymupdf", Decimal("242.00"), "EUR")
    assert database.rows(columns) == [row]
    assert [(mail.recipients, mail.message["Subject"]) for mail in old.sink.messages] == [
        ([SENDER], "Re: ¿Llegó?"), (["eve@other.example"], "Re: Factura"), ([SENDER], "Re: Factura"),
    ]  # fmt: skip
    for words, mail in zip(("no PDF", "not known", "12100.00 EUR is above"), old.sink.messages, strict=True):
        assert words in text_of(mail.message)


def text_of(message: Any) -> str:
    body = message.get_body(("plain",))
    return body.get_content()


# ---------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("marks", "words", "command"),
    [
        ({}, "is not marked expose_credentials and allow_network", "--expose-credentials --allow-network"),
        ({"expose_credentials": True}, "is not marked allow_network", "idom --allow-network"),
        ({"allow_network": True}, "is not marked expose_credentials", "idom --expose-credentials"),
    ],
    ids=["no mark", "no network", "no credentials"],
)
def test_without_a_mark_nothing_is_run(old: World, marks: dict[str, bool], words: str, command: str):
    mark(old, **marks)
    compiled = old.publish(OLD)
    uid = old.deliver(invoice_pdf("242.00"))

    success, execution = run(old, compiled)

    assert not success
    assert (execution.status, execution.failed_node) == ("failed", "start")
    assert [(row.node_id, row.status) for row in old.chain(execution.id)] == [("start", "failed")]
    assert words in execution.error
    assert f"nova client update {command}" in execution.error or f"nova client update idom {command}" in execution.error
    assert ("credentials (email_password" in execution.error) == ("expose_credentials" not in marks)
    assert ("the network (imaplib)" in execution.error) == ("allow_network" not in marks)
    assert "\\Seen" not in old.user.flags()[uid]


def test_a_refused_execution_of_a_sensor_goes_on_once_its_client_is_marked(old: World, client_database: ClientDatabase):
    compiled = old.publish(OLD)
    old.deliver(invoice_pdf("242.00"))
    number = old.execution(compiled)
    sensors._services.cache_clear()
    with dg.DagsterInstance.ephemeral() as instance:
        repository = load_repository()

        def tick() -> bool:
            context = dg.build_sensor_context(
                instance=instance, repository_def=repository, sensor_name="mailbox_sensor"
            )
            (request,) = repository.get_sensor_def("mailbox_sensor").evaluate_tick(context).run_requests or ()
            tags = {**request.tags, "dagster/run_key": str(request.run_key)}
            job = repository.get_job(str(request.job_name))
            return job.execute_in_process(
                request.run_config, instance=instance, tags=tags, raise_on_error=False
            ).success

        assert not tick()
        (execution,) = old.executions()
        assert (execution.failed_node, "is not marked" in execution.error) == ("start", True)
        mark(old, expose_credentials=True, allow_network=True)
        with old.services.databases.nova.session() as session:
            assert release(session, [number]).released == [number]
        assert tick()
    sensors._services().close()
    sensors._services().databases.close()
    sensors._services.cache_clear()
    assert old.executions()[0].status == "completed"
    assert len(client_database.rows("id")) == 1


def test_a_mark_that_is_taken_away_on_the_way_holds_for_the_nodes_after_it(old: World):
    mark(old, expose_credentials=True, allow_network=True)
    compiled = old.publish(one_node("context['a'] = 1", "import imaplib\ncontext['email_password']"))
    number = old.execution(compiled)
    work = old.job(compiled)
    only_start = work.execute_in_process(
        run_config={"ops": {"start": {"config": {"executions": [number]}}}}, op_selection=["start", "n0"]
    )
    assert only_start.success
    mark(old, expose_credentials=False, allow_network=False)
    with old.services.databases.nova.session() as session:
        row = session.get_one(Execution, number)
        row.status, row.run_id = "pending", None
    success, execution = run(old, compiled, executions=[number])
    assert not success
    assert execution.failed_node == "n1"
    assert "the code was not run: node 'n1' needs the network (imaplib) and credentials" in execution.error


def test_a_context_of_its_own_needs_no_mark_and_gets_nobody_elses_password(old: World):
    code = "context['login'] = context['db_host'] + context['db_password']"
    own = {"db_host": "own.example", "db_password": "theirs"}
    compiled = old.publish(one_node(code))
    success, execution = run(old, compiled, client="idom", context=own)
    assert success
    assert old.result(execution.id)["login"] == "own.exampletheirs"

    mark(old, expose_credentials=True)
    success, execution = run(old, compiled, client="idom", context={"db_host": "evil.example"})
    assert not success
    assert execution.failed_node == "start"
    assert "sets db_host but not db_password: the client's would go to that server" in execution.error


def test_without_the_credential_it_is_refused_too(old: World):
    mark(old, expose_credentials=True, allow_network=True)
    with old.services.databases.nova.session() as session:
        client = find_client(session, "idom")
        session.delete(next(known for known in client.credentials if known.kind == "database"))
    success, execution = run(old, old.publish(OLD))
    assert not success
    assert "client 'idom' has no database credential" in execution.error
    assert "nova client credentials set idom database" in execution.error


def test_a_password_that_is_too_short_to_be_hidden_is_not_shown(old: World):
    mark(old, expose_credentials=True)
    with old.services.databases.nova.session() as session:
        client = find_client(session, "idom")
        settings = next(known for known in client.credentials if known.kind == "database").settings
        set_credential(session, old.services.box(), client, "database", settings=settings, secret={"password": "pw"})
    success, execution = run(old, old.publish(one_node("context['db_password']")))
    assert not success
    assert execution.failed_node == "start"
    assert "fewer than 6 characters" in execution.error


# ---------------------------------------------------------------- masked


LEAKS = {
    "returned": "context['a'] = context['email_password'] + '!'",
    "as a key": "context[context['db_password']] = {context['email_password']: 1}",
    "in a list": "context['a'] = [{'b': list(context.values())}]",
    "base64": "import base64\ncontext['a'] = base64.b64encode(b'ana:' + context['email_password'].encode()).decode()",
    "hex": "context['a'] = context['db_password'].encode().hex()",
    "url": "from urllib.parse import quote\ncontext['a'] = 'smtp://x:' + quote(context['email_password'], safe='')",
    "json": "import json\ncontext['a'] = json.dumps(dict(context))",
    "python": "context['a'] = repr(dict(context))",
    "printed": "import sys\nprint(context)\nprint(context['email_password'], file=sys.stderr)",
    "printed alone": "print(context['email_password'])",
    "changed": "context['email_password'] = context['email_password'] + ' '",
}
FAILURES = {
    "raised": 'raise RuntimeError(f\'login {context["db_password"]!r} and {context["email_password"]} failed\')',
    "printed": "import sys\nprint(context['email_password'], file=sys.stderr)\nsys.exit(1)",
    "cut": "raise RuntimeError('x' * 1990 + context['email_password'] + 'y' * 100)",
    "exit": "import sys\nsys.exit(context['email_password'])",
    "no JSON": "context['a'] = {context['email_password']: object()}",
}


def test_what_code_leaves_of_a_secret_is_masked(old: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    mark(old, expose_credentials=True)
    seen = "context['seen'] = [key for key in context if key.endswith('password')]"
    compiled = old.publish(one_node(*LEAKS.values(), seen))

    success, execution = run(old, compiled, tmp_path / "dagster")

    assert success, execution.error
    rows = {row.node_id: row.output_result for row in old.chain(execution.id)}
    for number, name in enumerate(LEAKS):
        if name not in ("printed", "printed alone", "changed"):
            assert MASK in json.dumps(rows[f"n{number}"], ensure_ascii=False), name
    result = old.result(execution.id)
    assert SECRET_KEYS & result.keys() == set()
    assert set(result["seen"]) == SECRET_KEYS, "each node has them anew"
    assert result["a"].startswith("{")
    old.services.databases.close()
    assert_nowhere(old, tmp_path / "dagster")
    assert not found_in("".join(capfd.readouterr()).encode())
    events = b"".join(path.read_bytes() for path in (tmp_path / "dagster").rglob("*.db*"))
    assert json.dumps(MASK)[1:-1].encode() in events, "what was printed is shown, masked"


def test_what_an_error_says_of_a_secret_is_masked(old: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    mark(old, expose_credentials=True)
    cases = "".join(f"if context['case'] == {name!r}:\n{indent(code, '    ')}\n" for name, code in FAILURES.items())
    compiled = old.publish(one_node(cases))
    numbers = [old.execution(compiled, {"case": name}) for name in FAILURES]

    success, _ = run(old, compiled, tmp_path / "dagster", executions=numbers)

    assert not success
    for name, execution in zip(FAILURES, old.executions(), strict=True):
        assert (execution.status, execution.failed_node) == ("failed", "n0"), name
        assert MASK in execution.error, name
    said = "".join(capfd.readouterr())
    assert MASK in said
    assert not found_in(said.encode())
    old.services.databases.close()
    assert_nowhere(old, tmp_path / "dagster")


def test_a_decision_by_code_has_them_too_and_leaves_none(old: World):
    mark(old, expose_credentials=True)
    code = "context['branch_decision'] = context['client_slug'] == 'idom' and bool(context['db_password'])"
    nodes = [{"id": "start", "type": "start"}, {"id": "d", "type": "decision", "code": code}]
    nodes += [{"id": "yes", "type": "end"}, {"id": "no", "type": "end"}]
    edges = [{"from": "start", "to": "d"}, {"from": "d", "to": "yes", "condition": "true"}]
    edges += [{"from": "d", "to": "no", "condition": "false"}]
    compiled = old.publish({"name": "Decide", "nodes": nodes, "edges": edges})
    success, execution = run(old, compiled)
    assert success, execution.error
    assert old.result(execution.id) == {"branch_decision": True}
    assert old.chain(execution.id)[-1].node_id == "yes"


def test_what_code_changes_stays_for_the_next_node(old: World):
    mark(old, expose_credentials=True)
    first = "context['db_name'] = context['db_name'] + '_2024'\ncontext['imap_port'] = context['imap_port']"
    compiled = old.publish(one_node(first, "context['used'] = context['db_name']"))
    success, execution = run(old, compiled)
    assert success, execution.error
    result = old.result(execution.id)
    assert result["used"] == result["db_name"]
    assert result["used"].endswith("_2024")
    assert ALL_KEYS & result.keys() == {"db_name"}


# ---------------------------------------------------------------- the network alone


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"the rate is 1.08")

    def log_message(self, *_: object) -> None:
        """Silent."""


class _Site(WebServer):
    handler = _Page


@pytest.fixture
def page() -> Iterator[str]:
    with _Site() as site:
        yield f"http://127.0.0.1:{site.port}/"


def test_requests_work_with_the_network_and_are_refused_without(old: World, page: str):
    compiled = old.publish(one_node(f"import requests\ncontext['page'] = requests.get({page!r}, timeout=5).text"))
    success, execution = run(old, compiled)
    assert not success
    assert "needs the network (requests)" in execution.error

    mark(old, allow_network=True)
    success, execution = run(old, compiled)
    assert success, execution.error
    assert old.result(execution.id) == {"page": "the rate is 1.08"}


def test_a_network_that_no_import_shows_is_not_there_without_the_mark(old: World, page: str):
    name = "context['page'] = __import__('re' + 'quests')"
    compiled = old.publish(one_node(f"{name}.get({page!r}, timeout=5).text"))
    success, execution = run(old, compiled)
    assert not success
    assert execution.failed_node == "n0"
    assert "ConnectionError" in execution.error


def test_the_old_file_is_as_the_firm_wrote_it():
    """Nothing in it knows of this project."""
    codes = [getattr(node, "code", "") for node in read_definition(OLD.read_text()).nodes]
    text = "\n".join(filter(None, codes))
    for module in ("import imaplib", "import smtplib", "import psycopg2", "import fitz"):
        assert module in text
    assert "nova" not in text.lower()
