"""Every fault of E2B becomes the right error, leaves no orphan, and is billed once. A TransientError always means that
nothing was done outside."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time

import pytest

from nova_pipelines.adapters.sandbox import e2b_cloud
from nova_pipelines.adapters.sandbox.base import Job, Limits, Status
from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.adapters.sandbox.e2b_errors import CloudBusy, CloudFault, CloudUnclear, SandboxLost
from nova_pipelines.domain.errors import CredentialError, OutcomeUnknown, PermanentError, TransientError
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY
from nova_pipelines_tests.fixtures.sockets import closed_port

pytestmark = pytest.mark.usefixtures("wire")
SLOW = Job(code="import time; time.sleep(30)")


@pytest.fixture
def session(wire):
    with E2BSandbox(api_key=KEY).session() as opened:
        yield opened
    wire.assert_nothing_left()


@pytest.fixture
def online(wire):
    """A session with the network: what is lost in it may have done something outside."""
    with E2BSandbox(api_key=KEY).session(network=True) as opened:
        yield opened
    wire.assert_nothing_left()


# ---------------------------------------------------------------- creating


def test_create_503_twice_is_retried_by_the_sdk(wire, session):
    wire.faults["create"].extend([503, 503])
    assert session.run(Job()).ok
    assert len(wire.creates) == 1


@pytest.mark.parametrize("status", [503, 429, 500])
def test_a_busy_service_is_transient(wire, session, status):
    wire.faults["create"].extend([status] * 4)
    with pytest.raises(CloudBusy, match=str(status)) as caught:
        session.run(Job())
    assert isinstance(caught.value, TransientError)
    assert wire.creates == []
    wire.faults.clear()
    assert session.run(Job()).ok


def test_an_unreachable_api_is_transient(wire, session, monkeypatch):
    with closed_port() as port:
        monkeypatch.setenv("E2B_API_URL", f"http://127.0.0.1:{port}")
        with pytest.raises(CloudBusy, match="creating a sandbox"):
            session.run(Job())
    monkeypatch.setenv("E2B_API_URL", wire.url)


@pytest.mark.parametrize("fault", ["garbled", "hang"])
def test_a_create_whose_answer_is_lost_leaves_no_orphan(wire, session, monkeypatch, fault):
    monkeypatch.setattr(e2b_cloud, "CREATE_SECONDS", 1.0 if fault == "hang" else 60.0)
    wire.faults["create"].append(fault)
    with pytest.raises(CloudBusy, match="what it may have left is ended"):
        session.run(Job())
    assert [sandbox.how for sandbox in wire.all] == ["kill"]
    assert session.run(Job()).ok
    assert len(wire.creates) == 2


def test_a_wrong_key_says_what_to_do_and_is_no_fault_of_the_cloud():
    wrong = E2BSandbox(api_key="e2b_wrong")
    with wrong.session() as session, pytest.raises(CredentialError, match="E2B_API_KEY") as caught:
        session.run(Job())
    assert not isinstance(caught.value, CloudFault)
    assert "e2b_wrong" not in str(caught.value)
    with pytest.raises(CredentialError):
        wrong.check()


@pytest.mark.parametrize("status", [400, 404])
def test_a_refused_template_is_permanent_and_no_fault_of_the_cloud(wire, session, status):
    wire.faults["create"].append(status)
    with pytest.raises(PermanentError, match="E2B_TEMPLATE_ID") as caught:
        session.run(Job())
    assert not isinstance(caught.value, CloudFault)


# ---------------------------------------------------------------- before the job runs


@pytest.mark.parametrize("network", [False, True])
def test_a_sandbox_that_vanished_between_jobs_is_made_anew_at_once(wire, network):
    """1-3 % do (E2B #1381). The job had not begun: repeating it is safe, network or not."""
    with E2BSandbox(api_key=KEY).session(network=network) as session:
        first = session.run(Job()).sandbox_id
        wire.vanish(first)
        outcome = session.run(Job(code="context['a'] = 1"))
        assert outcome.result == {"a": 1}
        assert outcome.sandbox_id != first
    assert len(wire.creates) == 2
    wire.assert_nothing_left()


def test_a_sandbox_that_takes_no_guest_is_killed(wire, session):
    wire.faults["write"].append("gone")
    assert session.run(Job()).ok
    wire.faults["write"].extend([500] * 2)
    with pytest.raises(SandboxLost, match="sending"):
        session.run(Job())
    assert wire.sandboxes == {}


def test_a_life_that_cannot_be_extended(wire, session):
    session.run(Job())
    long = Job(limits=Limits(wall_seconds=600))
    wire.faults["timeout"].append("gone")
    assert session.run(long).ok  # in a fresh one
    session._life.until -= 600
    wire.faults["timeout"].append(500)
    with pytest.raises(CloudBusy, match="extending"):
        session.run(long)


# ---------------------------------------------------------------- while the job runs

LOST = ["gone", "cut", "short", "unreachable"]


@pytest.mark.parametrize("fault", LOST)
def test_lost_without_the_network_is_repeated_once(wire, session, fault):
    """Nothing can have been done outside."""
    wire.faults["run"].append(fault)
    assert session.run(Job(code="context['a'] = 1")).result == {"a": 1}
    assert len(wire.creates) == 2


@pytest.mark.parametrize("fault", LOST)
def test_lost_twice_without_the_network_is_transient(wire, session, fault):
    wire.faults["run"].extend([fault] * 2)
    with pytest.raises(SandboxLost, match="running a job") as caught:
        session.run(Job())
    assert isinstance(caught.value, TransientError)
    assert wire.sandboxes == {}
    assert session.run(Job()).ok
    assert len(wire.creates) == 3


@pytest.mark.parametrize("fault", LOST)
def test_lost_with_the_network_is_an_unknown_outcome_and_never_repeated(wire, online, fault):
    online.run(Job())
    wire.faults["run"].append(fault)
    with pytest.raises(CloudUnclear, match="running a job") as caught:
        online.run(Job(code="context['sent'] = True"))
    assert isinstance(caught.value, OutcomeUnknown)
    assert wire.sandboxes == {}
    assert len(wire.creates) == 1
    assert online.run(Job()).ok


@pytest.mark.parametrize("fault", ["gone", 500])
def test_a_result_that_cannot_be_fetched(wire, session, online, fault):
    wire.faults["read"].append(fault)
    with pytest.raises(CloudUnclear, match="reading a result"):
        online.run(Job())
    wire.faults["read"].extend([fault] * 2)
    with pytest.raises(TransientError, match="reading a result"):
        session.run(Job())


def test_a_life_that_really_ends_under_a_job(wire, online):
    """Not injected: the sandbox's own life is over, as the wire server keeps it."""
    online.run(Job())
    (sandbox,) = wire.sandboxes.values()
    asyncio.run(online._cloud.extend(sandbox.id, 1))
    began = time.monotonic()
    with pytest.raises(CloudUnclear, match="SandboxNotRunning"):
        online.run(SLOW)
    assert time.monotonic() - began < 20
    assert sandbox.how == "life"
    wire.all.remove(sandbox)  # it was to end so


def test_code_that_runs_too_long_or_fails_is_no_fault_of_the_cloud(wire, session):
    slow = Job(code="while True: pass", limits=Limits(wall_seconds=0.5, cpu_seconds=10))
    assert session.run(slow).status is Status.TIMEOUT
    assert session.run(Job(code="1/0")).status is Status.CODE_ERROR
    assert len(wire.creates) == 1


# ---------------------------------------------------------------- ending


def test_a_kill_that_fails_is_said_and_fails_no_work(wire, caplog):
    session = E2BSandbox(api_key=KEY).session()
    session.run(Job())
    wire.faults["kill"].extend([500] * 9)
    with caplog.at_level(logging.WARNING):
        session.close()
    assert "it bills until the reaper" in caplog.text
    assert len(wire.sandboxes) == 1


def when(condition, act) -> threading.Thread:
    """Does `act` in a thread as soon as `condition` holds, within ten seconds."""

    def wait() -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_an_interrupt_in_the_middle_of_a_job_kills_its_sandbox(wire):
    """As Ctrl-C and Dagster's cancel do: a signal raises in the thread that waits."""
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        with E2BSandbox(api_key=KEY).session() as session:
            session.run(Job())
            (sandbox,) = wire.sandboxes.values()
            watcher = when(lambda: len(sandbox.groups) == 2, lambda: os.kill(os.getpid(), signal.SIGUSR1))
            with pytest.raises(KeyboardInterrupt):
                session.run(SLOW)
            watcher.join()
            assert wire.sandboxes == {}
            assert session.run(Job()).ok
    finally:
        signal.signal(signal.SIGUSR1, before)
    wire.assert_nothing_left()


def test_an_interrupt_in_the_middle_of_a_create_leaves_no_orphan(wire):
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    wire.faults["create"].append("hang")
    watcher = when(lambda: wire.creates, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    try:
        with E2BSandbox(api_key=KEY).session() as session, pytest.raises(KeyboardInterrupt):
            session.run(Job())
    finally:
        watcher.join()
        signal.signal(signal.SIGUSR1, before)
    assert len(wire.creates) == 1
    wire.assert_nothing_left()
