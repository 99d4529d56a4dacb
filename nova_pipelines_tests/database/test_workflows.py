"""Definitions: versions that never change, revisions in order, and deleting that keeps what happened."""

import subprocess
import sys
import threading
import uuid

import pytest
from sqlalchemy import select

from nova_pipelines.database.nova import Execution, Workflow, WorkflowVersion
from nova_pipelines.database.workflows import (
    catalog_revision,
    deactivate,
    find_workflow,
    publish,
    version_at,
    versions_at,
    versions_by_id,
)
from nova_pipelines.domain.errors import Conflict, NotFound

PUBLISHER = """
import sys
from nova_pipelines.database.session import Database
from nova_pipelines.database.workflows import publish
database = Database(sys.argv[1])
for number in range(int(sys.argv[3])):
    with database.session() as session:
        publish(session, name="shared", job_name="shared", description=None, source="", source_format="json",
                definition={"by": sys.argv[2], "number": number})
"""


def put(session, name="Invoice Processing", definition=None, **others):
    values = {
        "job_name": name.lower().replace(" ", "_"),
        "description": "what it does",
        "definition": {"nodes": []} if definition is None else definition,
        "source": "name: x",
        "source_format": "yaml",
    }
    return publish(session, name=name, **{**values, **others})


def test_the_first_version(databases):
    with databases.nova.session() as session:
        assert catalog_revision(session) == 0
        version = put(session, definition={"b": 1, "a": "ñ"})
        assert (version.number, version.revision, version.source_format) == (1, 1, "yaml")
        assert len(version.sha256) == 64
        assert version.workflow.job_name == "invoice_processing"
        assert version.workflow.graph_definition == {"a": "ñ", "b": 1}
        assert catalog_revision(session) == 1


def test_the_same_definition_is_no_new_version(databases):
    with databases.nova.session() as session:
        first = put(session, definition={"a": 1, "b": 2})
    with databases.nova.session() as session:
        again = put(session, definition={"b": 2, "a": 1}, source="other text")
        assert again.id == first.id
        assert again.source == "name: x"
        assert catalog_revision(session) == 1


def test_a_changed_definition_is_a_new_version_and_the_old_one_stays(databases):
    for number in (1, 2, 1):
        with databases.nova.session() as session:
            put(session, definition={"n": number})
    with databases.nova.read() as session:
        versions = find_workflow(session, "invoice_processing").versions
        assert [(v.number, v.revision, v.definition["n"]) for v in versions] == [(1, 1, 1), (2, 2, 2), (3, 3, 1)]
        assert find_workflow(session, "invoice_processing").graph_definition == {"n": 1}


def test_versions_as_of_a_revision_stay_the_same(databases):
    with databases.nova.session() as session:
        a1, b1 = put(session, "a", {"n": 1}), put(session, "b", {"n": 1})
        a2 = put(session, "a", {"n": 2})
        c1 = put(session, "c", {"n": 1})
    with databases.nova.read() as session:
        assert versions_at(session, 0) == {}
        assert versions_at(session, 1) == {"a": a1.id}
        assert versions_at(session, 2) == {"a": a1.id, "b": b1.id}
        assert versions_at(session, 3) == {"a": a2.id, "b": b1.id}
        assert versions_at(session, 99) == {"a": a2.id, "b": b1.id, "c": c1.id}
        found = version_at(session, "a", 2)
        assert found is not None
        assert (found.id, found.workflow.name) == (a1.id, "a")
        assert version_at(session, "c", 3) is None
        assert version_at(session, "unknown", 3) is None
        many = versions_by_id(session, [a2.id, c1.id, 999])
        assert {key: value.workflow.name for key, value in many.items()} == {a2.id: "a", c1.id: "c"}


def test_a_job_name_belongs_to_one_workflow(databases):
    with databases.nova.session() as session:
        put(session, "Invoice Processing")
    with (
        pytest.raises(Conflict, match="taken by the workflow 'Invoice Processing'"),
        databases.nova.session() as session,
    ):
        put(session, "invoice processing")
    with databases.nova.session() as session:
        renamed = put(session, "Invoice Processing", {"n": 2}, job_name="another")
        assert renamed.workflow.job_name == "invoice_processing"
        assert catalog_revision(session) == 2


def test_a_workflow_with_executions_can_be_deleted(databases):
    """Old defect 9: it answered 500."""
    with databases.nova.session() as session:
        version = put(session)
        task = str(uuid.uuid4())
        session.add(Execution(task_id=task, workflow_id=version.workflow_id, version_id=version.id))
    with databases.nova.session() as session:
        deactivate(session, find_workflow(session, "Invoice Processing"))
        assert catalog_revision(session) == 2
    with databases.nova.read() as session:
        assert session.scalars(select(Execution.task_id)).all() == [task]
        assert session.scalars(select(WorkflowVersion.id)).all() == [version.id]
        assert versions_at(session, 2) == {}
        assert version_at(session, "invoice_processing", 1) is not None  # a run that was queued before
        with pytest.raises(NotFound):
            find_workflow(session, "Invoice Processing")
        assert find_workflow(session, "Invoice Processing", include_inactive=True).is_active is False


def test_deleting_twice_changes_nothing_and_publishing_brings_it_back(databases):
    with databases.nova.session() as session:
        version = put(session)
        deactivate(session, version.workflow)
        deactivate(session, version.workflow)
        assert catalog_revision(session) == 2
    with databases.nova.session() as session:
        assert put(session).id == version.id
        assert catalog_revision(session) == 3
        assert versions_at(session, 3) == {"invoice_processing": version.id}


def test_finding_by_name_job_name_and_number(databases):
    with databases.nova.session() as session:
        first = put(session, "Invoice Processing").workflow
        second = put(session, "7", {"n": 7}).workflow
    with databases.nova.read() as session:
        for key in ("Invoice Processing", "invoice_processing", "INVOICE PROCESSING", str(first.id), first.id):
            assert find_workflow(session, key).id == first.id
        assert find_workflow(session, "7").id == second.id
        assert find_workflow(session, second.id).id == second.id


@pytest.mark.parametrize("key", ["", "999", 999, "9" * 50, "'; DROP TABLE workflows; --", "%", "٣"])
def test_what_is_not_there_is_not_found(databases, key):
    with databases.nova.read() as session, pytest.raises(NotFound, match="there is no workflow"):
        find_workflow(session, key)


def test_close_matches_are_named(databases):
    with databases.nova.session() as session:
        put(session)
        with pytest.raises(NotFound, match=r"did you mean Invoice Processing\?"):
            find_workflow(session, "invoice_procesing")


def test_publishers_in_threads_get_revisions_in_order(databases):
    committed, errors = [], []

    def work(thread):
        try:
            for number in range(8):
                with databases.nova.session() as session:
                    version = put(session, f"w{thread}-{number % 3}", {"t": thread, "n": number})
                committed.append(version.revision)
        except Exception as error:  # noqa: BLE001  # shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert errors == []
    assert sorted(committed) == list(range(1, 25))


def test_publishers_in_processes_get_versions_in_order(databases, database_urls):
    running = [
        subprocess.Popen([sys.executable, "-c", PUBLISHER, database_urls[0], who, "20"], stderr=subprocess.PIPE)
        for who in ("a", "b")
    ]
    errors = [process.communicate(timeout=120)[1].decode() for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    with databases.nova.read() as session:
        rows = session.execute(
            select(WorkflowVersion.number, WorkflowVersion.revision).order_by(WorkflowVersion.id)
        ).all()
        assert [tuple(row) for row in rows] == [(n, n) for n in range(1, 41)]
        assert session.scalars(select(Workflow.name)).all() == ["shared"]
        assert catalog_revision(session) == 40


def test_a_rolled_back_publish_leaves_no_gap(databases):
    def publish_and_fail():
        with databases.nova.session() as session:
            put(session)
            raise KeyError("stop")

    with pytest.raises(KeyError):
        publish_and_fail()
    with databases.nova.session() as session:
        assert put(session).revision == 1
