"""From mail in the ledger to runs, beside the sensor and other watchers: each mail is started once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from nova_pipelines.cli.asking import ask_for_run
from nova_pipelines.compiler.dagster_calls import Asked
from nova_pipelines.compiler.feeds import Feed, Feeds, accounts_to_watch
from nova_pipelines.compiler.journal import Journal
from nova_pipelines.compiler.starting import Starter
from nova_pipelines.database.nova import Execution
from nova_pipelines.database.run_requests import WATCHED, Batch
from nova_pipelines.domain.errors import TransientError
from nova_pipelines.nodes.intake import scan_mailbox
from nova_pipelines.nodes.watch_plan import plan_routes
from nova_pipelines.nodes.watcher import Watcher
from nova_pipelines.nodes.watching import WatchPolicy
from nova_pipelines.orchestration.dispatch import repeat_requests, request_runs
from nova_pipelines.orchestration.loaded import Loaded
from nova_pipelines.orchestration.sensors import scan_all
from nova_pipelines_tests.fixtures.sockets import black_hole, closed_port, talking_server
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING, World
from nova_pipelines_tests.orchestration.test_dispatch import loaded


class Dagster:
    """What is asked of Dagster: every run is begun at once and claims its executions, as a run worker does."""

    def __init__(self, world: World, answer: Callable[[Batch], Asked] | None = None) -> None:
        self.world, self.answer = world, answer
        self.batches: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, feed: Feed, batch: Batch) -> Asked:
        self.batches.append((batch.key, batch.executions))
        if self.answer:
            return self.answer(batch)
        return Asked("started", f"run of {batch.key}")

    def begin(self, key: str, executions: tuple[int, ...]) -> list[int]:
        nova = self.world.services.databases.nova
        return Journal(nova, f"r{key[4:]}", run_key=key).claim(executions, 1)


def starter(world: World, dagster: Dagster, **limits: int) -> Starter:
    made = Starter(world.services, ask=dagster, **{"max_batch": 50, "max_waiting": 200, **limits})
    made.feeds = Feeds(world.services.databases.nova).read()
    return made


@pytest.fixture
def fed(world: World) -> World:
    """A world whose mailbox feeds the Invoice Processing workflow and was looked into before."""
    world.publish(INVOICE_PROCESSING)
    assert scan_mailbox(world.services, 1, "INBOX").stored == 0
    return world


def stored(world: World, count: int) -> None:
    for number in range(count):
        world.deliver(subject=f"Mail {number}")
    assert scan_mailbox(world.services, 1, "INBOX").stored == count


def keys(world: World) -> list[str | None]:
    return [row.run_id for row in world.executions()]


def test_the_feed_of_a_workflow_says_how_its_run_is_asked_for(fed: World):
    (feed,) = Feeds(fed.services.databases.nova).read()
    assert (feed.job_name, feed.start, feed.folder) == ("invoice_processing", "start", "INBOX")
    assert feed.serves("idom", "INBOX")
    assert not feed.serves("idom", "Archive")
    assert not replace(feed, client_slugs=("acme",)).serves("idom", "INBOX")


def test_mails_become_executions_that_carry_the_key_before_dagster_is_asked(fed: World):
    stored(fed, 3)
    seen: list[Any] = []

    def answer(batch: Batch) -> Asked:
        seen.append([(row.id, row.run_id, row.status) for row in fed.executions()])
        return Asked("started", "run")

    dagster = Dagster(fed, answer)
    assert starter(fed, dagster).start_runs(1, "idom", "INBOX") is False
    ((key, executions),) = dagster.batches
    assert executions == (1, 2, 3)
    assert key.startswith(WATCHED)
    assert seen == [[(number, key, "pending") for number in (1, 2, 3)]]


def test_what_dagster_refuses_and_what_cannot_be_asked_is_left_to_the_sensor(fed: World):
    stored(fed, 2)
    nova, workflows = fed.services.databases.nova, loaded(fed.services.databases.nova)
    starter(fed, Dagster(fed, lambda _: Asked("refused", "PipelineNotFoundError"))).start_runs(1, "idom", "INBOX")
    assert keys(fed) == [None, None]
    (request,) = request_runs(nova, workflows, max_batch=50)
    assert request.run_config["ops"]["start"]["config"]["executions"] == [1, 2]


def test_when_nobody_knows_whether_there_is_a_run_the_key_stays(fed: World):
    stored(fed, 2)
    nova, workflows = fed.services.databases.nova, loaded(fed.services.databases.nova)
    dagster = Dagster(fed, lambda _: Asked("unknown", "no answer"))
    starter(fed, dagster, max_batch=1).start_runs(1, "idom", "INBOX")
    # the second batch was not even reserved: whoever asks next may take it
    assert keys(fed) == [dagster.batches[0][0], None]
    assert repeat_requests(nova, workflows, lambda _: False) == []
    assert [
        r.run_config["ops"]["start"]["config"]["executions"] for r in request_runs(nova, workflows, max_batch=9)
    ] == [[2]]


def test_a_full_mailbox_fills_no_queue(fed: World):
    stored(fed, 12)
    dagster = Dagster(fed)
    made = starter(fed, dagster, max_batch=2, max_waiting=6)
    made.start_runs(1, "idom", "INBOX")
    assert [executions for _, executions in dagster.batches] == [(1, 2), (3, 4), (5, 6)]
    made.start_runs(1, "idom", "INBOX")
    assert len(dagster.batches) == 3, "nothing has begun yet"
    dagster.begin(*dagster.batches[0])
    made.start_runs(1, "idom", "INBOX")
    assert [executions for _, executions in dagster.batches[3:]] == [(7, 8)]


def test_an_error_on_the_way_ends_nothing(fed: World, monkeypatch: pytest.MonkeyPatch):
    stored(fed, 1)
    calls = []

    def answer(batch: Batch) -> Asked:
        calls.append(batch)
        if len(calls) < 3:
            raise (TransientError("the database is away"), RuntimeError("a bug"))[len(calls) - 1]
        return Asked("started", "run")

    made = starter(fed, Dagster(fed, answer))
    made.start()
    for count in (1, 2, 3):
        made.news(1, "idom", "INBOX")
        wait_for(lambda count=count: len(calls) >= count)
        with fed.services.databases.nova.session() as session:
            session.get_one(Execution, 1).run_id = None
    made.stop()
    made.join(10)
    assert not made.is_alive()
    assert made.started == 1


def wait_for(condition: Callable[[], Any], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_watchers_and_the_sensor_start_each_mail_once(fed: World):
    """All three see every mail, in their own threads and loops, and ask for runs; each execution is begun once."""
    nova, executions = fed.services.databases.nova, 12
    workflows: dict[str, Loaded] = loaded(nova)
    dagsters = [Dagster(fed), Dagster(fed)]
    with running(fed, dagsters) as watchers:
        by_sensor: list[tuple[str, tuple[int, ...]]] = []
        for number in range(executions):
            fed.deliver(subject=f"Mail {number}")
            scan_all(fed.services, workflows, None)
            for request in [
                *repeat_requests(nova, workflows, lambda _: False),
                *request_runs(nova, workflows, max_batch=2),
            ]:
                by_sensor.append(
                    (str(request.run_key), tuple(request.run_config["ops"]["start"]["config"]["executions"]))
                )
        wait_for(lambda: len(fed.executions()) == executions and None not in keys(fed))
        assert all(watch.state != "stopped" for watcher in watchers for watch in watcher.watches.values())
    asked = dict(by_sensor) | dict(dagsters[0].batches) | dict(dagsters[1].batches)
    counted = Counter(number for numbers in asked.values() for number in numbers)
    assert counted == Counter(range(1, executions + 1))
    begun = [number for key, numbers in asked.items() for number in dagsters[0].begin(key, numbers)]
    assert sorted(begun) == list(range(1, executions + 1))
    assert len({message.uid for message in fed.messages()}) == len(fed.messages()) == executions


class running:  # noqa: N801 - reads as a statement
    """Watchers with their starters, until the block ends."""

    def __init__(self, world: World, dagsters: list[Dagster]) -> None:
        self.world, self.starters = world, [starter(world, dagster) for dagster in dagsters]

    def __enter__(self) -> list[Watcher]:
        nova = self.world.services.databases.nova
        routes = plan_routes(accounts_to_watch(nova, self.starters[0].feeds), connections=5)
        self.watchers = []
        for made in self.starters:
            made.start()
            news = lambda route, folder, made=made: made.news(route.client_id, route.slug, folder)  # noqa: E731
            self.watchers.append(Watcher(self.world.services, WatchPolicy(), news))
            self.watchers[-1].follow(routes)
        wait_for(lambda: all(w.state == "idle" for watcher in self.watchers for w in watcher.watches.values()))
        return self.watchers

    def __exit__(self, *_: object) -> None:
        for watcher in self.watchers:
            assert watcher.stop(5) == 0
        for made in self.starters:
            made.stop()
            made.join(10)


# ---------------------------------------------------------------- asking over HTTP


@pytest.fixture
def question(fed: World) -> Iterator[tuple[Feed, Batch]]:
    (feed,) = Feeds(fed.services.databases.nova).read()
    return feed, Batch("wat-1", 1, (1,), "idom")


def http(body: bytes, status: str = "200 OK") -> Callable[[Any], None]:
    def conversation(client: Any) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(65536)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + body)

    return conversation


@pytest.mark.parametrize(
    ("body", "status", "outcome", "text"),
    [
        (b'{"data":{"launchRun":{"__typename":"LaunchRunSuccess","run":{"runId":"7"}}}}', "200 OK", "started", "7"),
        (
            b'{"data":{"launchRun":{"__typename":"PipelineNotFoundError","message":"gone"}}}',
            "200 OK",
            "refused",
            "gone",
        ),
        (b'{"data":{"launchRun":{"__typename":"PythonError","message":"grpc"}}}', "200 OK", "unknown", "grpc"),
        (b'{"data":null,"errors":[]}', "200 OK", "unknown", "no answer of a Dagster"),
        (b"<html>", "200 OK", "unknown", "no answer of a Dagster"),
        (b"[]", "200 OK", "unknown", "no answer of a Dagster"),
        (b"{}", "500 Oops", "unknown", "HTTP status 500"),
        (b"{}", "401 Unauthorized", "refused", "HTTP status 401"),
        (b"{}", "nonsense", "unknown", ""),
    ],
)
def test_every_answer_is_one_of_three(question: Any, body: bytes, status: str, outcome: str, text: str):
    with talking_server(http(body, status)) as port:
        asked = ask_for_run(f"http://127.0.0.1:{port}", *question)
    assert asked.outcome == outcome
    assert text in asked.text


def test_a_service_that_is_not_there_was_certainly_not_asked(question: Any):
    assert ask_for_run(None, *question).outcome == "refused"
    with closed_port() as port:
        assert ask_for_run(f"http://127.0.0.1:{port}", *question).outcome == "refused"
    with black_hole() as port:
        began = time.monotonic()
        assert ask_for_run(f"http://127.0.0.1:{port}", *question, seconds=0.3).outcome == "unknown"
        assert time.monotonic() - began < 5
