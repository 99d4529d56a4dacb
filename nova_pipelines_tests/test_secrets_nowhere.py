"""Where secrets are not: a whole NOVA with its real processes does its work, fails in all the usual ways, and is
searched: both databases, Dagster's storage, logs, command lines, what commands print, what node code can see."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import secrets
import signal
import sqlite3
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import dagster
import pytest
from cryptography.fernet import Fernet
from sqlalchemy import MetaData, create_engine, make_url, select

from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.cli.up import free_port
from nova_pipelines.database.clients import mailboxes
from nova_pipelines.database.migrate import migrate
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.session import Database
from nova_pipelines.domain.errors import NovaError
from nova_pipelines.domain.masking import spellings
from nova_pipelines.nodes.services import mailbox_config, smtp_config
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import load_settings
from nova_pipelines_tests.cli.conftest import PROGRAM, Nova
from nova_pipelines_tests.fixtures.dovecot import DovecotServer, MailUser, require_dovecot
from nova_pipelines_tests.fixtures.postgres import clean_environment, fresh_database
from nova_pipelines_tests.fixtures.smtp_sink import USER, SmtpSink
from nova_pipelines_tests.fixtures.sockets import closed_port
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World, invoice_pdf

#: a node of the curious kind: everything it can reach goes into its output, its context and its error
NOSY = """
import glob, os
found = {"environ": dict(os.environ), "context": dict(context)}
for place in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + glob.glob("/proc/self/mountinfo") + [HOME]:
    try:
        found[place] = open(place, "rb").read(100_000).decode("latin-1").replace("\\0", " ")
    except OSError as error:
        found[place] = str(error)
print(found)
context["found"] = found
if context.get("raise"):
    raise RuntimeError(repr(found))
"""
TERMINAL = {"completed", "failed", "unknown", "needs_review"}
#: this is about secrets, not about time: the slowest way back (a dead run is closed after five minutes) fits in
PATIENCE = 360.0


class Secrets:
    """The secrets of one installation, and the forms in which each could be found."""

    def __init__(self) -> None:
        mark = secrets.token_hex
        self.mail, self.wrong_mail = f"mail-{mark(10)}", f"wrong-{mark(10)}"
        self.nova_db, self.facturas_db = f"nova@{mark(10)}/:x", f"facturas@{mark(10)}"
        self.client_db, self.gmail, self.e2b = f"client-{mark(10)}", mark(8), f"e2b_{mark(20)}"
        self.redis = f"redis-{mark(10)}"
        self.key = Fernet.generate_key().decode()

    def __iter__(self) -> Iterator[tuple[str, str]]:
        yield from vars(self).items()

    def find(self, where: str, data: bytes | str) -> list[str]:
        """The names of the secrets that stand in `data`, in clear or in another spelling, with the place."""
        raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
        return [f"{name} in {where}" for name, secret in self for form in forms(secret) if form in raw]


def forms(secret: str) -> set[bytes]:
    """A secret in every spelling that is masked where code of clients may see it."""
    return {text.encode() for text in spellings(secret)}


def test_every_spelling_would_be_found():
    hidden = Secrets()
    assert hidden.find("x", "nothing here") == []
    for secret in (hidden.mail, hidden.nova_db, hidden.key):
        login = base64.b64encode(f"\0ana\0{secret}".encode()).decode()
        url = f"postgresql://nova:{quote_plus(secret)}@host/nova"
        for text in (f"a{secret}b", login, url, json.dumps({"x": [secret]}), secret.encode().hex(), f"é{login}"):
            assert hidden.find("x", text), text


# ---------------------------------------------------------------- the scene


@pytest.fixture
def hidden() -> Secrets:
    return Secrets()


@pytest.fixture
def environment(
    hidden: Secrets, postgres_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, str]]:
    """Everything that is secret is in it; both databases are migrated."""
    clean_environment(monkeypatch)
    with fresh_database(postgres_server) as nova, fresh_database(postgres_server) as facturas:
        variables = {
            "NOVA_HOME": str(tmp_path / "home"),
            "DATABASE_URL": changed(nova, password=hidden.nova_db),
            "FACTURAS_DATABASE_URL": changed(facturas, password=hidden.facturas_db),
            "NOVA_SECRET_KEY": hidden.key,
            "NOVA_SANDBOX": "local",
            "E2B_API_KEY": hidden.e2b,
            "GMAIL_EMAIL": "someone@gmail.example",
            "GMAIL_APP_PASSWORD": hidden.gmail,
            "REDIS_URL": f"redis://:{hidden.redis}@127.0.0.1:1/0",
            "NOVA_RETRY_DELAY_SECONDS": "0.01",
            "NOVA_MAIL_GIVE_UP_HOURS": "0",
            "NOVA_CODE_PORT": str(free_port("127.0.0.1")),
            "LOG_LEVEL": "DEBUG",
        }
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        migrate(load_settings())
        yield variables


def changed(url: str, **parts: Any) -> str:
    return make_url(url).set(**parts).render_as_string(hide_password=False)


@dataclasses.dataclass
class Scene:
    """What was done, and everything that was said on the way."""

    hidden: Secrets
    nova: Nova
    world: World
    said: dict[str, str] = dataclasses.field(default_factory=dict)

    def say(self, *arguments: str, input: str | None = None) -> None:
        """A command in this process, whatever comes of it."""
        done = self.nova(*arguments, code=None, input=input)
        self.said[f"nova {' '.join(arguments)}"] = done.out + done.err

    def program(self, *arguments: str, **environment: str) -> None:
        """The same as a process of its own."""
        done = self.nova.program(*arguments, code=None, **environment)
        assert done.code != 0, done
        self.said[f"nova {' '.join(arguments)} with {sorted(environment)}"] = done.out + done.err


@contextmanager
def serving(home: Path, *programs: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """NOVA's own processes, each with all that it starts; their output goes to NOVA_HOME/logs."""
    (home / "logs").mkdir(parents=True, exist_ok=True)
    started: list[subprocess.Popen[bytes]] = []
    try:
        for program in programs:
            with (home / "logs" / f"{program}.log").open("ab") as log:
                command = [*PROGRAM, "serve", program]
                started.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
        yield started
    finally:
        for process in started:
            process.terminate()
        for process in started:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def wait_for(
    what: str, look: Callable[[], bool], processes: list[subprocess.Popen[bytes]], told: Callable[[], object]
) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline, f"{what} did not come: {told()}"
        assert all(process.poll() is None for process in processes), f"a process ended before {what} came"
        time.sleep(0.2)


def add_client(scene: Scene, slug: str, user: MailUser, smtp_port: int, password: str) -> None:
    os.environ["THE_PASSWORD"] = password
    try:
        scene.say("client", "add", slug, "--allow-sender", "@proveedores.example")
        mailbox = ["--imap-host", user.host, "--imap-port", str(user.tls_port), "--ca-file", user.ca_file]
        smtp = ["--smtp-host", "127.0.0.1", "--smtp-port", str(smtp_port), "--smtp-tls", "none"]
        account = ["--user", user.name, "--address", f"{slug}@idom.example", "--password-env", "THE_PASSWORD"]
        scene.say("client", "credentials", "set", slug, "email", *mailbox, *smtp, *account, "--json")
    finally:
        del os.environ["THE_PASSWORD"]
    assert json.loads(scene.said[[*scene.said][-1]])["settings"]["user"] == user.name, scene.said


def command_lines() -> str:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return "\n".join(lines)


def nosy(home: Path) -> str:
    nodes = [
        {"id": "start", "type": "start"},
        {"id": "look", "type": "action", "code": NOSY.replace("HOME", repr(str(home / "workspace.yaml")))},
        {"id": "end", "type": "end"},
    ]
    edges = [{"from": "start", "to": "look"}, {"from": "look", "to": "end"}]
    return json.dumps({"name": "Nosy", "nodes": nodes, "edges": edges})


@pytest.mark.timeout(600)
def test_secrets_are_nowhere(hidden: Secrets, environment: dict[str, str], tmp_path: Path):
    require_dovecot()
    with DovecotServer(password=hidden.mail) as dovecot, SmtpSink(login=True) as sink, closed_port() as closed:
        sink.password = hidden.mail
        users = [dovecot.new_user() for _ in range(4)]
        users[0] = dataclasses.replace(users[0], name=USER, home=users[0].home.with_name(USER))
        settings = load_settings()
        services = build_services(settings)
        with services, services.databases:
            scene = Scene(hidden, Nova(tmp_path / "home"), World(settings, services, users[0], sink))
            prepare(scene, users, sink.port, closed)
            work(scene)
            look_at_everything(scene)
            fail_in_other_ways(scene, environment, closed)
            assert search(scene) == []
            forget_nothing(scene)


def prepare(scene: Scene, users: list[MailUser], smtp_port: int, closed: int) -> None:
    """Four clients: one that is well; wrong IMAP password; SMTP refuses the connection; SMTP refuses the login."""
    ports = (smtp_port, smtp_port, closed, smtp_port)
    passwords = (scene.hidden.mail, scene.hidden.wrong_mail, scene.hidden.mail, scene.hidden.mail)
    for slug, user, port, password in zip(("idom", "locked", "mute", "thief"), users, ports, passwords, strict=True):
        add_client(scene, slug, user, port, password)
    url = "postgresql://ana@db.example:5432/x"
    database = ["client", "credentials", "set", "idom", "database", "--url", url, "--password-stdin"]
    scene.say(*database, input=scene.hidden.client_db)
    scene.say("workflow", "load", str(INVOICE_PROCESSING))
    scene.say("workflow", "load", "-", input=nosy(scene.nova.home))
    for user, pdfs in zip(users, ([invoice_pdf("242.00")], [invoice_pdf("121.00")], [], []), strict=True):
        user.deliver(scene.world.mail(*pdfs, Message_ID=f"<1-{user.name}@proveedores.example>"))
    users[0].deliver(scene.world.mail(b"%PDF-1.7\nbroken", Message_ID="<2@proveedores.example>"))
    users[0].deliver(scene.world.mail(Message_ID="<3@proveedores.example>"))
    scene.say("run", "Nosy", "--client", "idom")
    scene.say("run", "Nosy", "--client", "idom", "--context", '{"raise": true}')


def work(scene: Scene) -> None:
    """By code server, daemon and run workers, until all is done; what runs is looked at meanwhile."""
    seen = set[str]()

    def done() -> bool:
        seen.update(command_lines().splitlines())
        rows = scene.world.executions()
        return len(rows) == 7 and all(row.status in TERMINAL for row in rows)

    with serving(scene.nova.home, "code", "daemon", "watch") as processes:
        wait_for("the end of all executions", done, processes, lambda: states(scene))
    scene.said["command lines"] = "\n".join(sorted(seen))
    assert "dagster" in scene.said["command lines"]
    rows = scene.world.executions()
    assert sorted((row.status, row.failed_node, (row.error or "").partition(":")[0]) for row in rows) == [
        ("completed", None, ""),  # the invoice
        ("completed", None, ""),  # no PDF, and answered
        ("completed", None, ""),  # the nosy node that did not raise
        ("failed", "extract_invoice", "failed"),
        ("failed", "look", "code failed"),
        ("failed", "no_pdf", "credentials"),
        ("failed", "no_pdf", "failed"),
    ]
    assert len(scene.world.sink.messages) == 1


def states(scene: Scene) -> object:
    """Where executions, and the runs of Dagster, stand: no secret, and what a failure of this test is about."""
    with dagster.DagsterInstance.from_config(str(scene.nova.home / "dagster")) as instance:
        runs = {
            record.dagster_run.run_id: (record.dagster_run.job_name, record.dagster_run.status.value)
            for record in instance.get_run_records()
        }
    rows = [(row.id, row.status, row.failed_node, row.run_id, row.requested_at) for row in scene.world.executions()]
    return {"executions": rows, "runs": runs, "mails": [(mail.uid, mail.status) for mail in scene.world.messages()]}


def look_at_everything(scene: Scene) -> None:
    for command in ("doctor", "client list", "client show idom", "workflow list", "executions list", "invoices list"):
        scene.say(*command.split())
        scene.say(*command.split(), "--json")
    for client in ("locked", "mute", "thief"):
        scene.say("client", "show", client, "--json")
    for name in ("Nosy", "Invoice Processing"):
        scene.say("workflow", "export", name)
        scene.say("workflow", "show", name, "--json")
    for row in scene.world.executions():
        scene.say("executions", "show", str(row.id), "--json")
        scene.say("chain", "show", str(row.id), "--context")
        scene.say("chain", "show", str(row.id), "--json")
    scene.say("chain", "verify")
    assert '"environ"' in "".join(scene.said.values()), "what the nosy node saw is shown"
    checks = {check["name"]: check for check in json.loads(scene.said["nova doctor --json"])["checks"]}
    assert not checks["IMAP locked"]["ok"]
    assert not checks["SMTP mute"]["ok"]
    assert checks["IMAP idom"]["ok"]


def fail_in_other_ways(scene: Scene, environment: dict[str, str], closed: int) -> None:
    """Databases that are not there, settings that are wrong: with tracebacks asked for."""
    debug = {"NOVA_DEBUG": "1"}
    names = ("DATABASE_URL", "FACTURAS_DATABASE_URL")
    away = {name: changed(environment[name], host="127.0.0.1", port=closed, query={}) for name in names}
    scene.program("workflow", "list", **debug, DATABASE_URL=away["DATABASE_URL"])
    scene.program("doctor", **debug, **away)
    scene.program("migrate", **debug, FACTURAS_DATABASE_URL=away["FACTURAS_DATABASE_URL"])
    scene.program("client", "list", **debug, DATABASE_URL=changed(environment["DATABASE_URL"], database="nowhere"))
    scene.world.deliver(invoice_pdf("363.00", number="F-9"), Message_ID="<9@proveedores.example>")
    scene.program(
        "run", "invoice_processing", "--client", "idom", "--wait", **debug,
        FACTURAS_DATABASE_URL=away["FACTURAS_DATABASE_URL"],
    )  # fmt: skip
    waiting = scene.world.executions()[-1]
    assert (waiting.status, waiting.failed_node) == ("pending", None)
    assert "waits: PostgreSQL database" in (waiting.error or "")
    hidden = scene.hidden
    scene.program("client", "list", **debug, DATABASE_URL=f"postgres//nova:{hidden.nova_db}@host/nova")
    scene.program("client", "list", **debug, NOVA_SECRET_KEY=f"{hidden.key},{hidden.key[1:]}")
    scene.program("client", "list", **debug, E2B_API_KEY=hidden.e2b.removeprefix("e2b_"), GMAIL_EMAIL="")
    url = f"postgresql://ana:{quote_plus(hidden.client_db)}@db.example:5432/x"
    refused = scene.nova("client", "credentials", "set", "idom", "database", "--url", url, code=None)
    assert refused.code != 0
    scene.said["a url with a password"] = refused.out + refused.err
    scene.said["representations"] = "\n".join(representations(scene))


def representations(scene: Scene) -> Iterator[str]:
    """What a log or a debugger would show of the objects that hold secrets."""
    settings, services = load_settings(), scene.world.services
    yield from (repr(settings), str(settings), settings.model_dump_json(), repr(services), repr(services.box()))
    yield repr(E2BSandbox(api_key=scene.hidden.e2b, template=None))
    with services.databases.nova.read() as session:
        for client, credential in mailboxes(session):
            for thing in (client, credential, mailbox_config(credential, services)):
                yield repr(thing)
            yield repr(smtp_config(credential, services))
    for url in (settings.database_url, settings.facturas_database_url):
        lost = Database(changed(url, database="nowhere"))
        yield f"{lost!r} {lost.engine!r} {lost.url!r}"
        try:
            with lost.read():
                pass
        except NovaError as error:
            yield "".join(traceback.format_exception(error))
        lost.close()


# ---------------------------------------------------------------- the search


def search(scene: Scene) -> list[str]:
    found: list[str] = []
    places = 0
    for where, data in everything(scene):
        places += 1
        found += scene.hidden.find(where, data)
    assert places > 1000
    return sorted(set(found))


def everything(scene: Scene) -> Iterator[tuple[str, bytes | str]]:
    yield from scene.said.items()
    settings = load_settings()
    for url in (settings.database_url, settings.facturas_database_url):
        yield from rows_of(url)
    files = [path for path in scene.nova.home.rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"code.log", "daemon.log", "dagster.yaml", "workspace.yaml", "runs.db", "schedules.db"} <= names
    assert "secret.key" not in names, "the key is in the environment"
    for path in files:
        yield str(path), path.read_bytes()
        if path.suffix == ".db":
            yield from rows_of_sqlite(path)


def rows_of(url: str) -> Iterator[tuple[str, bytes | str]]:
    """Every value of every table."""
    engine = create_engine(url)
    try:
        tables = MetaData()
        tables.reflect(engine)
        assert tables.tables
        with engine.connect() as connection:
            for table in tables.sorted_tables:
                for row in connection.execute(select(table)):
                    yield from (as_searched(f"{table.name}.{key}", value) for key, value in row._mapping.items())
    finally:
        engine.dispose()


def rows_of_sqlite(path: Path) -> Iterator[tuple[str, bytes | str]]:
    """A long value lies scattered over the file: it is asked for."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608 - Dagster's own tables
                yield from (as_searched(f"{path.name} {table}", value) for value in row)


def as_searched(where: str, value: Any) -> tuple[str, bytes | str]:
    if isinstance(value, (bytes, memoryview)):
        return where, bytes(value)
    return where, json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def forget_nothing(scene: Scene) -> None:
    """The search would have found a secret in each of the places."""
    hidden, nova = scene.hidden, scene.world.services.databases.nova
    with nova.session() as session:
        session.get_one(Execution, 1).initial_context = {"deep": [{"down": f"…{hidden.mail}…"}]}
    (scene.nova.home / "logs" / "old.log").write_bytes(base64.b64encode(f"x{hidden.key}".encode()))
    with closing(sqlite3.connect(next(scene.nova.home.rglob("runs.db")))) as connection:
        connection.execute("UPDATE runs SET run_body = run_body || ? WHERE id = 1", [quote_plus(hidden.nova_db)])
        connection.commit()
    scene.said["a command"] = f"error: {hidden.e2b}"
    found = search(scene)
    assert {place.partition(" in ")[0] for place in found} == {"mail", "key", "nova_db", "e2b"}
    assert "mail in executions.initial_context" in found
