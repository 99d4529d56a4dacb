"""Versions of definitions stay as they are: triggers refuse to change or delete one."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

REFUSAL = "a version of a workflow is never changed or deleted: publish a new one"


def upgrade(engine_name: str) -> None:
    if engine_name == "nova":
        _guard_postgresql() if op.get_bind().dialect.name == "postgresql" else _guard_sqlite()


def downgrade(engine_name: str) -> None:
    if engine_name == "nova":
        _free_postgresql() if op.get_bind().dialect.name == "postgresql" else _free_sqlite()


def _guard_sqlite() -> None:
    for event in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER workflow_versions_no_{event.lower()} BEFORE {event} ON workflow_versions "
            f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
        )
    # INSERT OR REPLACE deletes the old row without asking the trigger above
    op.execute(
        "CREATE TRIGGER workflow_versions_no_replace BEFORE INSERT ON workflow_versions "  # noqa: S608  # constants
        "WHEN EXISTS (SELECT 1 FROM workflow_versions WHERE id = NEW.id "
        "OR (workflow_id = NEW.workflow_id AND number = NEW.number)) "
        f"BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END"
    )


def _free_sqlite() -> None:
    for event in ("update", "delete", "replace"):
        op.execute(f"DROP TRIGGER workflow_versions_no_{event}")


def _guard_postgresql() -> None:
    op.execute(
        "CREATE FUNCTION nova_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$ "
        f"BEGIN RAISE EXCEPTION '{REFUSAL}' USING ERRCODE = 'integrity_constraint_violation'; END $$"
    )
    for event, each in (("UPDATE", "ROW"), ("DELETE", "ROW"), ("TRUNCATE", "STATEMENT")):
        op.execute(
            f"CREATE TRIGGER workflow_versions_no_{event.lower()} BEFORE {event} ON workflow_versions "
            f"FOR EACH {each} EXECUTE FUNCTION nova_refuse_change()"
        )


def _free_postgresql() -> None:
    for event in ("update", "delete", "truncate"):
        op.execute(f"DROP TRIGGER workflow_versions_no_{event} ON workflow_versions")
    op.execute("DROP FUNCTION nova_refuse_change()")
