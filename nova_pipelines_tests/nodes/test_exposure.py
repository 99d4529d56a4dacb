"""What code gets of a client's credentials, and what is taken out of what it leaves. No sandbox is needed to see it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from nova_pipelines.adapters.sandbox.base import Outcome, Status
from nova_pipelines.database.clients import find_client, set_credential, update_client
from nova_pipelines.domain.errors import CodeError
from nova_pipelines.domain.masking import MASK
from nova_pipelines.nodes.base import ClientView, Item
from nova_pipelines.nodes.code import ActionNode, run
from nova_pipelines.nodes.exposure import Exposed, exposed, exposed_keys
from nova_pipelines.nodes.services import client_view
from nova_pipelines_tests.fixtures.world import World

PASSWORD, DATABASE_PASSWORD = "correct horse", "battery staple"


def set_up(world: World, *, url: str = "postgresql://ana@db.example:6543/facturas", **marks: bool) -> ClientView:
    with world.services.databases.nova.session() as session:
        client, box = find_client(session, "idom"), world.services.box()
        settings = {**client.credentials[0].settings}
        set_credential(session, box, client, "email", settings=settings, secret={"password": PASSWORD})
        set_credential(session, box, client, "database", settings={"url": url}, secret={"password": DATABASE_PASSWORD})
        return client_view(update_client(session, client, **{"expose_credentials": True, **marks}))


def outcome(result: dict[str, Any] | None = None, **more: Any) -> Outcome:
    made = Outcome(Status.OK, result, "", "", False, False, 0, None, 1.0, "sandbox", "local")
    return replace(made, **more)


def test_a_marked_client_gives_the_keys_of_the_old_dialect(world: World):
    client = set_up(world)
    user = world.user
    assert exposed(client, world.services).values == {
        "imap_host": user.host, "imap_port": user.tls_port, "smtp_host": world.sink.host, "smtp_port": world.sink.port,
        "email_user": user.name, "email_password": PASSWORD, "sender_whitelist": ["@proveedores.example"],
        "db_host": "db.example", "db_port": 6543, "db_name": "facturas", "db_user": "ana",
        "db_password": DATABASE_PASSWORD, "client_slug": "idom",
    }  # fmt: skip
    with world.services.databases.nova.read() as session:
        assert exposed_keys(client, session) == exposed(client, world.services).values.keys()
        assert exposed_keys(replace(client, expose_credentials=False), session) == frozenset()
    assert PASSWORD not in repr(exposed(client, world.services))


def test_others_give_nothing(world: World):
    client = set_up(world, expose_credentials=False)
    assert exposed(client, world.services).values == exposed(None, world.services).values == {}


def test_a_database_that_is_a_file_gives_no_keys(world: World):
    client = set_up(world, url="sqlite:////facturas.db")
    assert not [key for key in exposed(client, world.services).values if key.startswith("db_")]


@pytest.fixture
def given(world: World) -> Exposed:
    return exposed(set_up(world), world.services)


def test_what_was_given_is_taken_out_and_what_was_changed_stays(given: Exposed):
    left = {**given.values, "db_name": "other", "amount": 12.5}
    assert given.hidden(outcome(left), {}).result == {"db_name": "other", "amount": 12.5}


def test_what_the_workflow_had_itself_stays_though_it_is_the_same(given: Exposed):
    own = {"client_slug": "idom", "db_host": "own.example"}
    context = given.given(own)
    assert context["db_host"] == "own.example"
    assert given.hidden(outcome(context), own).result == own


@pytest.mark.parametrize("changed", ["correcthorse", "correct horse ", "smtp:correct+horse"])
def test_a_password_in_another_form_does_not_stay_under_its_key(given: Exposed, changed: str):
    assert given.hidden(outcome({"email_password": changed, "x": changed}), {}).result.keys() == {"x"}
    assert given.hidden(outcome({"email_password": "another one"}), {}).result == {"email_password": "another one"}


def test_output_that_was_cut_within_a_password_is_masked(given: Exposed):
    cut = outcome(None, stdout="it is correct ho", stderr="battery st", stdout_truncated=True, stderr_truncated=True)
    hidden = given.hidden(cut, {})
    assert (hidden.stdout, hidden.stderr) == (f"it is {MASK}", MASK)
    assert given.hidden(outcome({}, stdout="it is correct"), {}).stdout == "it is correct"


def test_clients_whose_credentials_are_shown_share_no_sandbox(world: World):
    shown = set_up(world)
    other, plain = replace(shown, id=shown.id + 1), replace(shown, expose_credentials=False)
    sandbox = world.services._session
    assert sandbox(shown) is sandbox(shown)
    assert sandbox(plain) is sandbox(replace(plain, id=77)) is sandbox(None)
    assert len({id(sandbox(client)) for client in (shown, other, plain)}) == 3


def test_a_package_of_the_extra_that_is_missing_is_said(world: World):
    node = ActionNode(id="work", type="action", code="raise ModuleNotFoundError(\"No module named 'fitz'\")")
    item = Item(execution_id=1, workflow_id=1, workflow_name="x", client=None, context={})
    with pytest.raises(CodeError, match=r"nova-pipelines\[compat\]"):
        run(node, item, world.services)
