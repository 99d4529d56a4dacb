"""Sessions: transactions, locks, forks and the words of their failures, on both databases."""

import multiprocessing
import socket
import sqlite3
import stat
import subprocess
import sys
import threading

import pytest
from sqlalchemy import event, make_url, select, text
from sqlalchemy.exc import DBAPIError, IntegrityError

from nova_pipelines.database import session as session_module
from nova_pipelines.database.nova import Catalog, Client, Credential
from nova_pipelines.database.session import Database, open_engine
from nova_pipelines.domain.chain import canonical_json
from nova_pipelines.domain.errors import ConfigurationError, TransientError, Unavailable
from nova_pipelines_tests.fixtures.postgres import sqlite_url

WRITER = """
import sys
from sqlalchemy import text
from nova_pipelines.database.session import Database
database = Database(sys.argv[1])
for number in range(int(sys.argv[2])):
    with database.session() as session:
        # reads first, writes then: the upgrade that fails at once in a deferred transaction
        revision = session.execute(text("SELECT revision FROM catalog")).scalar_one()
        session.execute(text("UPDATE catalog SET revision = :new"), {"new": revision + 1})
"""


def revision(database):
    with database.read() as session:
        return session.scalar(select(Catalog.revision))


def a_client(slug="idom", **others):
    return Client(name="IDOM", slug=slug, **others)


def test_a_session_commits_at_its_end(databases):
    with databases.nova.session() as session:
        session.add(a_client())
    with databases.nova.read() as session:
        assert session.scalars(select(Client.slug)).all() == ["idom"]


def test_a_session_that_raises_leaves_nothing(databases):
    def fail_after_a_write():
        with databases.nova.session() as session:
            session.add(a_client())
            session.flush()
            raise KeyError("stop")

    with pytest.raises(KeyError):
        fail_after_a_write()
    with databases.nova.read() as session:
        assert session.scalars(select(Client)).all() == []


def test_objects_can_be_read_after_the_commit(databases):
    with databases.nova.session() as session:
        client = a_client()
        session.add(client)
    assert client.id == 1
    assert client.slug == "idom"


def test_a_reading_session_cannot_write_and_the_next_one_can(databases):
    with pytest.raises(DBAPIError, match=r"read-?only"), databases.nova.read() as session:
        session.add(a_client())
    with databases.nova.session() as session:
        session.add(a_client())


def test_a_reading_session_sees_one_snapshot(databases):
    with databases.nova.read() as reading:
        assert reading.scalar(select(Catalog.revision)) == 0
        with databases.nova.session() as writing:
            writing.execute(text("UPDATE catalog SET revision = 7"))
        assert reading.execute(text("SELECT revision FROM catalog")).scalar_one() == 0
    assert revision(databases.nova) == 7


def test_who_only_looks_sees_what_is_there_now_and_cannot_write(databases):
    with databases.nova.look() as looking:
        assert looking.scalar(select(Catalog.revision)) == 0
        with databases.nova.session() as writing:
            writing.execute(text("UPDATE catalog SET revision = 7"))
        later = looking.execute(text("SELECT revision FROM catalog")).scalar_one()
        assert later == (7 if databases.nova.engine.dialect.name == "postgresql" else 0)
    with pytest.raises(RuntimeError, match="only looks"), databases.nova.look() as looking:
        looking.add(a_client())
    with databases.nova.session() as session:
        session.add(a_client())


def test_json_is_stored_as_canonical_text(databases):
    settings = {"ñ": "€", "b": [1, {"z": None, "a": 1.5}], "a": "'''\n\\", "nul": "\x00"}
    with databases.nova.session() as session:
        client = a_client(sender_whitelist=["b", "a"])
        client.credentials.append(Credential(kind="email", settings=settings, secret=b"x"))
        session.add(client)
    with databases.nova.read() as session:
        stored = session.execute(text("SELECT CAST(settings AS TEXT) FROM credentials")).scalar_one()
        assert stored == canonical_json(settings)
        assert session.scalars(select(Credential.settings)).one() == settings


def test_integrity_errors_pass_as_they_are(databases):
    with pytest.raises(IntegrityError), databases.nova.session() as session:
        session.add_all([a_client(), a_client()])


def test_foreign_keys_are_watched(databases):
    with pytest.raises(IntegrityError), databases.nova.session() as session:
        session.add(Credential(client_id=99, kind="email", settings={}, secret=b"x"))


def test_parameters_of_a_failed_statement_are_not_shown(databases):
    with pytest.raises(DBAPIError) as caught, databases.nova.session() as session:
        session.execute(text("SELECT no_such_function(:value)"), {"value": "hunter2"})
    assert "hunter2" not in str(caught.value)


# on PostgreSQL such an update needs a row lock: see publish() in test_workflows
@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_concurrent_writers_in_processes_never_fail(databases, database_urls):
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, database_urls[0], "150"], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    assert revision(databases.nova) == 300


def test_new_file_opened_by_several_processes_at_once(tmp_path):
    url = sqlite_url(tmp_path / "new" / "nova.db")
    code = (
        "import sys; from sqlalchemy import text; from nova_pipelines.database.session import Database\n"
        "with Database(sys.argv[1]).session() as s:\n"
        "    s.execute(text('CREATE TABLE IF NOT EXISTS t (x)')); s.execute(text('INSERT INTO t VALUES (1)'))"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, url], stderr=subprocess.PIPE) for _ in range(4)]
    errors = [process.communicate(timeout=120)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0] * 4, errors
    with Database(url).read() as session:
        assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 4


def test_sqlite_is_set_up_as_documented(tmp_path):
    engine = open_engine(sqlite_url(tmp_path / "home" / "nova.db"))
    assert not (tmp_path / "home").exists()
    with engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    engine.dispose()
    assert pragmas == {"journal_mode": "wal", "busy_timeout": 30000, "foreign_keys": 1, "synchronous": 1}
    assert stat.S_IMODE((tmp_path / "home").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "home" / "nova.db").stat().st_mode) == 0o600


def test_a_forked_child_takes_no_connection_of_its_parent(databases):
    assert revision(databases.nova) == 0  # now a connection waits in the pool
    before = databases.nova.engine.pool

    def child(answers):
        kept_aside = before in session_module._inherited
        with databases.nova.session() as session:
            session.execute(text("UPDATE catalog SET revision = revision + 1"))
        answers.put((databases.nova.engine.pool is not before, kept_aside, revision(databases.nova)))

    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert answers.get() == (True, True, 1)
    assert databases.nova.engine.pool is before
    assert revision(databases.nova) == 1  # the parent's connection still works


def test_threads_share_one_database(databases):
    errors = []

    def work():
        try:
            for _ in range(20):
                with databases.nova.session() as session:
                    session.execute(text("UPDATE catalog SET revision = revision + 1"))
        except Exception as error:  # noqa: BLE001  # shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert revision(databases.nova) == 80


# --- failures -------------------------------------------------------------------------------------------


def failure(url, statement="SELECT 1", *, in_service=False):
    database = Database(url, in_service=in_service)
    with pytest.raises((ConfigurationError, TransientError)) as caught, database.session() as session:
        session.execute(text(statement))
    database.close()
    return caught.value


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unreachable_server_is_named_without_its_password():
    port = closed_port()
    error = failure(f"postgresql+psycopg2://nova:hunter2@127.0.0.1:{port}/nova")
    assert isinstance(error, ConfigurationError)
    assert f"PostgreSQL database nova at 127.0.0.1:{port} is not reachable" in str(error)
    assert "Connection refused" in str(error)
    assert "check that the server runs" in str(error)
    assert "hunter2" not in str(error) + repr(error) + str(error.__cause__)
    assert "hunter2" not in repr(Database(f"postgresql+psycopg2://nova:hunter2@127.0.0.1:{port}/nova"))


def test_an_unknown_database_is_named(postgres_url):
    url = make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False)
    error = failure(url)
    assert isinstance(error, ConfigurationError)
    assert "PostgreSQL database nowhere" in error.message
    assert "does not exist" in error.message


def test_work_waits_for_a_database_that_is_in_service(postgres_url):
    """A run's own process has never reached it, and yet it is no mistake in the URL; what is one is still said."""
    port = closed_port()
    error = failure(f"postgresql+psycopg2://nova:hunter2@127.0.0.1:{port}/nova", in_service=True)
    assert isinstance(error, Unavailable)
    assert error.after_seconds == 30
    assert f"PostgreSQL database nova at 127.0.0.1:{port} is not reachable" in str(error)
    assert "hunter2" not in str(error)
    nowhere = make_url(postgres_url).set(database="nowhere").render_as_string(hide_password=False)
    assert isinstance(failure(nowhere, in_service=True), ConfigurationError)


def test_a_server_that_was_reached_before_counts_as_passing(postgres_url):
    database = Database(postgres_url)
    with database.read() as session:
        session.execute(text("SELECT 1"))
    database.engine.dispose()
    # the socket of a server that has gone
    database.engine.dialect.connect = _refused(database.engine.dialect.connect)
    with pytest.raises(TransientError, match="not reachable any more"), database.session() as session:
        session.execute(text("SELECT 1"))


def _refused(connect):
    def connect_elsewhere(*arguments, **parameters):
        return connect(*arguments, **{**parameters, "host": "127.0.0.1", "port": closed_port()})

    return connect_elsewhere


def test_a_connection_that_is_cut_in_the_middle_is_transient_and_the_next_session_works(postgres_url):
    database = Database(postgres_url)

    def work_while_being_cut_off():
        with database.session() as session:
            victim = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            with database.session() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": victim})
            session.execute(text("SELECT 1"))

    with pytest.raises(TransientError):
        work_while_being_cut_off()
    with database.session() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
    database.close()


@pytest.mark.parametrize("idle", [True, False])
def test_a_connection_that_was_cut_while_it_lay_idle_is_not_used(postgres_url, monkeypatch, idle):
    """Not even noticed by who comes later than FRESH_SECONDS; who comes sooner is told that it passes, once."""
    monkeypatch.setattr(session_module, "FRESH_SECONDS", 0.0 if idle else 60.0)
    database, other = Database(postgres_url), Database(postgres_url, pooled=False)
    with database.read() as session:
        victim = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with other.session() as session:
        session.execute(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": victim})
    if not idle:
        with pytest.raises(TransientError), database.read() as session:
            session.execute(text("SELECT 1"))
    with database.look() as session:
        assert session.execute(text("SELECT pg_backend_pid()")).scalar_one() != victim
    database.close()
    other.close()


def test_a_missing_table_says_migrate(empty_database_urls):
    error = failure(empty_database_urls[0], "SELECT * FROM workflows")
    assert isinstance(error, ConfigurationError)
    assert error.remedy == "run `nova migrate`"


def test_a_full_disk_is_transient(tmp_path):
    database = Database(sqlite_url(tmp_path / "nova.db"))
    with database.session() as session:
        session.execute(text("CREATE TABLE t (x BLOB)"))
    event.listen(
        # SQLite's own limit gives the error that the file system would
        database.engine,
        "begin",
        lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 10"),
    )
    with pytest.raises(TransientError, match=r"disk full.*free some space"), database.session() as session:
        session.execute(text("INSERT INTO t VALUES (zeroblob(1000000))"))
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM t")).scalar_one() == 0
    database.close()


def test_a_database_that_stays_locked_is_transient(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "BUSY_SECONDS", 0.1)
    database = Database(sqlite_url(tmp_path / "nova.db"))
    with database.session() as session:
        session.execute(text("CREATE TABLE t (x)"))
    other = sqlite3.connect(tmp_path / "nova.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(TransientError, match="locked by another process"), database.session() as session:
        session.execute(text("INSERT INTO t VALUES (1)"))
    other.close()
    database.close()


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "nova.db").write_text("this is a text file, long enough not to pass for an empty database " * 9)
    error = failure(sqlite_url(tmp_path / "nova.db"))
    assert isinstance(error, ConfigurationError)
    assert "is no sound database" in error.message


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    error = failure(sqlite_url(tmp_path / "file" / "home" / "nova.db"))
    assert isinstance(error, ConfigurationError)
    assert "cannot be made" in error.message
    assert "NOVA_HOME" in error.remedy


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "nova.db").mkdir()
    error = failure(sqlite_url(tmp_path / "nova.db"))
    assert isinstance(error, ConfigurationError)
    assert "cannot be opened" in error.message
