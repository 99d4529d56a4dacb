"""The real cloud: `pytest -m e2b_live` with a real E2B_API_KEY (and E2B_TEMPLATE_ID, if there is one). Costs a cent.

What the wire server cannot show: that E2B itself keeps its protocol, its lives and its network rule.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nova_pipelines.adapters.sandbox.base import Job, Limits, Status
from nova_pipelines.adapters.sandbox.e2b import E2BSandbox, E2BSession
from nova_pipelines.settings import load_settings

pytestmark = [pytest.mark.e2b_live, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def live() -> E2BSandbox:
    settings = load_settings()
    if settings.e2b_api_key is None:
        pytest.skip("needs a real account of E2B: set E2B_API_KEY (https://e2b.dev/dashboard) and run it again")
    if os.environ.get("E2B_API_URL"):
        pytest.skip("E2B_API_URL points elsewhere than to E2B's cloud: unset it")
    return E2BSandbox(
        api_key=settings.e2b_api_key.get_secret_value(), template=settings.e2b_template_id, rates=settings.e2b_rates
    )


@pytest.fixture
def session(live: E2BSandbox) -> Iterator[E2BSession]:
    before = {one.sandbox_id for one in live.find({})}
    with live.session(life_seconds=120) as opened:
        yield opened
    assert {one.sandbox_id for one in live.find({})} <= before


def test_a_session_runs_many_jobs_in_one_sandbox_and_says_what_it_cost(session: E2BSession):
    outcomes = [session.run(Job(code="context['n'] += 1", context={"n": n})) for n in range(3)]
    assert [outcome.result for outcome in outcomes] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert len({outcome.sandbox_id for outcome in outcomes}) == 1
    assert all(outcome.cost_nano_usd > 0 for outcome in outcomes)


def test_faults_of_code_are_told_as_everywhere(session: E2BSession):
    assert "line 1, column" in (session.run(Job(code="if x\n  pass")).error or "")
    slow = session.run(Job(code="import time; time.sleep(60)", limits=Limits(wall_seconds=2)))
    assert slow.status is Status.TIMEOUT
    assert session.run(Job(code="context['next'] = True")).result == {"next": True}


def test_there_is_no_network_unless_it_is_asked_for(live: E2BSandbox, session: E2BSession):
    code = "import socket; socket.create_connection(('1.1.1.1', 443), 5).close(); context['reached'] = True"
    assert session.run(Job(code=code)).status is Status.CODE_ERROR
    with live.session(network=True, life_seconds=120) as open_session:
        assert open_session.run(Job(code=code)).result == {"reached": True}
