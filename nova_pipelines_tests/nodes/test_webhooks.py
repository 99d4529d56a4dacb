"""Webhooks: one delivery for each end of an execution, signed, tried again under one name, to public places only."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, text, update

from nova_pipelines.adapters.targets import check_target, connect_public, is_public
from nova_pipelines.adapters.webhook import sign
from nova_pipelines.database.clients import add_client
from nova_pipelines.database.executions import close_unfinished, release
from nova_pipelines.database.nova import Client, Execution, WebhookDelivery
from nova_pipelines.database.session import Databases
from nova_pipelines.database.webhooks import EVENTS, LEASE, add_webhook, claim_deliveries, release_failed, troubled
from nova_pipelines.database.workflows import publish
from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.nodes.assignment import new_execution
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.webhooks import Courier
from nova_pipelines.nodes.wiring import build_services
from nova_pipelines.settings import Settings
from nova_pipelines_tests.fixtures.webhooks import HookServer

KEY = "k3y-of-the-signature-0123"
DEFINITION: dict[str, Any] = {"name": "Word", "nodes": [], "edges": []}


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def later(self, **span: float) -> None:
        self.now += timedelta(**span)


class House:
    """A nova with two clients and a workflow, on one of the two databases."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings.model_copy(update={"nova_webhook_private": True})
        self.services: Services = build_services(self.settings)
        self.nova = self.services.databases.nova
        self.clock = Clock()
        with self.nova.session() as session:
            self.clients = [add_client(session, name=slug, slug=slug).id for slug in ("idom", "other")]
            version = publish(
                session,
                name="Word",
                job_name="word",
                description=None,
                definition=DEFINITION,
                source="{}",
                source_format="json",
            )
            self.workflow = version.workflow_id, version.id

    def webhook(self, url: str, *, client: int | None = None, events: tuple[str, ...] = EVENTS) -> int:
        with self.nova.session() as session:
            owner = session.get(Client, client) if client else None
            box = self.services.box()
            return add_webhook(
                session, box, url=url, target="here", key=KEY, client=owner, events=events, by="a test"
            ).id

    def execution(self, status: str = "running", *, client: int | None = None) -> int:
        with self.nova.session() as session:
            row = new_execution(*self.workflow, client, {})
            row.status, row.run_id = status, "the-run"
            session.add(row)
            session.flush()
            return row.id

    def end(self, number: int, status: str = "completed", error: str | None = None) -> None:
        with self.nova.session() as session:
            session.execute(update(Execution).where(Execution.id == number).values(status=status, error=error))

    def deliveries(self) -> list[WebhookDelivery]:
        with self.nova.read() as session:
            return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.id)))

    def courier(self, **changes: Any) -> Courier:
        return Courier(self.services, self.settings.model_copy(update=changes), now=self.clock)


@pytest.fixture
def house(database_settings: Settings, databases: Databases):
    made = House(database_settings)
    # the database's own clock stands in the rows: ours is never behind it
    made.clock.later(seconds=5)
    yield made
    made.services.close()
    made.services.databases.close()


def test_the_end_and_its_delivery_are_one_transaction(house: House):
    house.webhook("https://example.com/hook")
    number = house.execution()
    with house.nova.session() as session:
        session.execute(update(Execution).values(status="completed"))
        session.rollback()  # as where the process dies here
    assert house.deliveries() == []
    house.end(number)
    house.end(number)  # the same status once more is no change
    (one,) = house.deliveries()
    assert (one.execution_id, one.event, one.number, one.status) == (number, "completed", 1, "pending")
    assert abs(one.created_at - datetime.now(UTC)) < timedelta(seconds=30)


def test_each_end_is_told_to_those_that_asked_for_it_once(house: House):
    everybody = house.webhook("https://example.com/all")
    of_idom = house.webhook("https://example.com/idom", client=house.clients[0])
    failures = house.webhook("https://example.com/failures", events=("failed",))
    idom, other, nobody = (house.execution(client=client) for client in (*house.clients, None))
    house.end(idom)
    house.end(other, "failed", "no such invoice")
    house.end(nobody, "needs_review")
    told = sorted((row.webhook_id, row.execution_id, row.event) for row in house.deliveries())
    assert told == sorted(
        [
            (everybody, idom, "completed"),
            (everybody, other, "failed"),
            (everybody, nobody, "needs_review"),
            (of_idom, idom, "completed"),
            (failures, other, "failed"),
        ]
    )


def test_a_retry_that_ends_again_is_told_again_whoever_ends_it(house: House):
    house.webhook("https://example.com/hook")
    number = house.execution()
    with house.nova.session() as session:
        close_unfinished(session, ["the-run"], "the run ended")
    with house.nova.session() as session:
        assert release(session, [number]).released == [number]
    house.end(number, "running")
    house.end(number, "completed")
    born_so = house.execution("needs_review")
    assert [(row.execution_id, row.event, row.number) for row in house.deliveries()] == [
        (number, "failed", 1),
        (number, "completed", 2),
        (born_so, "needs_review", 1),
    ]
    assert house.deliveries()[0].error == "the run ended"


def test_it_is_posted_signed_and_once(house: House, hooks: HookServer):
    house.webhook(hooks.url)
    number = house.execution(client=house.clients[0])
    house.end(number, "failed", "no «total» was found")
    assert house.courier().round().sent == 1
    assert house.courier().round().sent == 0
    (call,) = hooks.calls
    moment = int(house.clock.now.timestamp())
    assert call.headers["x-nova-signature"] == sign(KEY, moment, call.body)
    assert call.headers["x-nova-delivery"] == call.json["id"] == f"wh-1-{number}-1"
    assert call.headers["x-nova-event"] == call.json["event"] == "execution.failed"
    execution = call.json["execution"]
    assert (execution["id"], execution["status"], execution["error"]) == (number, "failed", "no «total» was found")
    assert (execution["workflow_name"], execution["client_slug"]) == ("Word", "idom")
    (row,) = house.deliveries()
    assert (row.status, row.attempts, row.last_error) == ("sent", 1, None)


def test_a_failing_receiver_is_tried_again_under_the_same_name_and_then_given_up(house: House, hooks: HookServer):
    house.webhook(hooks.url)
    numbers = [house.execution() for _ in range(3)]
    for number in numbers:
        house.end(number)
    hooks.status = 503
    report = house.courier().round()
    assert (report.sent, len(report.errors)) == (0, 1)
    assert "t0ken-of-the-url" not in report.errors[0]
    assert len(hooks.calls) == 1, "the others wait with the first one"
    assert house.courier().round().sent == 0, "not before its time"
    house.clock.later(seconds=12)
    hooks.status = 204
    assert house.courier().round().sent == 3
    names = [call.headers["x-nova-delivery"] for call in hooks.calls]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert hooks.calls[0].body == hooks.calls[1].body

    hooks.status = 500
    last = house.execution()
    house.end(last)
    house.courier().round()
    house.clock.later(hours=80)
    house.courier().round()
    row = house.deliveries()[-1]
    assert (row.status, row.attempts) == ("failed", 2)
    with house.nova.read() as session:
        ((number, target, waiting, lost, error),) = troubled(session)
    assert (target, waiting, lost) == ("here", 0, 1)
    assert error is not None
    with house.nova.session() as session:
        assert release_failed(session, number) == 1
    hooks.status = 200
    assert house.courier().round().sent == 1


def test_what_died_while_it_was_sent_is_sent_again_under_the_same_name(house: House, hooks: HookServer):
    house.webhook(hooks.url)
    house.end(house.execution())
    with house.nova.session() as session:  # a process that dies after the answer and before the commit
        (told,) = claim_deliveries(session, 1, now=house.clock.now, limit=5)
        name = told.name
    assert house.courier().round().sent == 0, "somebody has it"
    house.clock.later(seconds=LEASE.total_seconds() + 1)
    assert house.courier().round().sent == 1
    assert hooks.calls[0].headers["x-nova-delivery"] == name


def test_two_couriers_at_once_send_each_delivery_once(house: House, hooks: HookServer):
    house.webhook(hooks.url)
    for _ in range(30):
        house.end(house.execution())
    other = build_services(house.settings)
    couriers = [house.courier(), Courier(other, house.settings, now=house.clock)]

    def work(courier: Courier) -> None:
        while courier.round().sent:
            pass

    threads = [threading.Thread(target=work, args=(courier,)) for courier in couriers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    other.close()
    other.databases.close()
    while house.courier().round().sent:
        pass
    names = [call.headers["x-nova-delivery"] for call in hooks.calls]
    assert len(names) == len(set(names)) == 30


def test_a_private_address_is_not_called_unless_that_is_set(house: House, hooks: HookServer):
    house.webhook(hooks.url)
    house.webhook(hooks.url.replace("http://127.0.0.1", "https://localhost"))  # a name that leads to us
    house.end(house.execution())
    report = house.courier(nova_webhook_private=False).round()
    assert report.sent == 0
    assert hooks.calls == []
    assert ["https only" in error or "no public address" in error for error in report.errors] == [True, True]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://user:secret@example.com/",
        "https://example.com:0/",
        "https://example.com/a b",
        "https:///x",
        "https://[::1",
        "https://example.com/\r\nX: y",
    ],
)
def test_addresses_that_are_refused(url: str):
    with pytest.raises(PermanentError) as refused:
        check_target(url, private=False)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("0.0.0.0", False),  # noqa: S104 - looked at only
        ("100.64.0.1", False),
        ("192.168.1.1", False),
        ("224.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool):
    assert is_public(address) is public


def test_a_public_address_is_shown_without_its_path():
    assert check_target("https://example.com:8443/hook?token=x", private=False) == "https://example.com:8443"
    with pytest.raises(PermanentError):
        connect_public(("localhost", 9))


def test_the_triggers_are_there_after_all_migrations(house: House):
    """A later migration that rebuilds `executions` on SQLite drops its triggers: it must make them again."""
    query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    if house.nova.engine.dialect.name == "postgresql":
        query = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    with house.nova.read() as session:
        names = set(session.scalars(text(query)))
    assert {"executions_tell_insert", "executions_tell_update"} <= names
