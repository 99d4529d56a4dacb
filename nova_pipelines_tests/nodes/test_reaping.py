"""The reaper: what it ends and what it never touches, by the function, the command and the sensor."""

from __future__ import annotations

import json
import time
import uuid
from datetime import timedelta

import dagster as dg
import pytest
from sqlalchemy import select, text
from typer.testing import CliRunner

from nova_pipelines.adapters.sandbox import e2b_cloud
from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.cli.main import app
from nova_pipelines.database.sandbox_tables import SandboxRow
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import TransientError
from nova_pipelines.nodes import reaping
from nova_pipelines.nodes.reaping import reap
from nova_pipelines.nodes.wiring import build_sandbox
from nova_pipelines.orchestration import sensors
from nova_pipelines.orchestration.sensors import build_sensors
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY, E2BWire
from nova_pipelines_tests.fixtures.world import World


def backend(cloud: World, run_id: str | None = None) -> E2BSandbox:
    made = build_sandbox(cloud.settings, cloud.services.databases.nova, run_id=run_id)
    assert isinstance(made, E2BSandbox)
    return made


def orphan(cloud: World, run_id: str | None = None) -> str:
    """A sandbox whose worker was killed: nobody closes its session."""
    session = backend(cloud, run_id).session()
    sandbox_id = session.run(Job()).sandbox_id
    session._loop.close()
    return sandbox_id


def verdicts(cloud: World, **options) -> dict[str, str | None]:
    return {one.sandbox_id: one.reason for one in reap(cloud.services.databases.nova, backend(cloud), **options)}


def change(cloud: World, sandbox_id: str, **values) -> None:
    with cloud.services.databases.nova.session() as session:
        row = session.scalars(select(SandboxRow).filter_by(sandbox_id=sandbox_id)).one()
        for name, value in values.items():
            setattr(row, name, value)


def test_what_is_ended_and_what_is_not(cloud: World, wire: E2BWire):
    live, old, given_up, ended, unknown = (orphan(cloud) for _ in range(5))
    theirs = E2BSandbox(api_key=KEY).session(metadata={"nova_installation": str(uuid.uuid4())})
    other = theirs.run(Job()).sandbox_id
    change(cloud, old, alive_until=utc_now() - 2 * reaping.GRACE)
    change(cloud, given_up, released_at=utc_now())
    change(cloud, ended, released_at=utc_now(), ended_at=utc_now())
    with cloud.services.databases.nova.session() as session:
        session.execute(text("DELETE FROM sandbox_sessions WHERE sandbox_id = :id"), {"id": unknown})
    expected = {
        live: None,
        old: "it is over its time",
        given_up: "its session gave it up",
        ended: "its session gave it up",
        unknown: "no session knows it",
    }
    assert verdicts(cloud, dry_run=True) == expected
    assert wire.kills == []
    assert verdicts(cloud) == expected
    assert sorted(wire.kills) == sorted([old, given_up, ended, unknown])
    assert set(wire.sandboxes) == {live, other}
    assert verdicts(cloud) == {live: None}
    theirs.close()


def test_a_create_that_came_to_be_after_all_is_found_later(cloud: World, wire: E2BWire, monkeypatch):
    """The answer was lost, nothing was found at once, and then the sandbox appeared."""
    monkeypatch.setattr(e2b_cloud, "CREATE_SECONDS", 0.5)
    wire.faults["create"].append("late")
    with backend(cloud).session() as session:
        with pytest.raises(TransientError):
            session.run(Job())
        assert session.run(Job()).ok
    assert wire.sandboxes == {}
    wire.release.set()
    deadline = time.monotonic() + 10
    while not wire.sandboxes:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (late,) = wire.sandboxes
    assert verdicts(cloud) == {late: "its session gave it up"}
    wire.assert_nothing_left()


def test_one_that_cannot_be_ended_keeps_no_other(cloud: World, wire: E2BWire):
    names = [orphan(cloud) for _ in range(2)]
    for name in names:
        change(cloud, name, released_at=utc_now())
    wire.faults["kill"].append(500)
    first, second = reap(cloud.services.databases.nova, backend(cloud))
    assert (first.action, second.action) == ("failed", "ended")
    assert "500" in (first.error or "")
    assert set(wire.sandboxes) == {first.sandbox_id}


def test_the_command(cloud: World, wire: E2BWire):
    live, given_up = orphan(cloud, "run-1"), orphan(cloud)
    change(cloud, given_up, released_at=utc_now())

    def nova(*arguments: str, code: int = 0):
        result = CliRunner().invoke(app, [*arguments, "--json"])
        assert result.exit_code == code, result.output
        return json.loads(result.stdout)

    assert {one["sandbox_id"] for one in nova("sandbox", "status")["sessions"]} == {live, given_up}
    dry = nova("sandbox", "reap", "--dry-run")
    assert {one["sandbox_id"]: one["action"] for one in dry["sandboxes"]} == {live: "kept", given_up: "would end"}
    wire.faults["kill"].append(500)
    assert nova("sandbox", "reap", code=1)["sandboxes"][1]["action"] == "failed"
    assert {one["action"] for one in nova("sandbox", "reap")["sandboxes"]} == {"kept", "ended"}
    shown = CliRunner().invoke(app, ["sandbox", "status"]).stdout
    assert live[:8] in shown
    assert "closed, 0 of 5 failures" in shown
    assert (
        "1 sandboxes of this installation are running, 0 to be ended"
        in CliRunner().invoke(app, ["sandbox", "reap"]).stdout
    )


def test_commands_without_a_key_say_so(cloud: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("E2B_API_KEY")
    for command in ("reap", "template build"):
        result = CliRunner().invoke(app, ["sandbox", *command.split()])
        assert result.exit_code == 2
        assert "set E2B_API_KEY" in result.stderr
    assert CliRunner().invoke(app, ["sandbox", "template", "build", "--dry-run"]).stdout.startswith("FROM python")


def test_the_template_command(cloud: World, wire: E2BWire):
    result = CliRunner().invoke(app, ["sandbox", "template", "build", "--name", "mine"])
    (built,) = wire.templates.built.values()
    assert result.stdout == f"built mine: set E2B_TEMPLATE_ID={built.id}\n"
    assert KEY not in result.output


@pytest.fixture
def sensor(cloud: World):
    sensors._services.cache_clear()
    yield {sensor.name: sensor for sensor in build_sensors({}, cloud.settings)}["sandbox_reaper_sensor"]
    sensors._services().databases.close()
    sensors._services.cache_clear()


def test_the_sensor_also_ends_those_of_runs_that_are_over(cloud: World, wire: E2BWire, sensor: dg.SensorDefinition):
    @dg.job
    def nothing(): ...

    with dg.DagsterInstance.ephemeral() as instance:
        over = nothing.execute_in_process(instance=instance).run_id
        alive = instance.create_run_for_job(nothing).run_id
        names = {run: orphan(cloud, run) for run in (over, alive, "not-dagsters")}
        context = dg.build_sensor_context(instance=instance)
        done = sensor.evaluate_tick(context)
    assert done.skip_message == "3 sandboxes of this installation were running, 1 were ended"
    assert wire.kills == [names[over]]
    assert sensor.minimum_interval_seconds == 300
    with cloud.services.databases.nova.read() as session:
        ended = session.scalars(select(SandboxRow.run_id).where(SandboxRow.ended_at.is_not(None))).all()
    assert ended == [over]


def test_there_is_no_reaper_without_the_cloud(cloud: World, monkeypatch: pytest.MonkeyPatch):
    local = cloud.settings.model_copy(update={"nova_sandbox": "local"})
    assert "sandbox_reaper_sensor" not in {sensor.name for sensor in build_sensors({}, local)}


def test_old_rows_are_forgotten(cloud: World, wire: E2BWire):
    name = orphan(cloud)
    change(cloud, name, alive_until=utc_now() - timedelta(days=40))
    assert verdicts(cloud) == {name: "it is over its time"}
    with cloud.services.databases.nova.read() as session:
        assert session.scalars(select(SandboxRow)).all() == []
