"""`/workflows` and their versions: stored, shown, compared, restored, archived; a broken one changes nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from nova_pipelines_tests.cli.conftest import arithmetic
from nova_pipelines_tests.fixtures.world import INVOICE_PROCESSING
from nova_pipelines_tests.web.api.conftest import Web


def test_a_definition_is_stored_listed_and_shown(web: Web):
    posted = web.post("/workflows", content=arithmetic())
    assert posted.status_code == 201
    shown = posted.json()
    assert posted.headers["location"] == f"/workflows/{shown['id']}"
    assert (shown["name"], shown["job_name"], shown["version"]) == ("Double It", "double_it", 1)
    assert [node["id"] for node in shown["graph_definition"]["nodes"]] == ["start", "work", "big", "end", "small end"]
    listed = web.get("/workflows")
    assert listed.headers["x-total-count"] == "1"
    assert [(row["id"], row["name"]) for row in listed.json()] == [(shown["id"], "Double It")]
    assert web.get(f"/workflows/{shown['id']}").json() == shown
    assert web.post("/workflows", content=arithmetic()).status_code == 200  # the same again is no new version
    assert web.get(f"/workflows/{shown['id']}/versions").json()[0]["number"] == 1


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (arithmetic("A"), "application/x-www-form-urlencoded"),  # what curl -d says
        (arithmetic("A"), "application/json"),
        (INVOICE_PROCESSING.read_text(), "application/yaml"),
        (INVOICE_PROCESSING.read_text(), "text/plain"),
    ],
    ids=["form", "json", "yaml", "plain"],
)
def test_json_and_yaml_with_any_content_type(shared_web: Web, text: str, kind: str):
    answer = shared_web.post("/workflows", content=text.encode(), headers={"Content-Type": kind})
    assert answer.status_code in (200, 201), answer.text


def test_the_graph_may_stand_under_graph_definition(shared_web: Web):
    whole = json.loads(arithmetic("Under"))
    under = {"name": "Under", "graph_definition": {"nodes": whole["nodes"], "edges": whole["edges"]}}
    first = shared_web.post("/workflows", json=whole)
    assert shared_web.post("/workflows", json=under).status_code == 200  # means the same
    assert first.status_code == 201


def test_a_broken_definition_is_refused_with_its_places_and_changes_nothing(web: Web):
    before = web.workflow()
    broken = json.loads(arithmetic())
    broken["nodes"][1]["timeout"] = -1
    broken["edges"][0]["to"] = "nowhere"
    for answer in (web.post("/workflows", json=broken), web.put(f"/workflows/{before['id']}", json=broken)):
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert {problem["path"] for problem in answer.json()["problems"]} >= {"nodes[1].timeout", "edges[0].to"}
    assert web.get(f"/workflows/{before['id']}").json() == before
    assert web.get("/workflows").headers["x-total-count"] == "1"


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", '{"name": "A"}', '{"name": "A", "name": "B"}', "[" * 100_000, "a: &a [*a]", "\x00"),
        *('{"name": NaN, "nodes": []}', '{"name": "\\ud800"}', '{"name": "A", "nodes": 1e999}'),
        "!!python/object:os.system x",
    ],
    ids=range(13),
)
def test_hostile_texts_are_422(shared_web: Web, text: str):
    before = shared_web.get("/workflows").headers["x-total-count"]
    answer = shared_web.post("/workflows", content=text.encode())
    assert answer.status_code == 422, answer.text
    assert shared_web.get("/workflows").headers["x-total-count"] == before


def test_bytes_that_are_no_text_are_400(shared_web: Web):
    assert shared_web.post("/workflows", content=b"\xff\xfe\x00").status_code == 400


def test_put_stores_the_next_version_under_the_same_name(web: Web):
    first = web.workflow()
    second = web.put(f"/workflows/{first['id']}", content=arithmetic(factor=3))
    assert (second.status_code, second.json()["version"]) == (200, 2)
    other = web.put(f"/workflows/{first['id']}", content=arithmetic("Another"))
    assert (other.status_code, other.json()["problems"][0]["path"]) == (422, "name")
    assert web.put("/workflows/999", content=arithmetic()).status_code == 404


def test_versions_are_compared_and_restored(web: Web):
    first = web.workflow()
    web.workflow(factor=3)
    base = f"/workflows/{first['id']}"
    assert [row["number"] for row in web.get(f"{base}/versions").json()] == [2, 1]
    shown = web.get(f"{base}/versions/1").json()
    assert shown["source"] == arithmetic()
    compared = web.get(f"{base}/compare").json()
    assert compared["equal"] is False
    changed = [line for line in compared["diff"].splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert [line[0] for line in changed] == ["-", "+"]
    assert "* 2" in changed[0]
    assert "* 3" in changed[1]
    assert web.get(f"{base}/compare", params={"from": 2, "to": 2}).json()["equal"] is True
    restored = web.post(f"{base}/versions/1/restore")
    assert (restored.status_code, restored.json()["version"]) == (200, 3)
    assert web.get(f"{base}/compare", params={"from": 1, "to": 3}).json()["equal"] is True
    assert web.get(f"{base}/versions/9").status_code == 404
    assert web.post(f"{base}/versions/9/restore").status_code == 404


def test_delete_archives_also_with_executions_and_posting_again_revives(web: Web):
    """Old defect 9: deleting a workflow that had executions answered 500."""
    workflow = web.workflow()
    execution = web.execution(workflow, amount=1)
    base = f"/workflows/{workflow['id']}"
    assert web.delete(base).status_code == 204
    assert [web.get(base).status_code, web.delete(base).status_code] == [404, 404]
    assert web.put(base, content=arithmetic()).status_code == 404
    assert web.post(f"{base}/execute", json={}).status_code == 404
    assert web.get("/workflows").json() == []
    assert [row["is_active"] for row in web.get("/workflows", params={"archived": True}).json()] == [False]
    assert web.get(f"{base}/versions/1").json()["number"] == 1
    assert web.get(f"/executions/{execution['execution_id']}").json()["workflow"] == "Double It"
    again = web.post("/workflows", content=arithmetic())
    assert (again.status_code, again.json()["id"], again.json()["version"]) == (201, workflow["id"], 1)
    assert web.delete(base).status_code == 204
    assert web.post(f"{base}/versions/1/restore").json()["is_active"] is True


def test_a_hundred_posts_at_the_same_time_leave_a_consistent_list(web: Web):
    """Fifty new workflows, and fifty versions of one."""
    texts = [arithmetic(f"Workflow {number}") for number in range(50)]
    texts += [arithmetic("Same", factor) for factor in range(50)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda text: web.post("/workflows", content=text), texts))
    assert [answer.status_code for answer in answers] == [201] * 100
    listed = web.get("/workflows", params={"limit": 500})
    assert listed.headers["x-total-count"] == "51"
    names = [row["name"] for row in listed.json()]
    assert sorted(names) == sorted([*(f"Workflow {number}" for number in range(50)), "Same"])
    same = next(row for row in listed.json() if row["name"] == "Same")
    numbers = [row["number"] for row in web.get(f"/workflows/{same['id']}/versions").json()]
    assert numbers == list(range(50, 0, -1))
    assert sorted(answer.json()["version"] for answer in answers[50:]) == sorted(numbers)


def test_names_that_make_the_same_job_are_a_conflict(shared_web: Web):
    assert shared_web.post("/workflows", content=arithmetic("Same Job")).status_code == 201
    assert shared_web.post("/workflows", content=arithmetic("same-job")).status_code == 409


@pytest.mark.parametrize("number", [0, -1, 999, 2**31, 2**63, 10**30])
def test_numbers_that_there_are_not(shared_web: Web, number: int):
    for path in ("", "/versions", "/versions/1", "/compare"):
        assert shared_web.get(f"/workflows/{number}{path}").status_code == 404
    assert shared_web.delete(f"/workflows/{number}").status_code == 404
    assert shared_web.post(f"/workflows/{number}/execute").status_code == 404


@pytest.mark.parametrize("path", ["x", "1'--", "..%2f..%2fetc%2fpasswd", "%00", "1;drop table workflows"])
def test_what_is_no_number_is_refused(shared_web: Web, path: str):
    answer = shared_web.get(f"/workflows/{path}")
    assert answer.status_code in (404, 422)
    assert "passwd" not in answer.text or answer.status_code == 404
