"""The web application in this process over a small real world: databases, mailbox, documents, sandbox, Dagster jobs.

Only two things are not as they are served: who asks stands in a header, since logging in is another part's matter; and
a run that is asked for is run at once, here, by Dagster in process.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.requests import HTTPConnection

from nova_pipelines.compiler.dagster_calls import Asked
from nova_pipelines.compiler.job import Compiled
from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.clients import add_client
from nova_pipelines.database.run_requests import Batch
from nova_pipelines.domain.approval_links import PURPOSE, Answer, Link, sign
from nova_pipelines.web.access import Principal, Refusal, Role
from nova_pipelines.web.app import create_app
from nova_pipelines.web.context import WebContext
from nova_pipelines_tests.fixtures.dovecot import DovecotServer
from nova_pipelines_tests.fixtures.smtp_sink import SmtpSink
from nova_pipelines_tests.fixtures.world import ROOT, World, invoice_pdf, make_world
from nova_pipelines_tests.web.stand_in import StandIn

with warnings.catch_warnings():
    # Starlette would have its successor, which is not in the registries that we use; httpx serves it as well
    warnings.filterwarnings("ignore", message="Using `httpx`")
    from starlette.testclient import TestClient

APPROVAL_WORKFLOW = ROOT / "workflows" / "invoice_approval.yaml"
WHO = "x-test-principal"


class RunsHere(StandIn):
    """What is launched runs in this process."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.jobs: dict[str, Compiled] = {}
        self.launched: list[Batch] = []
        self.outcome = "started"

    def launch(self, job_name: str, start: str, batch: Batch) -> Asked:
        self.launched.append(batch)
        if self.outcome != "started":
            return Asked(self.outcome, "Dagster said no")  # type: ignore[arg-type]
        compiled = self.jobs[job_name]
        assert compiled.plan.steps[0].name == start
        tags = {"dagster/run_key": batch.key}
        assert self.world.run(compiled, executions=list(batch.executions), tags=tags).success
        return Asked("started", "here")


def who_is_in_the_header(connection: HTTPConnection) -> Principal | Refusal:
    """In place of keys and sessions: the principal of a test, as JSON."""
    given = connection.headers.get(WHO)
    if given is None:
        return Refusal()
    fields = json.loads(given)
    clients = fields.pop("clients", None)
    return Principal(kind="session", clients=None if clients is None else frozenset(clients), **fields)


@dataclass
class Site:
    world: World
    dagster: RunsHere
    client: TestClient

    def as_(self, role: Role | None, *clients: str, language: str = "en", name: str = "Ana") -> TestClient:
        """A browser of somebody with this role (None: of nobody), who sees only these clients (none: all)."""
        client = TestClient(self.client.app, follow_redirects=False, raise_server_exceptions=False)
        client.headers["accept-language"] = language
        client.headers["accept"] = "text/html"
        client.headers["sec-fetch-site"] = "same-origin"  # as browsers send it with a form of our own page
        if role is not None:
            client.headers[WHO] = json.dumps({"name": name, "role": role, "clients": list(clients) or None})
        return client

    def publish(self, source: Any) -> Compiled:
        compiled = self.world.publish(source)
        self.dagster.jobs[compiled.plan.job_name] = compiled
        return compiled

    def asked(self, total: str = "15000.59", *, number: str, **mail: Any) -> Approval:
        """An invoice by mail whose approval waits."""
        compiled = self.publish(APPROVAL_WORKFLOW)
        self.world.deliver(invoice_pdf(total, number=number), Message_ID=f"<{number}@proveedores.example>", **mail)
        assert self.world.run(compiled).success
        return self.approvals()[-1]

    def approvals(self) -> list[Approval]:
        with self.world.services.databases.nova.read() as session:
            rows = list(session.scalars(select(Approval).order_by(Approval.id)))
            session.expunge_all()
            return rows

    def execution(self, number: int) -> Any:
        return next(row for row in self.world.executions() if row.id == number)

    def token(self, approval: Approval, answer: Answer = "approved", **changes: Any) -> str:
        fields = {
            "approval_id": approval.id,
            "answer": answer,
            "expires_at": approval.deadline_at,
            "nonce": approval.link_nonce,
            "address": "luis@idom.example",
        }
        return sign(self.world.services.box().derived(PURPOSE)[0], Link(**fields | changes))


def open_site(world: World) -> Site:
    dagster = RunsHere(world)
    context = WebContext(world.settings, world.services, dagster)  # type: ignore[arg-type]
    app = create_app(context, authenticate=who_is_in_the_header)
    return Site(world, dagster, TestClient(app))


def text_of(html: str) -> str:
    """What a reader sees, roughly."""
    return " ".join(re.sub(r"<[^>]*>", " ", html).split())


@pytest.fixture(scope="module")
def site(dovecot: DovecotServer, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for all tests of a module: they tell what they made by its numbers."""
    with pytest.MonkeyPatch.context() as environment, SmtpSink(tls="none", login=False) as sink:
        home = tmp_path_factory.mktemp("site")
        with make_world(dovecot.new_user(), sink, sqlite_template, home, environment) as world:
            with world.services.databases.nova.session() as session:
                add_client(session, name="Other", slug="other")
            yield open_site(world)
