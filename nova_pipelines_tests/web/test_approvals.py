"""A decision in the page, by the API and by a link: once, by whoever may, and the workflow goes on."""

from __future__ import annotations

import base64
import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.approvals import decide
from nova_pipelines.domain.approval_links import PURPOSE, Link, read, sign
from nova_pipelines.domain.errors import Conflict, Expired, PermanentError
from nova_pipelines_tests.cli.conftest import Nova
from nova_pipelines_tests.nodes.test_approval import asking
from nova_pipelines_tests.web.site import Site, text_of


@pytest.fixture
def waiting(site: Site) -> Approval:
    """A question of its own for a test, without mail and PDF."""
    compiled = site.publish(asking())
    context = {"invoice": {"total_amount": 15000.59, "currency": "EUR", "supplier_name": "<b>Bold</b> S.L."}}
    number = site.world.execution(compiled, context)
    assert site.world.run(compiled, executions=[number]).success
    return site.approvals()[-1]


def status(site: Site, approval: Approval) -> str:
    return next(row.status for row in site.approvals() if row.id == approval.id)


def test_in_the_page(site: Site):
    """The whole example: an invoice above the limit, approved by somebody who looks at it."""
    approval = site.asked(number="P-1")
    operator = site.as_("operator", "idom", name="Ana Pérez")
    shown = operator.get(f"/pages/approvals/{approval.id}").text
    assert 'name="decision" value="approved"' in shown
    answer = operator.post(f"/pages/approvals/{approval.id}", data={"decision": "approved", "note": "Checked <it>"})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/pages/executions/{approval.execution_id}")
    assert site.dagster.launched[-1].executions == (approval.execution_id,)
    assert site.dagster.launched[-1].slug == "idom"
    assert site.execution(approval.execution_id).status == "completed"
    assert [row.status for row in site.world.invoices() if row.id == approval.facts["invoice_id"]] == ["approved"]
    shown = text_of(operator.get(answer.headers["location"]).text)
    assert "approved by Ana Pérez (page): Checked &lt;it&gt;" in shown
    decided = text_of(operator.get(f"/pages/approvals/{approval.id}").text)
    assert "Ana Pérez (in the page)" in decided

    again = operator.post(f"/pages/approvals/{approval.id}", data={"decision": "rejected"})
    assert again.status_code == 409
    assert f"approval {approval.id} was approved by Ana Pérez at" in again.text


def test_only_who_may(site: Site, waiting: Approval):
    data = {"decision": "approved"}
    for browser, expected in (
        (site.as_(None), 401),
        (site.as_("viewer"), 403),
        (site.as_("admin", "other"), 404),
    ):
        assert browser.post(f"/pages/approvals/{waiting.id}", data=data).status_code == expected
        assert browser.post(f"/approvals/{waiting.id}/approve").status_code == expected
        assert browser.post(f"/approvals/{waiting.id}/reject", json={"note": "x"}).status_code == expected
    assert 'name="decision"' not in site.as_("viewer").get(f"/pages/approvals/{waiting.id}").text
    with site.world.services.databases.nova.session() as session:
        session.execute(update(Approval).where(Approval.id == waiting.id).values(role="admin"))
    assert site.as_("operator").post(f"/approvals/{waiting.id}/approve").status_code == 403
    assert status(site, waiting) == "pending"
    assert site.as_("admin").post(f"/approvals/{waiting.id}/approve").status_code == 200


def test_by_the_api(site: Site, waiting: Approval):
    operator = site.as_("operator", name="robot")
    listed = operator.get("/approvals?limit=500")
    row = next(row for row in listed.json() if row["id"] == waiting.id)
    assert row["facts"]["amount"] == "15.000,59 €"
    assert row["open"] is True
    assert "nonce" not in listed.text
    assert int(listed.headers["x-total-count"]) >= 1
    assert operator.get(f"/approvals/{waiting.id}").json() == row
    done = operator.post(f"/approvals/{waiting.id}/reject", json={"note": "no"})
    assert done.json() == {
        "id": waiting.id,
        "status": "rejected",
        "execution_id": waiting.execution_id,
        "goes_on": True,
    }
    assert site.execution(waiting.execution_id).status == "completed"
    second = operator.post(f"/approvals/{waiting.id}/approve")
    assert second.status_code == 409
    assert second.headers["content-type"] == "application/problem+json"
    assert f"approval {waiting.id} was rejected by robot at" in second.json()["detail"]
    assert waiting.id not in [row["id"] for row in operator.get("/approvals?limit=500").json()]
    assert waiting.id in [row["id"] for row in operator.get("/approvals?status=rejected&limit=500").json()]


def test_bad_input_of_the_api(site: Site, waiting: Approval):
    operator = site.as_("operator")
    assert operator.get("/approvals/0").status_code == 404
    assert operator.get("/approvals/99999999999999999999").status_code == 404
    assert operator.get("/approvals/abc").status_code == 422
    assert operator.get("/approvals?limit=0").status_code == 422
    assert operator.get("/approvals?status=nonsense").status_code == 422
    path = f"/approvals/{waiting.id}/approve"
    for body in ({"note": 5}, {"note": "x" * 2001}, {"decision": "rejected"}, []):
        assert operator.post(path, json=body).status_code == 422
    assert operator.post("/approvals/99999/approve").status_code == 404
    assert operator.post(f"/pages/approvals/{waiting.id}", data={"decision": "burn"}).status_code == 422
    assert operator.get("/approvals/1/nothing").status_code == 404
    assert status(site, waiting) == "pending"
    assert operator.post(path, json={"note": "nul \x00 and \u202e"}).status_code == 200


def test_what_dagster_refuses_is_left_to_the_sensor(site: Site, waiting: Approval, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(site.dagster, "outcome", "refused")
    assert site.as_("operator").post(f"/approvals/{waiting.id}/approve").status_code == 200
    row = site.execution(waiting.execution_id)
    assert (row.status, row.run_id) == ("pending", None)


def test_what_nobody_knows_keeps_its_key(site: Site, waiting: Approval, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(site.dagster, "outcome", "unknown")
    assert site.as_("operator").post(f"/approvals/{waiting.id}/approve").status_code == 200
    row = site.execution(waiting.execution_id)
    assert (row.status, row.run_id) == ("pending", site.dagster.launched[-1].key)


# -- links ------------------------------------------------------------------------------------------


def test_the_doctor_counts_what_waits(site: Site, waiting: Approval):
    checks = {check["name"]: check for check in Nova(site.world.settings.nova_home).json("doctor", code=None)["checks"]}
    number = len([row for row in site.approvals() if row.status == "pending"])
    assert checks["approvals"]["message"] == f"{number} wait for a person's decision: nova approvals list"


def test_cancelled_while_somebody_is_asked(site: Site, waiting: Approval):
    operator = site.as_("operator")
    answer = operator.post(f"/executions/{waiting.execution_id}/cancel", headers={"accept": "application/json"})
    assert (answer.status_code, answer.json()["status"]) == (202, "failed")
    late = operator.post(f"/pages/approvals/{waiting.id}", data={"decision": "approved"})
    assert late.status_code == 409
    assert site.execution(waiting.execution_id).error == "cancelled by Ana"
    assert [row.id for row in site.approvals() if row.status == "pending" and row.id == waiting.id]

    assert operator.post(f"/executions/{waiting.execution_id}/retry").status_code in (200, 202)
    key = {"dagster/run_key": site.execution(waiting.execution_id).run_id}
    assert site.world.run(site.dagster.jobs["asks"], executions=[waiting.execution_id], tags=key).success
    assert site.execution(waiting.execution_id).status == "in_approval", "and a retry asks the same question again"
    assert operator.post(f"/pages/approvals/{waiting.id}", data={"decision": "approved"}).status_code == 303
    assert site.execution(waiting.execution_id).status == "completed"


def test_a_form_of_another_site_decides_nothing(site: Site, waiting: Approval):
    operator = site.as_("operator")
    for origin in ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}):
        answer = operator.post(f"/pages/approvals/{waiting.id}", data={"decision": "approved"}, headers=origin)
        assert answer.status_code == 403
    assert status(site, waiting) == "pending"


def post(site: Site, path: str, token: str, **more):
    return site.as_(None).post(path, data={"token": token, **more})


def test_a_link_is_opened_confirmed_and_used_once(site: Site, waiting: Approval):
    token = site.token(waiting)
    opened = site.as_(None).get("/pages/decide")
    assert opened.status_code == 200
    assert 'action="/pages/decide/look"' in opened.text
    assert opened.headers["referrer-policy"] == "same-origin"
    looked = post(site, "/pages/decide/look", token)
    assert looked.headers["cache-control"] == "no-store"
    assert "luis@idom.example" in looked.text
    assert "&lt;b&gt;Bold&lt;/b&gt;" in looked.text
    assert status(site, waiting) == "pending"  # looking decides nothing
    done = post(site, "/pages/decide", token, note="from the train")
    assert done.status_code == 200
    assert "Approved." in done.text
    row = next(row for row in site.approvals() if row.id == waiting.id)
    assert (row.status, row.decided_by, row.decided_via) == ("approved", "luis@idom.example", "link")
    assert site.execution(waiting.execution_id).status == "completed"

    for path in ("/pages/decide", "/pages/decide/look"):
        replayed = post(site, path, token)
        assert replayed.status_code == 409
        assert "approved by luis@idom.example at" in replayed.text
    other_answer = post(site, "/pages/decide", site.token(waiting, "rejected"))
    assert other_answer.status_code == 409


def test_whoever_opens_links_by_itself_decides_nothing(site: Site, waiting: Approval):
    """A scanner of mails asks for every address, with a HEAD or a GET, and sends no fragment; or it sends one."""
    token = site.token(waiting)
    for path in ("/pages/decide", f"/pages/decide?token={token}", f"/pages/decide#{token}"):
        site.as_(None).get(path)
        site.as_(None).head(path)
    assert site.as_(None).get("/pages/decide/look").status_code in (404, 405)
    assert status(site, waiting) == "pending"


def test_expired(site: Site, waiting: Approval):
    token = site.token(waiting, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for path in ("/pages/decide", "/pages/decide/look"):
        answer = post(site, path, token)
        assert answer.status_code == 410
        assert "this link was good until" in answer.text
    assert status(site, waiting) == "pending"


def test_forged(site: Site, waiting: Approval):
    good = site.token(waiting)
    payload, _, mac = good.partition(".")
    fields = json.loads(base64.urlsafe_b64decode(payload + "=="))
    fields[1] = "rejected"
    changed = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
    link = Link(waiting.id, "approved", waiting.deadline_at, waiting.link_nonce, "x@y.example")
    for token in (
        f"{changed}.{mac}",
        f"{payload}.",
        payload,
        ".",
        f"{payload}.{mac}x",
        f"{payload}.{'A' * len(mac)}",
        sign(b"another key of thirty-two bytes!", link),
        "ñ.ñ",
        "\x00.\x00",
        "A" * 1_999,
    ):
        for path in ("/pages/decide", "/pages/decide/look"):
            answer = post(site, path, token)
            assert answer.status_code == 422, token
            assert token not in answer.text or len(token) < 3
    assert post(site, "/pages/decide", "A" * 5_000).status_code == 422
    assert status(site, waiting) == "pending"


def test_a_link_of_an_earlier_question_does_not_fit(site: Site, waiting: Approval):
    token = site.token(waiting, nonce="0" * 32)
    assert post(site, "/pages/decide/look", token).status_code == 409
    answer = post(site, "/pages/decide", token)
    assert answer.status_code == 409
    assert "belongs to an earlier question" in answer.text
    assert status(site, waiting) == "pending"


def test_a_token_is_never_logged(site: Site, waiting: Approval, caplog: pytest.LogCaptureFixture):
    token = site.token(waiting)
    with caplog.at_level("DEBUG"):
        post(site, "/pages/decide/look", token)
        post(site, "/pages/decide", token)
        post(site, "/pages/decide", token)
        post(site, "/pages/decide", token[:-5] + "AAAAA")
    for record in caplog.records:
        assert token not in record.getMessage()
        assert token[:40] not in record.getMessage()


def test_links_outlive_a_rotation_of_keys(site: Site, waiting: Approval):
    from nova_pipelines.database.secrets import rotate_keys

    token = site.token(waiting)
    with site.world.services.databases.nova.session() as session:
        rotate_keys(session, site.world.settings)
    assert read(site.world.services.box().derived(PURPOSE), token).approval_id == waiting.id
    assert post(site, "/pages/decide", token).status_code == 200


def test_reading_a_link_says_what_is_wrong():
    link = Link(1, "approved", datetime(2026, 1, 1, tzinfo=UTC), "n", "a@b.example")
    keys = (b"new key", b"old key")
    token = sign(b"old key", link)
    assert read(keys, token, now=datetime(2025, 12, 31, tzinfo=UTC)) == link
    with pytest.raises(Expired):
        read(keys, token)
    with pytest.raises(PermanentError):
        read((b"third key",), token, now=datetime(2025, 12, 31, tzinfo=UTC))


# -- at the same time, in both databases --------------------------------------------------------------


def test_of_many_answers_at_the_same_time_one_counts(databases):
    """Also where each of them sees the question open before anybody has answered."""
    from nova_pipelines.database.approvals import Question, ask
    from nova_pipelines.database.nova import Execution
    from nova_pipelines.nodes.assignment import new_execution
    from nova_pipelines_tests.fixtures.chains import publish_chained

    workflow_id, version_id = publish_chained(databases.nova)
    with databases.nova.session() as session:
        execution = new_execution(workflow_id, version_id, None, {})
        session.add(execution)
        session.flush()
        execution.status = "in_approval"
        number = ask(session, execution.id, "ask", Question("Pay?", "operator", {}, 3600, "expired")).id
        execution_id = execution.id
    barrier, outcomes = threading.Barrier(8), []

    def answer(name: str) -> None:
        barrier.wait()
        try:
            with databases.nova.session() as session:
                done = decide(session, number, "approved", by=name, via="api", run_key=f"wat-{name}")
            outcomes.append((name, done.goes_on))
        except Conflict as error:
            outcomes.append((name, str(error)))

    threads = [threading.Thread(target=answer, args=(str(place),)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [name for name, said in outcomes if said is True]
    assert all(f"was approved by {winner} at" in said for name, said in outcomes if name != winner)
    with databases.nova.read() as session:
        assert session.get_one(Execution, execution_id).run_id == f"wat-{winner}"
