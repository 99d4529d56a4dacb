"""docker-compose.yml and .env.example, without an engine: what must hold before one sees them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nova_pipelines.settings import Settings, load_settings
from nova_pipelines_tests.deploy.compose import FILES, ROOT, env_example, load, load_merged, variables

NOVA = ("migrate", "code", "daemon", "web", "watch")
REQUIRED = {
    "NOVA_DB_PASSWORD",
    "DAGSTER_DB_PASSWORD",
    "FACTURAS_DB_PASSWORD",
    "NOVA_DB_ADMIN_PASSWORD",
    "FACTURAS_DB_ADMIN_PASSWORD",
    "NOVA_SECRET_KEY",
}
FILLED = {name: f"value{number}" for number, name in enumerate(sorted(REQUIRED))}
COMPOSE_TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


@pytest.fixture(params=sorted(FILES))
def compose(request):
    return load_merged(FILES[request.param], FILLED)


@pytest.fixture
def services(compose):
    return compose["services"]


def test_the_services(services):
    assert set(services) == {"nova-db", "facturas-db", *NOVA, "docker-start", "docker-stop"}


@pytest.mark.parametrize("missing", sorted(REQUIRED))
def test_a_missing_secret_stops_it(missing):
    with pytest.raises(KeyError, match=f"{missing}: run sh deploy/new-env.sh"):
        load(ROOT / "docker-compose.yml", {**FILLED, missing: ""})


def test_every_variable_is_in_env_example_and_back():
    assert set(env_example()) == variables(COMPOSE_TEXT)


def test_defaults_of_env_example_are_those_of_compose():
    defaults = {match[1]: match[2] for match in re.finditer(r"\$\{(\w+):-([^}]*)\}", COMPOSE_TEXT)}
    assert defaults == {name: value for name, value in env_example().items() if name not in REQUIRED}


def test_new_env_makes_secrets_that_nova_takes(monkeypatch):
    made = [_new_env(), _new_env()]
    for name in REQUIRED:
        assert len({made[0][name], made[1][name], ""}) == 3, f"{name} is empty or the same twice"
    assert all(re.fullmatch(r"[0-9a-f]{48}", made[0][name]) for name in REQUIRED if name.endswith("PASSWORD"))
    environment = load(ROOT / "docker-compose.yml", made[0])["services"]["code"]["environment"]
    for name, field in Settings.model_fields.items():
        variable = str(field.validation_alias or name).upper()
        monkeypatch.delenv(variable, raising=False)
        if variable in environment:
            monkeypatch.setenv(variable, environment[variable])
    settings = load_settings()
    assert settings.database_url.startswith("postgresql+psycopg2://nova:")
    assert settings.facturas_database_url.endswith("@facturas-db:5432/facturas")
    assert settings.sandbox == "local"


def _new_env() -> dict[str, str]:
    run = subprocess.run(["sh", ROOT / "deploy/new-env.sh"], capture_output=True, text=True, check=True, timeout=20)
    return dict(line.split("=", 1) for line in run.stdout.splitlines() if line and not line.startswith("#"))


def test_no_secret_stands_in_a_file():
    named = [ROOT / name for name in ("docker-compose.yml", "Dockerfile", ".env.example")]
    files = [*named, *(ROOT / "deploy").rglob("*.*")]
    for path in files:
        text = path.read_text("utf-8")
        # a password in a URL must be a variable, and so must be what is assigned; scripts make theirs
        assert not re.search(r"://\w+:(?!\$\{)[^@\s/]+@", text), path
        if path.suffix != ".sh":
            assert not re.search(r"(?im)^[ -]*\w*(PASSWORD|SECRET_KEY|API_KEY) *[:=] *(?!\$\{)[^\s#]+", text), path


def test_each_database_has_its_own_network_volume_and_passwords(compose):
    services = compose["services"]
    nova, facturas = services["nova-db"], services["facturas-db"]
    assert not set(nova["networks"]) & set(facturas["networks"])
    assert nova["volumes"][0] != facturas["volumes"][0]
    secrets = [value for service in (nova, facturas) for key, value in service["environment"].items() if "PASS" in key]
    assert len(secrets) == len(set(secrets)) == 5
    for name in ("nova-db", "facturas-db"):
        assert compose["networks"][name]["internal"], "a database must not reach the outside, nor be reached from it"
        assert "ports" not in services[name]


def test_urls_fit_the_roles_that_the_databases_are_made_with(services):
    script = {name: services[name]["environment"] for name in ("nova-db", "facturas-db")}
    for variable in ("DATABASE_URL", "FACTURAS_DATABASE_URL", "DAGSTER_DATABASE_URL"):
        url = services["code"]["environment"][variable]
        match = re.fullmatch(r"postgresql(?:\+psycopg2)?://(\w+):(\w+)@([\w-]+):5432/(\w+)", url)
        assert match, url
        role, password, host, database = match.groups()
        assert role == database
        assert role in script[host]["DATABASES"].split()
        assert script[host][f"{role.upper()}_PASSWORD"] == password


def test_the_watcher_reaches_mailboxes_nova_db_and_the_web_service_and_nothing_else(services):
    networks = set(services["watch"]["networks"])
    assert networks == {"nova-db", "nova-dagster", "nova-outside"}
    assert services["watch"]["environment"]["NOVA_DAGSTER_URL"] == "http://web:3000"
    assert "nova-dagster" in services["web"]["networks"]


def test_only_the_web_service_is_published_and_only_to_this_machine(services):
    assert {name for name, service in services.items() if service.get("ports")} == {"web"}
    assert services["web"]["ports"] == ["127.0.0.1:3000:3000"]


def test_order_of_start(services):
    for database in ("nova-db", "facturas-db"):
        assert services["migrate"]["depends_on"][database] == {"condition": "service_healthy"}
    assert services["code"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    for name in ("daemon", "web"):
        assert services[name]["depends_on"]["code"] == {"condition": "service_healthy"}
    assert services["watch"]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert services["migrate"]["restart"] == "no"


def test_every_lasting_service_restarts_has_a_health_check_and_bounded_logs(services):
    for name, service in services.items():
        assert service["logging"]["options"]["max-size"], name
        if name != "migrate":
            assert service["restart"] == "unless-stopped", name
            assert service["healthcheck"]["test"][0] == "CMD", name


def test_nova_runs_without_rights(services):
    for name in NOVA:
        service = services[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "cap_add" not in service, name
        assert "privileged" not in service, name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["volumes"] == ["nova-home:/var/lib/nova"], name


def test_only_the_gates_hold_the_engines_socket(services):
    holders = {name for name, service in services.items() if "docker.sock" in str(service.get("volumes"))}
    assert holders == {"docker-start", "docker-stop"}
    reached = {name: {gate for gate in holders if set(services[gate]["networks"]) & set(service["networks"])}
               for name, service in services.items() if name not in holders}  # fmt: skip
    assert {name: gates for name, gates in reached.items() if gates} == {
        "daemon": {"docker-start"},
        "web": {"docker-stop"},
    }


def test_with_processes_the_sandbox_may_work_and_no_gate_starts():
    plain, process = (load_merged(FILES[kind], FILLED)["services"] for kind in ("containers", "processes"))
    assert {name for name, service in process.items() if service.get("profiles")} == {"docker-start", "docker-stop"}
    for name in NOVA:
        assert process[name]["environment"]["DAGSTER_CONFIGURATION"] == "/opt/nova/deploy/process/dagster.yaml"
        assert "DAGSTER_CONFIGURATION" not in plain[name]["environment"], "the image's own: deploy/dagster.yaml"
    wider = {name for name in NOVA if "seccomp=unconfined" in process[name]["security_opt"]}
    assert wider == {"code"}, "only where runs are may system calls be let through"
    assert all("seccomp=unconfined" not in plain[name]["security_opt"] for name in NOVA)


def test_files_that_are_mounted_exist(compose):
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (ROOT / source).is_file(), source
            elif not source.startswith("/"):
                assert source in compose["volumes"], source
        for network in service["networks"]:
            assert network in compose["networks"], network


@pytest.mark.parametrize("service", NOVA)
def test_commands_and_options_exist(service):
    services = load(ROOT / "docker-compose.yml", FILLED)["services"]
    commands = [_words(services[service]["command"])]
    if "healthcheck" in services[service]:
        commands.append([services[service]["healthcheck"]["test"][1:]])
    for command in (each for words in commands for each in words):
        program = Path(sys.executable).parent / command[0]
        assert program.exists() or shutil.which(command[0]), f"{command[0]} is no program of this installation"
        if command[0] == "python":
            compile(command[2], "healthcheck", "exec")
            continue
        subcommands = [word for word in command[1:] if re.fullmatch(r"[a-z]+(-[a-z]+)*", word)]
        depth = next((i for i, word in enumerate(command[1:]) if word not in subcommands), len(command) - 1)
        usage = _help([str(program), *command[1 : 1 + depth]])
        for option in (word for word in command if word.startswith("--")):
            assert option in usage, f"{shlex.join(command)}: {option} is unknown"


def test_the_procfile_starts_the_same_programs(services):
    lines = [line for line in (ROOT / "Procfile").read_text(encoding="utf-8").splitlines() if line.strip()]
    commands = {name: command.removeprefix(" sh deploy/entrypoint.sh") for name, _, command in
                (line.partition(":") for line in lines)}  # fmt: skip
    assert "nova migrate" in commands.pop("release")
    assert "nova migrate" in services["migrate"]["command"][-1]
    assert set(commands) == {"code", "daemon", "web", "watch"}
    for name, command in commands.items():
        # host and port are the only things that differ between a container and a process
        assert _program(shlex.split(command)) == _program(services[name]["command"]) == ["nova", "serve", name]


def _program(command: list[str]) -> list[str]:
    return [word for word, before in zip(command, ["", *command], strict=False)
            if not word.startswith("--") and not before.startswith("--")]  # fmt: skip


def _words(command: list[str]) -> list[list[str]]:
    """The commands of a service: one, or those that a shell runs one after another."""
    if command[:2] != ["sh", "-ec"]:
        return [command]
    return [shlex.split(part) for part in command[2].split(";")]


def _help(command: list[str]) -> str:
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    run = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=60, env=environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_dockerfile():
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    final = text[text.rindex("\nFROM ") :]
    assert not re.search(r"(?m)^ADD ", text), "COPY does the same without fetching URLs"
    assert not re.search(r"apt-get|build-essential|gcc", final), "no build tools in the image that runs"
    users = re.findall(r"(?m)^USER (\S+)$", final)
    assert users == ["10001:10001"]
    assert final.index("USER") > final.rindex("RUN"), "the steps of the build need root, what runs must not have it"
    assert not re.search(r"(?i)(password|secret|api_key)\s*=", text)
    for copied in re.findall(r"(?m)^COPY (?!--from)(.+) \S+$", text):
        for name in copied.split():
            assert (ROOT / name).exists(), f"COPY {name}: there is no such file"
            assert f"!{name.removeprefix('./')}" in (ROOT / ".dockerignore").read_text().splitlines(), name
    for script in re.findall(r'ENTRYPOINT \["/opt/nova/(.+)"\]', text):
        assert os.access(ROOT / script, os.X_OK), script


def test_the_image_has_the_folders_that_compose_names(services):
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    paths = set(re.findall(r"/opt/nova/(deploy[\w./-]*)", text + yaml.safe_dump(services)))
    for path in paths:
        assert (ROOT / path).exists(), path
