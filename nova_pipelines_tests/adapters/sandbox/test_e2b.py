"""The E2B backend against the wire server: what it asks of the cloud, its life, its cost. Faults: test_e2b_faults."""

from __future__ import annotations

import sys
from datetime import date
from decimal import Decimal

import pytest

from nova_pipelines.adapters.sandbox import e2b as backend
from nova_pipelines.adapters.sandbox import e2b_cloud
from nova_pipelines.adapters.sandbox.base import Job, Limits, Status
from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.adapters.sandbox.e2b_files import TEMPLATE_GUEST
from nova_pipelines.domain.errors import ConfigurationError, PermanentError
from nova_pipelines.domain.rates import SandboxRates
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY

pytestmark = pytest.mark.usefixtures("wire")
RATES = SandboxRates(Decimal("0.000014"), Decimal("0.0000045"), Decimal(2), Decimal("0.5"), date(2026, 8, 1))


def sandbox(**options) -> E2BSandbox:
    return E2BSandbox(api_key=KEY, **options)


def within(seconds: float) -> Job:
    return Job(limits=Limits(wall_seconds=seconds))


def test_one_sandbox_for_a_session_with_its_life_and_network_said(wire):
    with sandbox(template="nova-template").session(life_seconds=120, metadata={"nova_run": "r1"}) as session:
        assert wire.creates == []  # nothing bills before the first job
        ids = {session.run(Job(code="context['a'] = 1")).sandbox_id for _ in range(3)}
        assert set(wire.sandboxes) == ids
    (create,) = wire.creates
    assert create["templateID"] == "nova-template"
    assert create["timeout"] == 120
    assert create["allow_internet_access"] is False
    assert create["metadata"]["nova_run"] == "r1"
    assert list(wire.keys) == [create["metadata"]["nova_session"]]
    assert wire.kills == list(ids)
    wire.assert_nothing_left()


def test_the_network_only_if_asked_for(wire):
    with sandbox().session(network=True) as session:
        session.run(Job())
        assert wire.creates[0]["allow_internet_access"] is True


# ---------------------------------------------------------------- its life


def test_a_life_is_short_and_extended_before_a_job_that_needs_it(wire):
    """Old defect 12: a life of 120 s whatever the nodes' timeouts."""
    with sandbox().session() as session:
        session.run(Job())
        assert wire.creates[0]["timeout"] == 300
        for _ in range(3):
            session.run(Job())
        assert wire.extensions == []
        session.run(within(600))
        assert wire.extensions == [600 + 30 + 15]
        session.run(within(600))  # a few milliseconds too late for the life that is left
        assert wire.extensions == [645, 645]
    assert len(wire.creates) == 1


def test_a_first_job_that_needs_more_gets_it_with_the_create(wire):
    with sandbox().session() as session:
        session.run(within(600))
    assert wire.creates[0]["timeout"] == 645
    assert wire.extensions == []


def test_a_sandbox_that_has_grown_too_old_is_replaced_between_jobs(wire, monkeypatch):
    with sandbox(max_life_seconds=400).session() as session:
        first = session.run(Job()).sandbox_id
        monkeypatch.setattr(session._life, "born", session._life.born - 300)
        second = session.run(Job()).sandbox_id
    assert wire.kills == [first, second]
    assert len(wire.creates) == 2


def test_a_timeout_beyond_what_a_sandbox_may_live_is_refused(wire):
    with sandbox(max_life_seconds=400).session() as session, pytest.raises(PermanentError, match="NOVA_E2B_MAX_LIFE"):
        session.run(within(380))
    assert wire.creates == []


def test_the_streams_own_deadline_is_a_timeout(wire, monkeypatch):
    """The guest keeps the time itself; this is for a guest that does not."""
    monkeypatch.setattr(e2b_cloud, "GRACE_SECONDS", -58.0)
    with sandbox().session() as session:
        outcome = session.run(Job(code="import time; time.sleep(30)", limits=Limits(wall_seconds=60)))
        assert outcome.status is Status.TIMEOUT
    assert len(wire.kills) == 1


# ---------------------------------------------------------------- its cost


def test_the_jobs_are_charged_with_the_whole_life_but_its_tail(wire):
    wire.cold_start = 0.3
    with sandbox(rates=RATES).session() as session:
        outcomes = [session.run(Job()) for _ in range(3)]
    seconds = sum(outcome.sandbox_seconds for outcome in outcomes)
    assert outcomes[0].sandbox_seconds > 0.3
    assert seconds == pytest.approx(wire.billed_seconds(), abs=0.2)
    assert sum(outcome.cost_nano_usd for outcome in outcomes) == pytest.approx(seconds * 30_250, abs=2)


def test_a_lost_sandbox_is_charged_to_the_next_outcome(wire):
    wire.cold_start = 0.3
    with sandbox(rates=RATES).session() as session:
        wire.faults["run"].append("gone")
        outcome = session.run(Job())
    assert len(wire.creates) == 2
    assert outcome.sandbox_seconds > 0.6
    assert outcome.sandbox_seconds == pytest.approx(wire.billed_seconds(), abs=0.2)


def test_a_create_that_was_refused_costs_nothing(wire):
    with sandbox(rates=RATES).session() as session:
        wire.faults["create"].append(400)
        with pytest.raises(PermanentError):
            session.run(Job())
        wire.cold_start = 0.2
        outcome = session.run(Job())
    assert outcome.sandbox_seconds == pytest.approx(wire.billed_seconds(), abs=0.2)


# ---------------------------------------------------------------- what lies in it


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
    monkeypatch.setattr(e2b_cloud, "report_cap", lambda job: 100)
    with sandbox().session() as session:
        assert session.run(Job()).status is Status.RESOURCE


def test_the_guest_is_sent_once_where_the_template_has_none_of_this_version(wire):
    with sandbox(template="somebody-elses").session() as session:
        assert all(session.run(Job()).ok for _ in range(2))
    assert wire.writes.count("guest.zip") == 1
    assert TEMPLATE_GUEST.startswith(".nova/guest-")


# ---------------------------------------------------------------- the rest


def test_check_asks_and_starts_nothing(wire):
    assert "0 sandboxes running" in sandbox().check()[0]
    assert wire.creates == []


def test_a_long_list_is_read_to_its_end(wire, monkeypatch):
    monkeypatch.setattr(backend, "LIFE_SECONDS", 110.0)
    with sandbox().session() as session:
        session.run(Job())
        (one,) = wire.sandboxes.values()
        wire.sandboxes |= {f"more{number}": one for number in range(230)}
        assert "231 sandboxes running" in sandbox().check()[0]
        for number in range(230):
            del wire.sandboxes[f"more{number}"]


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "e2b", None)
    with pytest.raises(ConfigurationError, match=r"nova-pipelines\[e2b\]"):
        sandbox()


def test_the_key_shows_nowhere():
    assert KEY not in repr(sandbox())
    with sandbox().session() as session:
        assert KEY not in repr(session)
