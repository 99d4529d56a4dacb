"""A server that speaks the part of E2B's wire protocol that NOVA uses, for the unmodified SDK. It really runs the
commands, as subprocesses in one temporary folder for each sandbox; sandboxes live as long as was asked for, and what
each would be billed is recorded. What it does not model it answers with 501.

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
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from nova_pipelines.adapters.sandbox.e2b_template import HOME
from nova_pipelines_tests.adapters.sandbox.e2b_wire_templates import Templates

KEY = "e2b_" + "0" * 40
END = 0x02


@dataclass
class WireSandbox:
    """`born` and `ended`: monotonic seconds between which it bills. `how`: kill, life or vanished."""

    id: str
    body: dict
    folder: Path
    born: float = field(default_factory=time.monotonic)
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: float | None = None
    how: str = ""
    groups: set[int] = field(default_factory=set)
    life: asyncio.TimerHandle | None = None
    until: float = 0.0

    @property
    def metadata(self) -> dict[str, str]:
        return self.body["metadata"]

    def billed(self) -> float:
        return (self.ended or time.monotonic()) - self.born

    def path(self, name: str) -> Path:
        """A path of the sandbox below its folder, whatever it says; its home is the folder."""
        path = (self.folder / name.removeprefix(str(HOME)).lstrip("/")).resolve()
        assert path.is_relative_to(self.folder)
        return path

    def kill(self) -> None:
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        shutil.rmtree(self.folder, ignore_errors=True)


class E2BWire:
    """`faults[step]` is a queue of what happens instead of the next `create`, `list`, `timeout`, `kill`, `stat`,
    `write`, `run` or `read`:

    - a status number; `hang`: no answer at all until the client gives up (what was asked for is done)
    - create: `garbled` (made, but no JSON), `late` (made after `release`, when the client has long given up),
      `hold` (waits for `release`)
    - write, run, read, timeout: `gone` (the sandbox vanishes at that moment)
    - run: `cut` (the connection breaks), `short` (a stream without its end), `unreachable` (its port does not answer)

    `cold_start`: seconds from the request until a sandbox is there; it bills from the request on.
    """

    def __init__(self) -> None:
        self.all: list[WireSandbox] = []
        self.sandboxes: dict[str, WireSandbox] = {}
        self.creates: list[dict] = []
        self.kills: list[str] = []
        self.extensions: list[int] = []
        self.writes: list[str] = []
        self.keys: dict[str, str] = {}
        self.faults: defaultdict[str, deque] = defaultdict(deque)
        self.unmodelled: list[str] = []
        self.requests = 0
        self.cold_start = 0.0
        self.release = threading.Event()
        self._root = Path(tempfile.mkdtemp(prefix="e2b-wire-")).resolve()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.templates = Templates(self.url, self._refused)
        config = uvicorn.Config(self._app(), loop="asyncio", log_level="critical", lifespan="off", log_config=None)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self.clear()
        self._socket.close()
        shutil.rmtree(self._root)

    def clear(self) -> None:
        """Ends what is left, and forgets everything."""
        for sandbox in list(self.sandboxes.values()):
            self.vanish(sandbox.id)
        records = (self.all, self.creates, self.kills, self.extensions, self.writes, self.keys, self.unmodelled)
        for record in (*records, self.faults, self.templates.built):
            record.clear()
        self.cold_start, self.requests = 0.0, 0
        self.release.clear()

    @property
    def environment(self) -> dict[str, str]:
        """What points the SDK at this server."""
        return {"E2B_API_KEY": KEY, "E2B_API_URL": self.url, "E2B_SANDBOX_URL": self.url}

    def billed_seconds(self) -> float:
        return sum(sandbox.billed() for sandbox in self.all)

    def assert_nothing_left(self) -> None:
        """No orphan: every sandbox that was made was ended by somebody, before its life was over."""
        assert self.sandboxes == {}
        assert [sandbox.how for sandbox in self.all if sandbox.how == "life"] == []

    def _app(self) -> Starlette:
        routes: list[tuple[str, str, Callable]] = [
            ("POST", "/v2/sandboxes", self._create),
            ("GET", "/v2/sandboxes", self._list),
            ("DELETE", "/sandboxes/{id}", self._kill),
            ("POST", "/sandboxes/{id}/timeout", self._timeout),
            *self.templates.routes(),
            ("POST", "/filesystem.Filesystem/Stat", self._stat),
            ("POST", "/files", self._write),
            ("GET", "/files", self._read),
            ("POST", "/process.Process/Start", self._start),
            ("GET", "/health", self._health),
        ]
        every = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        last = Route("/{rest:path}", self._other, methods=every)
        return Starlette(routes=[*(Route(path, call, methods=[method]) for method, path, call in routes), last])

    async def _other(self, request: Request) -> Response:
        self.unmodelled.append(f"{request.method} {request.url.path}")
        return JSONResponse({"code": 501, "message": "not modelled"}, 501)

    # --- faults

    def _fault(self, step: str) -> object:
        return self.faults[step].popleft() if self.faults[step] else None

    def _refused(self, request: Request) -> Response | None:
        """A wrong key."""
        self.requests += 1
        if request.headers.get("x-api-key") == KEY:
            return None
        return JSONResponse({"code": 401, "message": "invalid key"}, 401)

    async def _given_up(self, request: Request) -> Response:
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        return Response(status_code=500)

    # --- control plane

    async def _create(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        fault = self._fault("create")
        if isinstance(fault, int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        body = await request.json()
        while fault in ("hold", "late") and not self.release.is_set():
            await asyncio.sleep(0.01)
        key = request.headers.get("idempotency-key", "")
        if self.keys.get(key) in self.sandboxes:
            return self._created(self.sandboxes[self.keys[key]])
        sandbox = self._make(body)
        self.keys[key] = sandbox.id
        await asyncio.sleep(self.cold_start)
        if fault == "hang":
            return await self._given_up(request)
        return Response("{", 201, media_type="application/json") if fault == "garbled" else self._created(sandbox)

    def _make(self, body: dict) -> WireSandbox:
        folder = Path(tempfile.mkdtemp(dir=self._root))
        # bash -l resets PATH: this interpreter is the template's python3
        (folder / ".bash_profile").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
        sandbox = WireSandbox(uuid.uuid4().hex, body, folder)
        self.templates.furnish(body["templateID"], sandbox.path)
        self.sandboxes[sandbox.id] = sandbox
        self.all.append(sandbox)
        self.creates.append(body)
        self._live(sandbox, body["timeout"])
        return sandbox

    def _live(self, sandbox: WireSandbox, seconds: float) -> None:
        if sandbox.life:
            sandbox.life.cancel()
        sandbox.until = time.monotonic() + seconds
        sandbox.life = asyncio.get_running_loop().call_later(seconds, self.vanish, sandbox.id, "life")

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
        if refused := self._refused(request):
            return refused
        if isinstance(fault := self._fault("list"), int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        wanted = {unquote(name): unquote(value) for name, value in parse_qsl(request.query_params.get("metadata", ""))}
        found = [one for one in self.sandboxes.values() if wanted.items() <= one.metadata.items()]
        first, limit = int(request.query_params.get("nextToken", 0)), int(request.query_params.get("limit", 100))
        rows = [
            {
                "sandboxID": sandbox.id,
                "templateID": sandbox.body["templateID"],
                "clientID": "wire",
                "startedAt": sandbox.started_at.isoformat(),
                "endAt": (datetime.now(UTC) + timedelta(seconds=sandbox.until - time.monotonic())).isoformat(),
                "state": "running",
                "cpuCount": 2,
                "memoryMB": 512,
                "diskSizeMB": 1024,
                "envdVersion": "0.5.0",
                "metadata": sandbox.metadata,
            }
            for sandbox in found[first : first + limit]
        ]
        more = {"x-next-token": str(first + limit)} if len(found) > first + limit else {}
        return JSONResponse(rows, headers=more)

    async def _kill(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        fault = self._fault("kill")
        if isinstance(fault, int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        name = request.path_params["id"]
        self.kills.append(name)
        killed = self.vanish(name, "kill")
        if fault == "hang":
            return await self._given_up(request)
        return Response(status_code=204 if killed else 404)

    async def _timeout(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        fault = self._fault("timeout")
        if isinstance(fault, int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        if fault == "gone":
            self.vanish(request.path_params["id"])
        sandbox = self.sandboxes.get(request.path_params["id"])
        if sandbox is None:
            return JSONResponse({"code": 404, "message": "no such sandbox"}, 404)
        seconds = (await request.json())["timeout"]
        self.extensions.append(seconds)
        self._live(sandbox, seconds)
        return Response(status_code=204)

    def vanish(self, name: str, how: str = "vanished") -> bool:
        """Ends a sandbox as its life, a kill, or E2B's own trouble does."""
        sandbox = self.sandboxes.pop(name, None)
        if sandbox is None:
            return False
        sandbox.ended, sandbox.how = time.monotonic(), how
        if sandbox.life:
            sandbox.life.cancel()
        sandbox.kill()
        return True

    # --- inside a sandbox

    def _sandbox(self, request: Request, step: str) -> tuple[WireSandbox | None, object]:
        """(sandbox or None, fault)."""
        self.requests += 1
        name, fault = request.headers.get("e2b-sandbox-id", ""), self._fault(step)
        if fault == "gone" and step != "run":
            self.vanish(name)
        return self.sandboxes.get(name), fault

    def _missing(self) -> Response:
        return JSONResponse({"code": 502, "message": "The sandbox was not found"}, 502)

    async def _health(self, request: Request) -> Response:
        return Response(status_code=204) if self._sandbox(request, "health")[0] else self._missing()

    async def _stat(self, request: Request) -> Response:
        sandbox, _ = self._sandbox(request, "stat")
        if sandbox is None:
            return self._missing()
        path = sandbox.path((await request.json())["path"])
        if not path.exists():
            return JSONResponse({"code": "not_found", "message": "no such file"}, 404)
        return JSONResponse({"entry": {"name": path.name, "type": "FILE_TYPE_FILE", "path": str(path)}})

    async def _write(self, request: Request) -> Response:
        sandbox, fault = self._sandbox(request, "write")
        if sandbox is None:
            return self._missing()
        if isinstance(fault, int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
        (part,) = email.message_from_bytes(head + await request.body()).get_payload()
        path = sandbox.path(request.query_params["path"])
        self.writes.append(path.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part.get_payload(decode=True))
        return JSONResponse([{"name": path.name, "type": "file", "path": str(path)}])

    async def _read(self, request: Request) -> Response:
        sandbox, fault = self._sandbox(request, "read")
        if sandbox is None:
            return self._missing()
        if isinstance(fault, int):
            return JSONResponse({"code": fault, "message": "injected"}, fault)
        path = sandbox.path(request.query_params["path"])
        if not path.is_file():
            return JSONResponse({"code": 404, "message": "no such file"}, 404)
        return Response(path.read_bytes(), media_type="application/octet-stream")

    async def _start(self, request: Request) -> Response:
        sandbox, fault = self._sandbox(request, "run")
        if sandbox is None:
            return self._missing()
        if fault == "unreachable":
            return JSONResponse({"code": 502, "message": "The sandbox is running but port is not open"}, 502)
        body = await request.body()
        process = json.loads(body[5:])["process"]
        seconds = float(request.headers.get("connect-timeout-ms", 60_000)) / 1000
        stream = self._stream(sandbox, process, seconds, fault)
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
        if fault == "short":
            return  # the command goes on, nobody hears of it
        if fault == "cut":
            raise ConnectionAbortedError("injected")  # uvicorn drops the connection
        if fault == "gone":
            self.vanish(sandbox.id)
        try:
            out, err = await asyncio.wait_for(child.communicate(), seconds)
        except TimeoutError:
            yield envelope({"error": {"code": "deadline_exceeded", "message": "out of time"}}, END)
            return
        if sandbox.id not in self.sandboxes:
            yield envelope({"error": {"code": "unavailable", "message": "The sandbox was not found"}}, END)
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
