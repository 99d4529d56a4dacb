"""The wire server's part for templates: a build is asked for, its files are uploaded, it is started and becomes ready.
Of the steps only COPY has an effect: sandboxes of the template hold the files. Nothing is installed."""

from __future__ import annotations

import io
import tarfile
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Route = tuple[str, str, Callable]


@dataclass
class Built:
    """A template. `files`: the uploaded tar of each COPY, by its hash; `steps` once its build was started."""

    name: str
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:20])
    build: str = field(default_factory=lambda: str(uuid.uuid4()))
    request: dict = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    steps: list[dict] = field(default_factory=list)
    #: what the build ends with
    fails: str | None = None


class Templates:
    """`fail_next`: the message with which the next build fails."""

    def __init__(self, url: str, refused: Callable[[Request], Response | None]) -> None:
        self.built: dict[str, Built] = {}
        self.fail_next: str | None = None
        self._url, self._refused = url, refused

    def routes(self) -> list[Route]:
        return [
            ("POST", "/v3/templates", self._request),
            ("GET", "/templates/{id}/files/{hash}", self._link),
            ("PUT", "/upload/{id}/{hash}", self._upload),
            ("POST", "/v2/templates/{id}/builds/{build}", self._begin),
            ("GET", "/templates/{id}/builds/{build}/status", self._status),
        ]

    def furnish(self, template: str, path: Callable[[str], Path]) -> None:
        """Puts the files of a template into a new sandbox."""
        built = next((one for one in self.built.values() if template in (one.id, one.name)), None)
        for step in built.steps if built else []:
            if step["type"] == "COPY":
                place = path(step["args"][1])
                place.parent.mkdir(parents=True, exist_ok=True)
                with tarfile.open(fileobj=io.BytesIO(built.files[step["filesHash"]])) as archive:
                    (member,) = [one for one in archive.getmembers() if one.isfile()]
                    stream = archive.extractfile(member)
                    assert stream is not None
                    place.write_bytes(stream.read())

    async def _request(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        built = Built(body["name"], request=body, fails=self.fail_next)
        self.fail_next = None
        self.built[built.id] = built
        answer = {"templateID": built.id, "buildID": built.build, "public": False, "names": [built.name], "tags": []}
        return JSONResponse(answer | {"aliases": [built.name]}, 202)

    def _of(self, request: Request) -> Built:
        return self.built[request.path_params["id"]]

    async def _link(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        built, digest = self._of(request), request.path_params["hash"]
        url = f"{self._url}/upload/{built.id}/{digest}"
        return JSONResponse({"present": digest in built.files, "url": url}, 201)

    async def _upload(self, request: Request) -> Response:
        self._of(request).files[request.path_params["hash"]] = await request.body()
        return Response(status_code=200)

    async def _begin(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        body = await request.json()
        self._of(request).steps = body["steps"]
        self._of(request).request |= body
        return Response(status_code=202)

    async def _status(self, request: Request) -> Response:
        if refused := self._refused(request):
            return refused
        built = self._of(request)
        log = {"timestamp": "2026-08-01T00:00:00Z", "level": "info", "message": f"{len(built.steps)} steps"}
        first = int(request.query_params.get("logsOffset", 0)) == 0
        answer = {"templateID": built.id, "buildID": built.build, "logs": [], "logEntries": [log] if first else []}
        if built.fails:
            return JSONResponse(answer | {"status": "error", "reason": {"message": built.fails}})
        return JSONResponse(answer | {"status": "ready"})
