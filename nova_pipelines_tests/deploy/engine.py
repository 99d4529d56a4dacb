"""A stand-in for Docker's engine, which cannot be had here: takes the calls that DockerRunLauncher makes and runs
each container's command as a process, with the image's and the container's environment and nothing else."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Any

from nova_pipelines_tests.fixtures.http_server import WebServer

VERSION = {"Version": "28.2.2", "ApiVersion": "1.50", "MinAPIVersion": "1.24", "Os": "linux", "Arch": "amd64"}


@dataclass
class Container:
    """What was asked for (`body` of create), the networks it joined, and the process it became."""

    body: dict[str, Any]
    networks: list[str] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return dict(entry.split("=", 1) for entry in self.body["Env"])

    def state(self) -> dict[str, Any]:
        code = self.process.poll() if self.process else None
        status = "created" if not self.process else "running" if code is None else "exited"
        return {"Status": status, "Running": status == "running", "ExitCode": code or 0}


class Engine(WebServer):
    """Listens on a free port of loopback (`host`: for DOCKER_HOST). `run(command, environment)` starts the process of a
    container. Calls that it does not know are kept in `refused`."""

    def __init__(self, run: Callable[[list[str], dict[str, str]], subprocess.Popen[bytes]]) -> None:
        self.handler = _Handler
        self.run = run
        self.containers: dict[str, Container] = {}
        self.calls: list[str] = []
        self.refused: list[str] = []

    @property
    def host(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for container in self.containers.values():
            if container.process:
                with suppress(ProcessLookupError):
                    container.process.kill()
                container.process.wait()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        call = f"{method} {re.sub(r'^/v[0-9.]+', '', path.split('?')[0])}"
        self.calls.append(call)
        match call.split("/"):
            case ["GET ", "_ping"]:
                return 200, "OK"
            case ["GET ", "version"]:
                return 200, VERSION
            case ["POST ", "containers", "create"]:
                number = secrets.token_hex(32)
                self.containers[number] = Container(body, [body["HostConfig"]["NetworkMode"]])
                return 201, {"Id": number, "Warnings": []}
            case ["POST ", "containers", number, "start"] if number in self.containers:
                container = self.containers[number]
                container.process = self.run(container.body["Cmd"], container.environment)
                return 204, None
            case ["POST ", "containers", number, "stop"] if number in self.containers:
                process = self.containers[number].process
                if process:
                    process.terminate()
                    process.wait(20)
                return 204, None
            case ["GET ", "containers", number, "json"] if number in self.containers:
                container = self.containers[number]
                return 200, {"Id": number, "State": container.state(), "Config": {"Image": container.body["Image"]}}
            case ["GET ", "networks", name]:
                return 200, {"Id": name.encode().hex(), "Name": name}
            case ["POST ", "networks", number, "connect"]:
                self.containers[body["Container"]].networks.append(bytes.fromhex(number).decode())
                return 200, None
        self.refused.append(call)
        return 404, {"message": f"no such thing: {call}"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        engine: Engine = self.server.owner  # type: ignore[attr-defined]
        status, answer = engine.answer(self.command, self.path, json.loads(raw) if raw.strip() else {})
        body = b"" if answer is None else answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # the base class's name
        """Silent: the calls are kept."""
