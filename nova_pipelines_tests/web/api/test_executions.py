"""Executions over HTTP: begun once, listed, polled, cancelled, taken up again; bad input is refused."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, update

from nova_pipelines.compiler.catalog import compile_version
from nova_pipelines.compiler.collect import collect
from nova_pipelines.compiler.journal import Journal, PutOff
from nova_pipelines.compiler.step import Work, run_step, walk
from nova_pipelines.database.nova import Execution, IdempotencyKey, WorkflowVersion
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import Conflict
from nova_pipelines_tests.web.api.conftest import Web

RUN = "00000000-0000-0000-0000-00000000000a"


def work_of(web: Web, workflow: dict[str, Any], run_id: str = RUN, run_key: str | None = None) -> tuple[Work, Any]:
    """What a run of the newest version does its work with."""
    nova = web.services.databases.nova
    with nova.read() as session:
        query = select(WorkflowVersion).where(WorkflowVersion.workflow_id == workflow["id"])
        version = session.scalars(query.order_by(WorkflowVersion.number.desc())).first()
    _, compiled = compile_version(
        version.definition, workflow_id=workflow["id"], version_id=version.id, version=version.number, source="test"
    )
    return Work(compiled.plan, workflow["id"], Journal(nova, run_id, run_key=run_key), web.services), compiled


def claim(web: Web, workflow: dict[str, Any], *executions: dict[str, Any]) -> Work:
    """A run holds these executions, all of which were asked for together."""
    numbers = [one["execution_id"] for one in executions]
    with web.services.databases.nova.session() as session:
        session.execute(update(Execution).where(Execution.id.in_(numbers)).values(run_id="wat-test"))
    work, compiled = work_of(web, workflow, run_key="wat-test")
    assert work.journal.claim(numbers, compiled.version_id) == numbers
    return work


def shown(web: Web, execution: dict[str, Any]) -> dict[str, Any]:
    return web.get(f"/executions/{execution['execution_id']}").json()


def test_an_execution_is_begun_listed_polled_and_shown(web: Web):
    workflow = web.workflow()
    web.customer()
    begun = web.execution(workflow, "idom", amount=21)
    assert begun == {
        "task_id": begun["task_id"],
        "status": "pending",
        "execution_id": 1,
        "workflow_id": workflow["id"],
        "workflow_name": "Double It",
    }
    listed = web.get("/executions")
    assert listed.headers["x-total-count"] == "1"
    assert {"id": 1, "client": "idom", "status": "pending", "version": 1}.items() <= listed.json()[0].items()
    assert shown(web, begun)["initial_context"] == {"amount": 21}
    task = web.get(f"/tasks/{begun['task_id']}").json()
    assert task == {
        "task_id": begun["task_id"],
        "status": "pending",
        "result": None,
        "error": None,
        "execution_id": 1,
    }
    assert web.get("/executions/1/chain").json() == {"execution_id": 1, "entries": [], "total": 0}
    walk(claim(web, workflow, begun), [1])
    task = web.get(f"/tasks/{begun['task_id']}").json()
    assert (task["status"], task["result"]["status"]) == ("completed", "completed")
    assert task["result"]["context"]["result"] == 42
    assert [row["node_id"] for row in web.get("/executions/1/chain").json()["entries"]][:2] == ["start", "work"]


def test_a_failure_is_a_failed_task(web: Web):
    """Old defect 1: a node's failure was reported as SUCCESS."""
    workflow = web.workflow()
    begun = web.execution(workflow, amount=1, bad=True)
    walk(claim(web, workflow, begun), [begun["execution_id"]])
    task = web.get(f"/tasks/{begun['task_id']}").json()
    assert (task["status"], task["result"]["status"]) == ("failed", "failed")
    assert "bad luck" in task["error"]


def test_filters_and_pages(web: Web):
    first, second = web.workflow("First"), web.workflow("Second")
    web.customer("acme")
    for number in range(5):
        web.execution(first, "acme", number=number)
    web.execution(second, number=9)

    def ids(**params: Any) -> tuple[list[int], str]:
        answer = web.get("/executions", params=params)
        assert answer.status_code == 200, answer.text
        return [row["id"] for row in answer.json()], answer.headers["x-total-count"]

    assert ids() == ([6, 5, 4, 3, 2, 1], "6")
    assert ids(limit=2) == ([6, 5], "6")
    assert ids(skip=4, limit=2) == ([2, 1], "6")
    assert ids(skip=100) == ([], "6")
    assert ids(workflow_id=second["id"]) == ([6], "1")
    assert ids(client="acme", limit=1) == ([5], "5")
    assert ids(client="nobody") == ([], "0")
    assert ids(status="completed") == ([], "0")
    assert ids(status="pending", workflow_id=first["id"], client="acme", skip=1, limit=1) == ([4], "5")
    assert ids(before=3) == ([2, 1], "6")
    assert ids(before=1) == ([], "6")
    assert ids(before=5, skip=1, limit=2) == ([3, 2], "6")
    assert ids(before=6, client="acme", limit=2) == ([5, 4], "5")


def test_links_lead_through_the_whole_list_though_rows_come_meanwhile(web: Web):
    workflow = web.workflow()
    web.customer("acme")
    for number in range(5):
        web.execution(workflow, "acme", number=number)
    seen: list[int] = []
    url = "/executions?client=acme&limit=2"
    while url:
        answer = web.get(url)
        seen += [row["id"] for row in answer.json()]
        assert len(seen) <= 5
        if not seen[2:]:
            web.execution(workflow, "acme", number=9)
        link = answer.links.get("next")
        url = str(answer.url.join(link["url"])) if link else ""
    assert seen == [5, 4, 3, 2, 1]
    # a page by `skip` leads on by number, too
    assert web.get("/executions?skip=1&limit=1").headers["link"] == '<?limit=1&before=5>; rel="next"'
    assert "link" not in web.get("/executions?limit=6&skip=1").headers


def test_a_link_quotes_what_it_is_given(web: Web):
    web.execution(web.workflow())
    link = web.get('/executions?limit=1&x=%3E%3B rel="prev"%0D%0AX-A: b').headers["link"]
    assert link == '<?limit=1&x=%3E%3B+rel%3D%22prev%22%0D%0AX-A%3A+b&before=1>; rel="next"'


@pytest.mark.parametrize(
    "params",
    [
        *({"skip": -1}, {"limit": 0}, {"limit": 501}, {"limit": "x"}, {"status": "done"}, {"workflow_id": 2**31}),
        *({"workflow_id": "1 OR 1=1"}, {"client": "a' OR '1'='1"}, {"client": "\x00"}, {"skip": 10**30}),
        *({"before": 0}, {"before": 2**31}, {"before": "1 OR 1=1"}),
    ],
    ids=str,
)
def test_wrong_filters_are_422(shared_web: Web, params: dict[str, Any]):
    answer = shared_web.get("/executions", params=params)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 422),
        ('{"initial_context": []}', 422),
        ('{"initial_context": {"a": NaN}}', 422),
        ('{"initial_context": {"a": 1, "a": 2}}', 422),
        ('{"initial_context": {"a": "\\u0000"}}', 422),
        ('{"initial_context": {"a": 1e400}}', 422),
        ('{"initial_context": ' + '{"a":' * 200 + "1" + "}" * 201, 422),
        ('{"client_slug": 7}', 422),
        ('{"client_slug": "nobody"}', 404),
        ('{"unknown": 1}', 422),
        ("x" * 11_000_000, 413),
    ],
    ids=range(12),
)
def test_wrong_bodies_begin_nothing(shared_web: Web, body: str, status: int):
    workflow = shared_web.workflow()
    before = shared_web.get("/executions").headers["x-total-count"]
    answer = shared_web.post(f"/workflows/{workflow['id']}/execute", content=body.encode())
    assert answer.status_code == status, answer.text
    assert shared_web.get("/executions").headers["x-total-count"] == before


def test_a_body_without_a_length_is_cut_off_too(shared_web: Web):
    def pieces():
        for _ in range(20):
            yield b"x" * 1_000_000

    assert shared_web.post("/workflows", content=pieces()).status_code == 413


@pytest.mark.parametrize("number", ["0", "-1", "999999", str(2**31), str(2**63), "1" + "0" * 30])
def test_numbers_that_there_are_not(shared_web: Web, number: str):
    for method, path in (("get", ""), ("get", "/chain"), ("get", "/events"), ("post", "/cancel"), ("post", "/retry")):
        assert getattr(shared_web, method)(f"/executions/{number}{path}").status_code == 404, path


def test_tasks_that_there_are_not(shared_web: Web):
    assert shared_web.get("/tasks/00000000-0000-0000-0000-000000000000").status_code == 404
    assert shared_web.get("/tasks/..%2f..%2fetc%2fpasswd").status_code == 404
    assert shared_web.get("/tasks/x").status_code == 422


# once


def test_a_key_begins_one_execution(web: Web):
    workflow = web.workflow()
    path, key = f"/workflows/{workflow['id']}/execute", {"Idempotency-Key": "order-17"}
    body = {"initial_context": {"amount": 1}}
    first = web.post(path, json=body, headers=key)
    again = web.post(path, json={**body}, headers=key)
    assert (first.status_code, again.status_code, again.json()) == (202, 202, first.json())
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    other = web.post(path, json={"initial_context": {"amount": 2}}, headers=key)
    assert other.status_code == 422
    assert "order-17" in other.json()["detail"]
    web.customer()
    somebody = web.limited("idom")
    theirs = somebody.post(path, json=body | {"client_slug": "idom"}, headers=key)  # the same key of somebody else
    assert theirs.status_code == 202
    assert theirs.json()["execution_id"] != first.json()["execution_id"]
    assert web.get("/executions").headers["x-total-count"] == "2"


def test_equal_requests_at_the_same_time_begin_one_execution(web: Web):
    workflow = web.workflow()
    path = f"/workflows/{workflow['id']}/execute"

    def ask(number: int) -> dict[str, Any]:
        key = {"Idempotency-Key": f"key-{number % 3}"}
        answer = web.post(path, json={"initial_context": {"n": number % 3}}, headers=key)
        assert answer.status_code == 202, answer.text
        return answer.json()

    with ThreadPoolExecutor(15) as pool:
        answers = list(pool.map(ask, range(30)))
    assert len({answer["execution_id"] for answer in answers}) == 3
    assert web.get("/executions").headers["x-total-count"] == "3"


def test_a_refused_request_uses_no_key_up(web: Web):
    workflow = web.workflow()
    path, key = f"/workflows/{workflow['id']}/execute", {"Idempotency-Key": "k"}
    assert web.post(path, json={"client_slug": "idom"}, headers=key).status_code == 404
    web.customer()
    assert web.post(path, json={"client_slug": "idom"}, headers=key).status_code == 202
    assert web.post(path, headers={"Idempotency-Key": "x" * 256}).status_code == 422


def test_old_keys_are_swept(web: Web):
    workflow = web.workflow()
    path = f"/workflows/{workflow['id']}/execute"
    web.post(path, headers={"Idempotency-Key": "old"})
    with web.services.databases.nova.session() as session:
        session.execute(update(IdempotencyKey).values(created_at=utc_now().replace(year=2020)))
    web.post(path, headers={"Idempotency-Key": "new"})
    with web.services.databases.nova.read() as session:
        assert session.scalars(select(IdempotencyKey.key)).all() == ["new"]


# ended


def test_what_waits_is_cancelled_and_no_run_takes_it(web: Web):
    workflow = web.workflow()
    begun, other = web.execution(workflow, amount=1), web.execution(workflow, amount=2)
    number = begun["execution_id"]
    with web.services.databases.nova.session() as session:
        session.execute(update(Execution).values(run_id="wat-both"))
    answer = web.post(f"/executions/{number}/cancel")
    assert (answer.status_code, answer.json()) == (202, {"execution_id": number, "status": "failed", "run": "none"})
    assert shown(web, begun)["error"] == "cancelled by open"
    assert web.post(f"/executions/{number}/cancel").json()["status"] == "failed"  # the same again
    # the run that was asked for comes, with both numbers
    work, compiled = work_of(web, workflow, run_key="wat-both")
    arguments = {"client_slug": None, "context": None, "max_batch": 50}
    held = collect(work, compiled, execution_ids=[number, other["execution_id"]], **arguments)
    assert held == [other["execution_id"]]
    assert collect(work, compiled, execution_ids=[number], **arguments) == []  # nothing to do, and no error
    assert shown(web, begun)["status"] == "failed"
    retried = web.post(f"/executions/{number}/retry")
    assert retried.status_code == 202, retried.text
    assert (shown(web, begun)["status"], shown(web, begun)["cancelled_by"]) == ("pending", None)


def test_what_is_worked_on_stops_before_its_next_node_and_others_go_on(web: Web):
    workflow = web.workflow()
    begun, other = web.execution(workflow, amount=1), web.execution(workflow, amount=2)
    numbers = [begun["execution_id"], other["execution_id"]]
    work = claim(web, workflow, begun, other)
    steps = {step.node.id: step for step in work.plan.steps}
    run_step(work, steps["start"], numbers, last_try=True)
    answer = web.post(f"/executions/{numbers[0]}/cancel")
    assert answer.json() == {"execution_id": numbers[0], "status": "running", "run": "stops"}
    result = run_step(work, steps["work"], numbers, last_try=True)
    assert [(one.execution_id, one.status) for one in result.failures] == [(numbers[0], "failed")]
    assert result.passed_on == 1
    entries = web.get(f"/executions/{numbers[0]}/chain").json()["entries"]
    assert [(row["node_id"], row["status"]) for row in entries] == [("start", "success"), ("work", "failed")]
    assert shown(web, begun)["error"] == "cancelled by open"
    # taken up again it goes on where it stopped
    assert web.post(f"/executions/{numbers[0]}/retry").status_code == 202
    with web.services.databases.nova.session() as session:
        session.execute(update(Execution).where(Execution.id == numbers[0]).values(run_id=None))
    again, compiled = work_of(web, workflow, run_id=RUN[:-1] + "b")
    again.journal.claim([numbers[0]], compiled.version_id)
    walk(again, [numbers[0]])
    entries = web.get(f"/executions/{numbers[0]}/chain").json()["entries"]
    assert [row["node_id"] for row in entries if row["status"] == "success"] == ["start", "work", "big", "small end"]


def test_what_is_cancelled_at_its_end_is_through(web: Web):
    workflow = web.workflow()
    begun = web.execution(workflow, amount=1)
    number = begun["execution_id"]
    work = claim(web, workflow, begun)
    for step in work.plan.steps[:3]:
        run_step(work, step, [number], last_try=True)
    web.post(f"/executions/{number}/cancel")
    end = next(step for step in work.plan.steps if step.node.id == "small end")
    run_step(work, end, [number], last_try=True)
    assert shown(web, begun)["status"] == "completed"


def test_what_is_put_off_after_it_was_cancelled_does_not_wait(web: Web):
    workflow = web.workflow()
    begun = web.execution(workflow, amount=1)
    work = claim(web, workflow, begun)
    web.post(f"/executions/{begun['execution_id']}/cancel")
    work.journal.put_off([PutOff(begun["execution_id"], utc_now(), "waits: a server is down")])
    assert (shown(web, begun)["status"], shown(web, begun)["error"]) == ("failed", "cancelled by open")


def test_what_has_ended_is_neither_cancelled_nor_retried(web: Web):
    workflow = web.workflow()
    begun = web.execution(workflow, amount=1)
    number = begun["execution_id"]
    assert web.post(f"/executions/{number}/retry").status_code == 409  # it waits already
    walk(claim(web, workflow, begun), [number])
    assert web.post(f"/executions/{number}/cancel").status_code == 409
    assert web.post(f"/executions/{number}/retry").status_code == 409


def test_cancelling_while_a_run_claims_leaves_one_of_two_states(web: Web):
    """Either the run has it, and stops; or it has ended, and the run has not got it."""
    workflow = web.workflow()
    for _ in range(10):
        begun = web.execution(workflow, amount=1)
        number = begun["execution_id"]
        with web.services.databases.nova.session() as session:
            session.execute(update(Execution).where(Execution.id == number).values(run_id="wat-race"))
        work, compiled = work_of(web, workflow, run_key="wat-race")
        with ThreadPoolExecutor(2) as pool:
            claiming = pool.submit(work.journal.claim, [number], compiled.version_id)
            cancelling = pool.submit(web.post, f"/executions/{number}/cancel")
            held, answer = claiming.result(), cancelling.result().json()
        assert (held, answer["status"]) in (([number], "running"), ([], "failed"))
        walk(work, held)
        chain = web.get(f"/executions/{number}/chain").json()["entries"]
        assert [row["status"] for row in chain] == (["failed"] if held else [])
        assert shown(web, begun)["status"] == "failed"


def test_a_stranger_of_two_runs_is_still_a_conflict(web: Web):
    workflow = web.workflow()
    begun = web.execution(workflow, amount=1)
    claim(web, workflow, begun)
    work, compiled = work_of(web, workflow, run_id=RUN[:-1] + "c")
    with pytest.raises(Conflict):
        collect(work, compiled, execution_ids=[begun["execution_id"]], client_slug=None, context=None, max_batch=50)


# waited for, and followed


def test_waiting_ends_with_the_execution_or_with_its_time(web: Web):
    workflow = web.workflow()
    short = web.post(f"/workflows/{workflow['id']}/execute?wait=0.5", json={})
    assert (short.status_code, short.json()["status"]) == (202, "pending")
    assert web.post(f"/workflows/{workflow['id']}/execute?wait=61", json={}).status_code == 422
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(web.post, f"/workflows/{workflow['id']}/execute?wait=60", json={})
        while len(found := web.get("/executions").json()) < 2:
            assert not waiting.done()
        web.post(f"/executions/{found[0]['id']}/cancel")
        assert waiting.result(30).json()["status"] == "failed"


def events(web: Web, number: int, **headers: str) -> list[tuple[str, str, Any]]:
    """The events of a stream until it ends: (event, id, data)."""
    found: list[tuple[str, str, Any]] = []
    with web.client.stream("GET", f"/executions/{number}/events", headers=headers) as stream:
        assert stream.status_code == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                found.append((fields["event"], fields.get("id", ""), json.loads(fields["data"])))
                fields = {}
    return found


def test_progress_is_told_as_it_comes_and_can_be_taken_up_again(web: Web):
    workflow = web.workflow()
    begun = web.execution(workflow, amount=21)
    number = begun["execution_id"]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(events, web, number)
        walk(claim(web, workflow, begun), [number])
        told = following.result(60)
    rows = [(id, data["node_id"]) for event, id, data in told if event == "chain"]
    assert rows == [("1", "start"), ("2", "work"), ("3", "big"), ("4", "small end")]
    assert told[-1] == ("end", "end", {"status": "completed", "error": None})
    later = events(web, number, **{"Last-Event-ID": "3"})
    assert [id for _, id, _ in later] == ["4", "end"]
    assert web.get(f"/executions/{number}/events", headers={"Last-Event-ID": "end"}).status_code == 204
    assert next(id for _, id, _ in events(web, number, **{"Last-Event-ID": "x"})) == "1"


def test_streams_are_bounded_and_their_places_come_back(web: Web, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nova_pipelines.web.following.MAX_EACH", 2)
    workflow = web.workflow()
    number = web.execution(workflow)["execution_id"]
    path = f"/executions/{number}/events"
    with web.client.stream("GET", path) as first, web.client.stream("GET", path) as second:
        pieces = first.iter_raw(), second.iter_raw()  # kept: an iterator that goes closes its connection
        assert [next(one) for one in pieces]
        refused = web.get(path)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    web.post(f"/executions/{number}/cancel")
    for _ in range(100):  # as soon as the server has seen that they are gone
        if (last := web.get(path)).status_code == 200:
            break
    assert last.status_code == 200
