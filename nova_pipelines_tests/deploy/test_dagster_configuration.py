"""deploy/dagster.yaml and its like, held against Dagster's own schema and the Docker client's own checks."""

from __future__ import annotations

import subprocess

import pytest
import yaml
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_docker import DockerRunLauncher
from dagster_postgres import DagsterPostgresStorage
from docker.models.containers import _create_container_args  # pyright: ignore[reportAttributeAccessIssue]

from nova_pipelines.settings import Settings
from nova_pipelines.settings_operation import OperationSettings
from nova_pipelines_tests.deploy.compose import ROOT, env_example, load

HERE = {"containers": ROOT / "deploy", "processes": ROOT / "deploy/process"}
#: set in the image, or of no use to a run
NOT_FOR_RUNS = {"NOVA_HOME", "PORT", "REDIS_URL", "NOVA_CODE_HOST", "NOVA_CODE_PORT", "NOVA_DAGSTER_URL", "NOVA_DEBUG"}
NOT_FOR_RUNS |= {"NOVA_MAX_WAITING", "NOVA_WATCH_IDLE_SECONDS", "NOVA_WATCH_POLL_SECONDS", "NOVA_WATCH_CONNECTIONS"}

#: who logs in is the web service's matter (its address stands in the links that runs write)
NOT_FOR_RUNS |= {"NOVA_TRUSTED_PROXIES"}
NOT_FOR_RUNS |= {name.upper() for name in Settings.model_fields if name.startswith(("nova_oidc_", "nova_session_"))}

#: of the web service, the watcher and the sensors
NOT_FOR_RUNS |= {name.upper() for name in OperationSettings.model_fields}
#: alerts are the sensors' matter: no run needs to know their passwords
NOT_FOR_RUNS |= {name.upper() for name in Settings.model_fields if name.startswith("nova_alert_")}


def _config(folder):
    return yaml.safe_load((folder / "dagster.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("profile", "launcher"), [("containers", DockerRunLauncher), ("processes", DefaultRunLauncher)]
)
def test_dagster_takes_it(profile, launcher, monkeypatch, postgres_url, tmp_path):
    monkeypatch.setenv("DAGSTER_DATABASE_URL", postgres_url)
    monkeypatch.setenv("DAGSTER_LOCAL_DIR", str(tmp_path))
    ref = InstanceRef.from_dir(str(HERE[profile]))  # raises for what the schema does not know
    assert isinstance(ref.run_launcher, launcher)
    assert isinstance(ref.storage, DagsterPostgresStorage)
    assert ref.local_artifact_storage.base_dir == str(tmp_path)


def test_an_unknown_field_would_be_seen(tmp_path):
    text = (HERE["containers"] / "dagster.yaml").read_text(encoding="utf-8")
    (tmp_path / "dagster.yaml").write_text(text.replace("networks:", "netwerks:"))
    with pytest.raises(Exception, match="netwerks"):
        _ = InstanceRef.from_dir(str(tmp_path)).run_launcher


def test_both_differ_in_the_launcher_alone():
    containers, processes = (_config(folder) for folder in HERE.values())
    assert containers.pop("run_launcher") != processes.pop("run_launcher")
    assert containers == processes


def test_what_is_common_with_one_machine_is_alike():
    embedded, server = _config(ROOT), _config(HERE["containers"])
    assert set(embedded) <= set(server)
    for section, values in embedded.items():
        assert values.items() <= server[section].items(), section


def test_a_run_gets_every_variable_that_nova_reads_and_each_is_set_for_the_daemon():
    given = _config(HERE["containers"])["run_launcher"]["config"]["env_vars"]
    read = {str(field.validation_alias or name).upper() for name, field in Settings.model_fields.items()}
    assert set(given) == (read - NOT_FOR_RUNS) | {"DAGSTER_DATABASE_URL"}
    assert all("=" not in name for name in given), "by name: a value would be a secret in a file"
    environment = load(ROOT / "docker-compose.yml", _filled())["services"]["daemon"]["environment"]
    assert set(given) <= set(environment), "the launcher refuses a variable that the daemon does not have"


def test_a_run_joins_networks_and_volumes_that_compose_makes_under_these_names():
    config = _config(HERE["containers"])["run_launcher"]["config"]
    compose = load(ROOT / "docker-compose.yml", _filled())
    names = {network.get("name") for network in compose["networks"].values() if network}
    assert set(config["networks"]) <= names
    volumes = {volume.split(":")[0] for volume in config["container_kwargs"]["volumes"]}
    assert volumes <= {volume.get("name") for volume in compose["volumes"].values() if volume}
    mounts = compose["services"]["code"]["volumes"]
    assert config["container_kwargs"]["volumes"] == mounts, "a run sees the same files as the code server"


def test_the_docker_client_takes_the_containers_options():
    options = dict(_config(HERE["containers"])["run_launcher"]["config"]["container_kwargs"])
    assert isinstance(options.pop("stop_timeout"), int)  # the launcher's own
    made = _create_container_args({"image": "nova-pipelines", "command": [], "version": "1.50", **options})
    host = made["host_config"]
    assert host["CapDrop"] == ["ALL"]
    assert host["ReadonlyRootfs"]
    assert not host.get("Privileged")
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Binds"] == ["nova-home:/var/lib/nova"]
    assert host["Memory"] == 2 * 2**30


def test_the_workspace_names_the_code_server(monkeypatch):
    path = str(ROOT / "deploy/workspace.yaml")
    monkeypatch.setenv("NOVA_CODE_HOST", "code")
    monkeypatch.setenv("NOVA_CODE_PORT", "4000")
    (origin,) = WorkspaceFileTarget([path]).create_origins()
    assert isinstance(origin, GrpcServerCodeLocationOrigin)
    assert (origin.location_name, origin.host, origin.port) == ("nova", "code", 4000)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("postgres://a:b@host/dagster", "postgresql+psycopg2://a:b@host/dagster"),
        ("postgresql://a:b@host/dagster?sslmode=require", "postgresql+psycopg2://a:b@host/dagster?sslmode=require"),
        ("postgresql+psycopg2://a:b@host/dagster", "postgresql+psycopg2://a:b@host/dagster"),
    ],
)
def test_the_entrypoint_names_the_driver(given, seen):
    command = [ROOT / "deploy/entrypoint.sh", "sh", "-c", 'printf %s "$DAGSTER_DATABASE_URL"']
    environment = {"PATH": "/usr/bin:/bin", "DAGSTER_DATABASE_URL": given}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    assert run.stdout == seen


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ({}, "process/dagster.yaml"),
        ({"DAGSTER_CONFIGURATION": str(ROOT / "deploy/dagster.yaml")}, "dagster.yaml"),
        ({"DAGSTER_CONFIGURATION": str(ROOT / "deploy/dagster.yaml"), "DAGSTER_HOME": "{}/given"}, "dagster.yaml"),
    ],
)
def test_the_entrypoint_makes_dagsters_home(given, used, tmp_path):
    command = [
        ROOT / "deploy/entrypoint.sh",
        "sh",
        "-c",
        'cat "$DAGSTER_HOME/dagster.yaml"; stat -c %a "$DAGSTER_HOME"',
    ]
    environment = {"PATH": "/usr/bin:/bin", "DAGSTER_DATABASE_URL": "postgres://a:b@host/dagster"}
    environment |= {name: value.format(tmp_path) for name, value in given.items()}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True, cwd=tmp_path)
    assert run.stdout == (ROOT / "deploy" / used).read_text() + "700\n"


def test_the_entrypoint_leaves_a_home_of_the_users_own(tmp_path):
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    command = [ROOT / "deploy/entrypoint.sh", "cat", tmp_path / "dagster.yaml"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "DAGSTER_DATABASE_URL": "postgres://a:b@host/dagster",
        "DAGSTER_HOME": str(tmp_path),
    }
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=10, check=True)
    assert run.stdout == "telemetry: {enabled: false}\n"


def test_the_entrypoint_gives_back_the_commands_exit_code():
    command = [ROOT / "deploy/entrypoint.sh", "sh", "-c", "exit 7"]
    assert subprocess.run(command, env={"PATH": "/usr/bin:/bin"}, timeout=10).returncode == 7


def _filled() -> dict[str, str]:
    return {name: value or f"{name.lower()}" for name, value in env_example().items()}
