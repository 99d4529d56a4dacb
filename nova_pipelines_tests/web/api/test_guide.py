"""A running `nova up`: the old guide's curl commands one after the other, live definitions, cancelling, progress."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from nova_pipelines_tests.cli.conftest import Nova, arithmetic
from nova_pipelines_tests.cli.test_up import Up, wait_for
from nova_pipelines_tests.fixtures.postgres import clean_environment

pytestmark = pytest.mark.xdist_group("nova up over http")


@pytest.fixture(scope="module")
def up(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One for all tests of this module: it takes some ten seconds of CPU to start."""
    home = tmp_path_factory.mktemp("up")
    with pytest.MonkeyPatch.context() as monkeypatch:
        clean_environment(monkeypatch)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        monkeypatch.setenv("NOVA_HOME", str(home))
        for name in ("nova.db", "facturas.db"):
            shutil.copyfile(sqlite_template / name, home / name)
        started = Up(Nova(home))
        try:
            started.wait_until_up()
            yield started
        finally:
            started.process.terminate()
            started.process.wait(30)


def curl(*arguments: str, cwd: Path | None = None) -> tuple[int, str]:
    """(status, body) of a real curl."""
    command = ["curl", "-sS", "-m", "60", "-w", "\n%{http_code}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, cwd=cwd)
    assert done.returncode == 0, done.stderr
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def test_the_guide_as_it_is_written(up: Up, tmp_path: Path):
    url = up.url
    (tmp_path / "workflow.json").write_text(arithmetic("Guide"))
    status, body = curl(
        *("-X", "POST", f"{url}/clients", "-H", "Content-Type: application/json"),
        *("-d", '{"name":"IDOM","slug":"idom","email":"facturas@idom.example"}'),
    )
    assert status == 201, body
    assert {"id": 1, "slug": "idom"}.items() <= json.loads(body).items()

    status, body = curl("-X", "POST", f"{url}/workflows", "-d", "@workflow.json", cwd=tmp_path)
    assert status == 201, body
    workflow = json.loads(body)
    assert workflow.keys() >= {"id", "name", "description", "graph_definition", "created_at", "updated_at"}

    status, body = curl(f"{url}/workflows")
    assert status == 200
    assert [(row["id"], row["name"]) for row in json.loads(body)] == [(workflow["id"], "Guide")]

    status, body = curl(
        *("-X", "POST", f"{url}/workflows/{workflow['id']}/execute", "-H", "Content-Type: application/json"),
        *("-d", '{"client_slug":"idom","initial_context":{"amount": 21}}'),
    )
    assert status == 202, body
    task = json.loads(body)
    assert {"status": "pending", "workflow_id": workflow["id"], "workflow_name": "Guide"}.items() <= task.items()

    def polled() -> dict[str, Any] | None:
        status, body = curl(f"{url}/tasks/{task['task_id']}")
        assert status == 200
        answer = json.loads(body)
        assert answer["status"] in ("pending", "running", "completed"), answer
        return answer if answer["status"] == "completed" else None

    done = wait_for(polled, "the task", 60)
    assert done["result"]["status"] == "completed"
    assert done["result"]["context"]["result"] == 42
    assert (done["error"], done["execution_id"]) == (None, task["execution_id"])

    status, body = curl(f"{url}/executions/{task['execution_id']}/chain")
    assert status == 200
    chain = json.loads(body)
    assert (chain["execution_id"], chain["total"]) == (task["execution_id"], 4)
    assert [row["node_id"] for row in chain["entries"]] == ["start", "work", "big", "small end"]

    for path in ("/docs", "/redoc", "/openapi.json", "/"):
        assert curl(f"{url}{path}")[0] == 200


def test_a_new_workflow_runs_within_five_seconds_of_the_answer(up: Up, record_property: Any):
    """And the newest version of it, each time, though it is executed right after it was posted."""
    with httpx.Client(base_url=up.url, timeout=60) as web:
        seconds: list[float] = []
        began: list[float] = []
        for factor in (2, 3, 5):
            posted = web.post("/workflows", content=arithmetic("Fresh", factor))
            answered, wall = time.monotonic(), datetime.now(UTC)
            begun = web.post(
                f"/workflows/{posted.json()['id']}/execute?wait=60", json={"initial_context": {"amount": 7}}
            ).json()
            seconds.append(time.monotonic() - answered)
            assert begun["status"] == "completed"
            shown = web.get(f"/executions/{begun['execution_id']}").json()
            began.append((datetime.fromisoformat(shown["started_at"]) - wall).total_seconds())
            assert (shown["version"], shown["context"]["result"]) == (posted.json()["version"], 7 * factor)
    record_property("seconds", seconds)
    print("seconds from the answer to the begin:", [round(one, 2) for one in began])  # noqa: T201
    print("and to the end, as another client sees it:", [round(one, 2) for one in seconds])  # noqa: T201
    # the machine may be busy with everything else: the best one says what it takes
    assert min(began) < 5.0


def sleeper(name: str, seconds: int) -> str:
    definition = json.loads(arithmetic(name))
    code = f"import time; time.sleep({seconds}); context['result'] = 1"
    definition["nodes"][1] |= {"code": code, "timeout": seconds + 10}
    return json.dumps(definition)


def test_who_runs_stays_on_its_version_and_ends_when_it_is_cancelled(up: Up):
    """Alone in its run: Dagster's run ends with it, and nothing goes on in the background."""
    with httpx.Client(base_url=up.url, timeout=60) as web:
        workflow = web.post("/workflows", content=sleeper("Sleeper", 200)).json()
        begun = web.post(f"/workflows/{workflow['id']}/execute").json()
        path = f"/executions/{begun['execution_id']}"

        def shown() -> dict[str, Any]:
            return web.get(path).json()

        wait_for(lambda: shown()["status"] == "running" and web.get(f"{path}/chain").json()["total"], "the run", 60)
        newer = web.put(f"/workflows/{workflow['id']}", content=sleeper("Sleeper", 1)).json()
        after = web.post(f"/workflows/{workflow['id']}/execute?wait=60").json()
        assert after["status"] == "completed"
        assert web.get(f"/executions/{after['execution_id']}").json()["version"] == newer["version"] == 2
        assert (shown()["status"], shown()["version"]) == ("running", 1)
        cancelled = web.post(f"{path}/cancel")
        assert (cancelled.status_code, cancelled.json()["run"]) == (202, "ended")
        wait_for(lambda: shown()["status"] == "failed", "the end", 60)
        assert shown()["error"].startswith("cancelled by ")
        run = {"query": "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"}
        run |= {"variables": {"id": shown()["run_id"]}}
        wait_for(
            lambda: web.post("/graphql", json=run).json()["data"]["runOrError"]["status"] == "CANCELED", "the run", 60
        )
        retried = web.post(f"{path}/retry")  # goes on, with the newest version
        assert retried.status_code == 202
        wait_for(lambda: shown()["status"] == "completed", "the retry", 60)
        nodes = [row["node_id"] for row in web.get(f"{path}/chain").json()["entries"] if row["status"] == "success"]
        assert nodes == ["start", "work", "big", "small end"]


def test_progress_by_curl(up: Up):
    with httpx.Client(base_url=up.url, timeout=60) as web:
        workflow = web.post("/workflows", content=arithmetic("Followed")).json()
        body = {"initial_context": {"amount": 1}}
        begun = web.post(f"/workflows/{workflow['id']}/execute", json=body).json()
    status, body = curl("-N", f"{up.url}/executions/{begun['execution_id']}/events")
    assert status == 200
    assert re.findall(r"^id: (.*?)\r?$", body, re.MULTILINE) == ["1", "2", "3", "4", "end"]
    assert '"status": "completed"' in body


def test_a_burst_of_posts_is_few_reloads_and_all_of_it_is_live(up: Up):
    with httpx.Client(base_url=up.url, timeout=60) as web, ThreadPoolExecutor(10) as pool:
        texts = [arithmetic(f"Burst {number}") for number in range(50)]
        posted = list(pool.map(lambda text: web.post("/workflows", content=text).json(), texts))
        begun = web.post(f"/workflows/{posted[-1]['id']}/execute?wait=60", json={"initial_context": {"amount": 1}})
        assert begun.json()["status"] == "completed"
        query = '{ repositoryOrError(repositorySelector: {repositoryName: "__repository__", '
        query += 'repositoryLocationName: "nova"}) { ... on Repository { pipelines { name } } } }'

        def jobs() -> set[str]:
            answer = web.post("/graphql", json={"query": query}).json()
            return {job["name"] for job in answer["data"]["repositoryOrError"]["pipelines"]}

        wait_for(lambda: jobs() >= {one["job_name"] for one in posted}, "all jobs in the UI", 30)
        assert len(web.get("/workflows", params={"limit": 500}).json()) >= 50
        archived = posted[0]
        assert web.delete(f"/workflows/{archived['id']}").status_code == 204
        wait_for(lambda: archived["job_name"] not in jobs(), "the archived one to be gone", 30)
