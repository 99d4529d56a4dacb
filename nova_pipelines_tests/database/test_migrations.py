"""Migrations: the same commands on both databases, up and down, and a schema that is that of the tables."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text

from nova_pipelines.database.facturas import FacturasBase
from nova_pipelines.database.migrate import alembic_config, current, migrate, pending
from nova_pipelines.database.nova import NovaBase
from nova_pipelines.database.session import Database, open_engine
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines_tests.fixtures.postgres import fresh_database, settings_for, sqlite_url

ROOT = Path(__file__).parents[2]
METADATA = (NovaBase.metadata, FacturasBase.metadata)
REVISIONS = ["0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0011"]
HEAD = REVISIONS[-1]


def tables(url):
    engine = open_engine(url)
    try:
        return set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


def parts(sql):
    """The columns and constraints of a CREATE statement: what ADD COLUMN appended stands on one line with others."""
    head, _, rest = sql.partition("(")
    body, _, tail = rest.rpartition(")")
    found, depth = [head, tail, ""], 0
    for character in body:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            found.append("")
        else:
            found[-1] += character
    return [" ".join(part.split()) for part in found]


def schema(url):
    """Everything that the database itself knows of its tables, in one order."""
    engine = open_engine(url)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                rows = connection.execute(
                    text(
                        "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND type IN ('table', 'index') "
                        "AND tbl_name <> 'alembic_version'"
                    )
                ).scalars()
                return sorted(sorted(parts(sql)) for sql in rows)
            return [
                connection.execute(text(query)).all()
                for query in (
                    "SELECT table_name, column_name, data_type, is_nullable, character_maximum_length, "
                    "numeric_precision, numeric_scale, column_default FROM information_schema.columns "
                    "WHERE table_schema = 'public' AND table_name <> 'alembic_version' ORDER BY 1, 2",
                    "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' "
                    "AND tablename <> 'alembic_version' ORDER BY 1",
                    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
                    "WHERE connamespace = 'public'::regnamespace "
                    "AND conrelid::regclass::text <> 'alembic_version' ORDER BY 1, 2",
                )
            ]
    finally:
        engine.dispose()


@pytest.mark.parametrize("which", [0, 1], ids=["nova", "facturas"])
def test_migrated_schema_is_that_of_the_tables(database_urls, which):
    engine = open_engine(database_urls[which])
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA[which]) == []
    engine.dispose()


def test_migrated_schema_is_what_create_all_makes(database_urls, database_kind, tmp_path, request):
    """Checks and partial indexes too, which Alembic does not compare."""
    for which, metadata in enumerate(METADATA):
        if database_kind == "sqlite":
            url = sqlite_url(tmp_path / f"made-{which}.db")
            compare_with_created(database_urls[which], url, metadata)
        else:
            with fresh_database(request.getfixturevalue("postgres_server")) as url:
                compare_with_created(database_urls[which], url, metadata)


def compare_with_created(migrated, url, metadata):
    engine = open_engine(url)
    metadata.create_all(engine)
    engine.dispose()
    assert schema(migrated) == schema(url)


def test_up_and_down_and_up_again(empty_database_urls):
    settings = settings_for(*empty_database_urls)
    assert current(settings) == {"nova": None, "facturas": None}
    assert pending(settings) == {"nova": REVISIONS, "facturas": REVISIONS}

    assert migrate(settings) == {"nova": REVISIONS, "facturas": REVISIONS}
    assert current(settings) == {"nova": HEAD, "facturas": HEAD}
    full = [schema(url) for url in empty_database_urls]
    assert migrate(settings) == {"nova": [], "facturas": []}

    command.downgrade(alembic_config(settings), "-1")
    assert current(settings) == {"nova": REVISIONS[-2], "facturas": REVISIONS[-2]}
    command.downgrade(alembic_config(settings), "base")
    assert [tables(url) for url in empty_database_urls] == [{"alembic_version"}] * 2
    assert current(settings) == {"nova": None, "facturas": None}

    migrate(settings)
    assert [schema(url) for url in empty_database_urls] == full


def test_nothing_but_the_version_table_is_left_at_base(postgres_url, tmp_path):
    settings = settings_for(postgres_url, sqlite_url(tmp_path / "facturas.db"))
    migrate(settings)
    command.downgrade(alembic_config(settings), "base")
    engine = open_engine(postgres_url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT proname FROM pg_proc WHERE proname LIKE 'nova%'")).all() == []
    engine.dispose()


@pytest.mark.parametrize("which", [0, 1], ids=["nova", "facturas"])
def test_a_failure_half_way_leaves_both_databases_as_they_were(empty_database_urls, which):
    # a table of the second revision's or first revision's name stands in the way, late in the order
    blocker = ("blobs", "invoices")[which]
    engine = open_engine(empty_database_urls[which])
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {blocker} (x INTEGER)"))
    engine.dispose()
    with pytest.raises(Exception, match="already exists"):
        migrate(settings_for(*empty_database_urls))
    assert tables(empty_database_urls[which]) == {blocker}
    assert tables(empty_database_urls[1 - which]) == set()


def test_two_processes_may_migrate_at_once(empty_database_urls, tmp_path):
    environment = environment_for(empty_database_urls, tmp_path)
    code = (
        "from nova_pipelines.settings import load_settings; "
        "from nova_pipelines.database.migrate import migrate; migrate(load_settings())"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], errors
    assert current(settings_for(*empty_database_urls)) == {"nova": HEAD, "facturas": HEAD}


def test_a_newer_database_is_refused(database_urls):
    settings = settings_for(*database_urls)
    database = Database(database_urls[1])
    with database.session() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(ConfigurationError, match=r"facturas database is at revision 9999.*newer"):
        migrate(settings)


def test_looking_makes_no_file(tmp_path):
    settings = settings_for(sqlite_url(tmp_path / "a" / "nova.db"), sqlite_url(tmp_path / "a" / "facturas.db"))
    assert pending(settings)["nova"][0] == "0001"
    assert list(tmp_path.iterdir()) == []


def environment_for(urls, tmp_path):
    return {
        **os.environ,
        "DATABASE_URL": urls[0],
        "FACTURAS_DATABASE_URL": urls[1],
        "NOVA_HOME": str(tmp_path / "home"),
    }


def alembic(urls, tmp_path, *arguments, **others):
    return subprocess.run(
        [str(Path(sys.executable).with_name("alembic")), *arguments],
        env={**environment_for(urls, tmp_path), **others},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_plain_commands_from_the_root(empty_database_urls, tmp_path):
    """Old defect 10: `alembic upgrade head` on an empty database failed."""

    def run(*arguments):
        done = alembic(empty_database_urls, tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("upgrade", "head")
    assert "invoices" in tables(empty_database_urls[1])
    assert run("current").splitlines() == [f"{HEAD} (head)"] * 2
    assert "No new upgrade operations" in run("check")
    run("downgrade", "-1")
    assert run("current").splitlines() == [REVISIONS[-2]] * 2
    run("downgrade", "base")
    assert run("current").splitlines() == []
    assert [tables(url) for url in empty_database_urls] == [{"alembic_version"}] * 2


def test_the_command_says_what_is_wrong_without_a_traceback(tmp_path):
    urls = ("postgresql://nova:hunter2@127.0.0.1:1/nova", sqlite_url(tmp_path / "facturas.db"))
    done = alembic(urls, tmp_path, "upgrade", "head")
    assert done.returncode != 0
    output = done.stdout + done.stderr
    assert "PostgreSQL database nova at 127.0.0.1:1 is not reachable" in output
    assert "Traceback" not in output
    assert "hunter2" not in output
    offline = alembic(urls, tmp_path, "upgrade", "head", "--sql")
    assert offline.returncode != 0
    assert "--sql is not offered" in offline.stdout + offline.stderr


def test_versions_are_never_changed_nor_deleted(databases):
    insert = (
        "INSERT INTO workflow_versions (id, workflow_id, number, revision, definition, source, source_format, "
        "sha256, created_at) VALUES (1, 1, 1, 1, '{}', '{}', 'json', 'x', '2026-01-01 00:00:00')"
    )
    with databases.nova.session() as session:
        session.execute(
            text(
                "INSERT INTO workflows (id, name, job_name, graph_definition, is_active, created_at, updated_at) "
                "VALUES (1, 'a', 'a', '{}', true, '2026-01-01 00:00:00', '2026-01-01 00:00:00')"
            )
        )
        session.execute(text(insert))
    statements = [
        "UPDATE workflow_versions SET source = 'other'",
        "DELETE FROM workflow_versions",
        "DELETE FROM workflow_versions WHERE id = 1",
    ]
    if databases.nova.engine.dialect.name == "postgresql":
        statements.append("TRUNCATE workflow_versions CASCADE")
    else:
        statements.append(insert.replace("INSERT", "INSERT OR REPLACE", 1))
    for statement in statements:
        with pytest.raises(Exception, match="never changed or deleted"), databases.nova.session() as session:
            session.execute(text(statement))
    with databases.nova.read() as session:
        assert session.execute(text("SELECT source FROM workflow_versions")).scalars().all() == ["{}"]


def test_the_catalog_has_its_one_row(databases):
    with databases.nova.read() as session:
        assert session.execute(text("SELECT id, revision FROM catalog")).all() == [(1, 0)]
