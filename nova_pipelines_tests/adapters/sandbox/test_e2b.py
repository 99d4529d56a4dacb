"""The E2B backend against the wire server: what it asks of the cloud, and what each fault becomes."""

from __future__ import annotations

import sys

import pytest

from nova_pipelines.adapters.sandbox import e2b as backend
from nova_pipelines.adapters.sandbox.base import Job, Limits, Status
from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.domain.errors import (
    ConfigurationError,
    CredentialError,
    OutcomeUnknown,
    PermanentError,
    TransientError,
)
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY

pytestmark = pytest.mark.usefixtures("wire")


def sandbox(key: str = KEY, template: str | None = None) -> E2BSandbox:
    return E2BSandbox(api_key=key, template=template)


def test_one_sandbox_for_a_session_with_its_life_and_network_said(wire):
    with sandbox(template="nova-template").session(life_seconds=120, metadata={"run": "r1"}) as session:
        ids = {session.run(Job(code="context['a'] = 1")).sandbox_id for _ in range(3)}
        assert set(wire.sandboxes) == ids
    (create,) = wire.creates
    assert create["templateID"] == "nova-template"
    assert create["timeout"] == 120
    assert create["allow_internet_access"] is False
    assert create["metadata"]["run"] == "r1"
    assert wire.kills == list(ids)
    assert wire.sandboxes == {}


def test_the_network_only_if_asked_for(wire):
    with sandbox().session(network=True):
        assert wire.creates[0]["allow_internet_access"] is True


def test_create_503_twice_is_retried_by_the_sdk(wire):
    wire.faults["create"].extend([503, 503])
    with sandbox().session() as session:
        assert session.run(Job()).ok
    assert len(wire.creates) == 1


@pytest.mark.parametrize("status", [503, 429])
def test_a_busy_service_is_transient(wire, status):
    wire.faults["create"].extend([status] * 4)
    with pytest.raises(TransientError, match=str(status)):
        sandbox().session()
    assert wire.sandboxes == {}


def test_an_unreachable_api_is_transient(monkeypatch):
    monkeypatch.setenv("E2B_API_URL", "http://127.0.0.1:9")
    with pytest.raises(TransientError, match="creating a sandbox"):
        sandbox().session()


def test_a_garbled_answer_leaves_no_orphan(wire):
    wire.faults["create"].append("garbled")
    with pytest.raises(TransientError, match="nothing was left behind"):
        sandbox().session()
    assert len(wire.creates) == 1
    assert wire.sandboxes == {}


def test_a_cut_stream_is_an_unknown_outcome_and_ends_the_sandbox(wire):
    with sandbox().session() as session:
        (lost,) = wire.sandboxes
        wire.faults["run"].append("cut")
        with pytest.raises(OutcomeUnknown, match="running a job"):
            session.run(Job(code="context['a'] = 1"))
        assert wire.kills == [lost]
        assert session.run(Job()).ok
    assert len(wire.creates) == 2
    assert wire.sandboxes == {}


def test_a_sandbox_whose_life_ends_in_a_run_is_transient_and_made_anew(wire):
    with sandbox().session() as session:
        wire.faults["run"].append("gone")
        with pytest.raises(TransientError, match="SandboxNotRunning"):
            session.run(Job())
        assert session.run(Job()).ok
    assert len(wire.creates) == 2


def test_a_sandbox_that_vanished_between_jobs_is_transient_and_made_anew(wire):
    with sandbox().session() as session:
        wire.vanish(next(iter(wire.sandboxes)))
        with pytest.raises(TransientError, match="sending a job"):
            session.run(Job())
        assert session.run(Job()).ok


def test_a_sandbox_that_takes_no_guest_is_killed(wire):
    wire.faults["write"].append("gone")
    with pytest.raises(TransientError, match="guest runner"):
        sandbox().session()
    assert wire.sandboxes == {}


def test_the_streams_own_deadline_is_a_timeout(wire, monkeypatch):
    """The guest keeps the time itself; this is for a guest that does not."""
    monkeypatch.setattr(backend, "GRACE_SECONDS", -58.0)
    with sandbox().session() as session:
        outcome = session.run(Job(code="import time; time.sleep(30)", limits=Limits(wall_seconds=60)))
        assert outcome.status is Status.TIMEOUT
    assert len(wire.kills) == 1


def test_a_wrong_key_says_what_to_do():
    with pytest.raises(CredentialError, match="E2B_API_KEY") as caught:
        sandbox("e2b_wrong").session()
    assert "e2b_wrong" not in str(caught.value)
    with pytest.raises(CredentialError):
        sandbox("e2b_wrong").check()


def test_a_refused_create_is_permanent(wire):
    wire.faults["create"].append(400)
    with pytest.raises(PermanentError, match="E2B_TEMPLATE_ID"):
        sandbox(template="nothing").session()


def test_a_kill_that_fails_is_said(wire):
    session = sandbox().session()
    wire.faults["kill"].extend([500] * 9)
    with pytest.raises(TransientError, match="ending a sandbox"):
        session.close()
    wire.faults["kill"].clear()
    wire.vanish(next(iter(wire.sandboxes)))


def test_a_report_that_the_code_forged_is_a_crash(wire):
    code = "import os; os.mkdir('../' + os.path.basename(os.getcwd())[len('work-'):-len('job')] + 'report')"
    with sandbox().session() as session:
        assert session.run(Job(code=code)).status is Status.CRASHED
        assert session.run(Job()).ok


def test_a_job_finds_nothing_of_the_job_before():
    with sandbox().session() as session:
        session.run(Job(code="context['a'] = 1", context={"secret": 1}, files={"a": b"secret"}))
        code = "import os; context['left'] = sorted(n for n in os.listdir('..') if not n.startswith('work-'))"
        assert session.run(Job(code=code)).result == {"left": ["guest.zip"]}


def test_a_report_that_is_too_large_is_not_read(wire, monkeypatch):
    monkeypatch.setattr(backend, "report_cap", lambda job: 100)
    with sandbox().session() as session:
        assert session.run(Job()).status is Status.RESOURCE


def test_check_asks_and_starts_nothing(wire):
    assert "0 sandboxes running" in sandbox().check()[0]
    assert wire.creates == []


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "e2b", None)
    with pytest.raises(ConfigurationError, match=r"nova-pipelines\[e2b\]"):
        sandbox()


def test_the_key_shows_nowhere():
    assert KEY not in repr(sandbox())
