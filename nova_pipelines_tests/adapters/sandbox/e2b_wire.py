"""A server that speaks the part of E2B's wire protocol that NOVA uses, for the unmodified SDK. It really runs the
commands, as subprocesses in one temporary folder for each sandbox. What it does not model it answers with 501.

It proves our client. It proves nothing of E2B's isolation, latency or limits.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email
import json
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
import threading
import uuid
from collections import defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

KEY = "e2b_" + "0" * 40
END = 0x02


@dataclass
class WireSandbox:
    id: str
    body: dict
    folder: Path
    groups: set[int] = field(default_factory=set)

    def path(self, name: str) -> Path:
        """A path of the sandbox below its folder, whatever it says."""
        path = (self.folder / name.lstrip("/")).resolve()
        assert path.is_relative_to(self.folder)
        return path

    def end(self) -> None:
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


class E2BWire:
    """`faults[step]` is a queue of what happens instead of the next `create`, `write`, `run`, `read`, `kill`:
    a status number, `garbled` (created, but no JSON), `cut` (a stream without its end) or `gone`."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, WireSandbox] = {}
        self.creates: list[dict] = []
        self.kills: list[str] = []
        self.keys: dict[str, str] = {}
        self.faults: defaultdict[str, deque] = defaultdict(deque)
        self.unmodelled: list[str] = []
        self._root = Path(tempfile.mkdtemp(prefix="e2b-wire-")).resolve()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self._app(), loop="asyncio", log_level="error", lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        for sandbox in list(self.sandboxes.values()):
            sandbox.end()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        shutil.rmtree(self._root)

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v2/sandboxes", self._create, methods=["POST"]),
                Route("/v2/sandboxes", self._list, methods=["GET"]),
                Route("/sandboxes/{id}", self._kill, methods=["DELETE"]),
                Route("/files", self._write, methods=["POST"]),
                Route("/files", self._read, methods=["GET"]),
                Route("/process.Process/Start", self._start, methods=["POST"]),
                Route("/health", self._health, methods=["GET"]),
                Route("/{rest:path}", self._other, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
            ]
        )

    def _fault(self, step: str) -> object:
        return self.faults[step].popleft() if self.faults[step] else None

    async def _other(self, request: Request) -> Response:
        self.unmodelled.append(f"{request.method} {request.url.path}")
        return JSONResponse({"code": 501, "message": "not modelled"}, 501)

    # --- control plane

    async def _create(self, request: Request) -> Response:
        if request.headers.get("x-api-key") != KEY:
            return JSONResponse({"code": 401, "message": "invalid key"}, 401)
        fault = self._fault("create")
        if isinstance(fault, int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        key = request.headers.get("idempotency-key", "")
        if key in self.keys:
            return self._created(self.sandboxes[self.keys[key]])
        body = await request.json()
        folder = Path(tempfile.mkdtemp(dir=self._root))
        # bash -l resets PATH: this interpreter is the template's python3
        (folder / ".bash_profile").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
        sandbox = WireSandbox(uuid.uuid4().hex, body, folder)
        self.sandboxes[sandbox.id] = sandbox
        self.keys[key] = sandbox.id
        self.creates.append(body)
        return Response("{", 201, media_type="application/json") if fault == "garbled" else self._created(sandbox)

    def _created(self, sandbox: WireSandbox) -> Response:
        answer = {
            "templateID": sandbox.body["templateID"],
            "sandboxID": sandbox.id,
            "clientID": "wire",
            "envdVersion": "0.5.0",
            "envdAccessToken": "token",
            "domain": None,
        }
        return JSONResponse(answer, 201)

    async def _list(self, request: Request) -> Response:
        if request.headers.get("x-api-key") != KEY:
            return JSONResponse({"code": 401, "message": "invalid key"}, 401)
        wanted = {unquote(name): unquote(value) for name, value in parse_qsl(request.query_params.get("metadata", ""))}
        rows = [
            {
                "sandboxID": sandbox.id,
                "templateID": sandbox.body["templateID"],
                "clientID": "wire",
                "startedAt": "2026-08-01T00:00:00Z",
                "endAt": "2026-08-01T01:00:00Z",
                "state": "running",
                "cpuCount": 2,
                "memoryMB": 512,
                "diskSizeMB": 1024,
                "envdVersion": "0.5.0",
                "metadata": sandbox.body["metadata"],
            }
            for sandbox in self.sandboxes.values()
            if wanted.items() <= sandbox.body["metadata"].items()
        ]
        return JSONResponse(rows)

    async def _kill(self, request: Request) -> Response:
        fault = self._fault("kill")
        if isinstance(fault, int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        name = request.path_params["id"]
        self.kills.append(name)
        return Response(status_code=204 if self.vanish(name) else 404)

    def vanish(self, name: str) -> bool:
        """Ends a sandbox as its life or a kill does."""
        sandbox = self.sandboxes.pop(name, None)
        if sandbox:
            sandbox.end()
        return sandbox is not None

    # --- inside a sandbox

    def _sandbox(self, request: Request) -> WireSandbox | None:
        return self.sandboxes.get(request.headers.get("e2b-sandbox-id", ""))

    def _missing(self) -> Response:
        return JSONResponse({"code": 502, "message": "The sandbox was not found"}, 502)

    async def _health(self, request: Request) -> Response:
        return Response(status_code=204) if self._sandbox(request) else self._missing()

    async def _write(self, request: Request) -> Response:
        sandbox = self._sandbox(request)
        if sandbox is None or self._fault("write") == "gone":
            return self._missing()
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        (part,) = email.message_from_bytes(head + await request.body()).get_payload()
        path = sandbox.path(request.query_params["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part.get_payload(decode=True))
        return JSONResponse([{"name": path.name, "type": "file", "path": str(path)}])

    async def _read(self, request: Request) -> Response:
        sandbox = self._sandbox(request)
        if sandbox is None:
            return self._missing()
        path = sandbox.path(request.query_params["path"])
        if not path.is_file():
            return JSONResponse({"code": 404, "message": "no such file"}, 404)
        return Response(path.read_bytes(), media_type="application/octet-stream")

    async def _start(self, request: Request) -> Response:
        sandbox = self._sandbox(request)
        if sandbox is None:
            return self._missing()
        body = await request.body()
        process = json.loads(body[5:])["process"]
        seconds = float(request.headers.get("connect-timeout-ms", 60_000)) / 1000
        stream = self._stream(sandbox, process, seconds, self._fault("run"))
        return StreamingResponse(stream, media_type="application/connect+json")

    async def _stream(self, sandbox: WireSandbox, process: dict, seconds: float, fault: object):
        child = await asyncio.create_subprocess_exec(
            process["cmd"],
            *process["args"],
            cwd=sandbox.path(process.get("cwd") or ""),
            env={"HOME": str(sandbox.folder), "PATH": "/usr/bin:/bin", **(process.get("envs") or {})},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        sandbox.groups.add(child.pid)
        yield envelope({"event": {"start": {"pid": child.pid}}})
        if fault == "cut":
            return  # the command goes on, nobody hears of it
        if fault == "gone":
            self.vanish(sandbox.id)
            yield envelope({"error": {"code": "unavailable", "message": "The sandbox was not found"}}, END)
            return
        try:
            out, err = await asyncio.wait_for(child.communicate(), seconds)
        except TimeoutError:
            yield envelope({"error": {"code": "deadline_exceeded", "message": "out of time"}}, END)
            return
        for name, data in (("stdout", out), ("stderr", err)):
            if data:
                yield envelope({"event": {"data": {name: base64.b64encode(data).decode()}}})
        end = {"exitCode": child.returncode, "exited": True, "status": f"exit status {child.returncode}"}
        yield envelope({"event": {"end": end}})
        yield envelope({}, END)


def envelope(message: dict, flag: int = 0) -> bytes:
    data = json.dumps(message).encode()
    return struct.pack(">BI", flag, len(data)) + data
