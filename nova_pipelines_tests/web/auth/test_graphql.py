"""GraphQL by role: every mutation of Dagster's schema, however it is written, and by every way in."""

from __future__ import annotations

import json

import pytest
from graphql import GraphQLObjectType, GraphQLSchema
from hypothesis import given
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect

from nova_pipelines.web.access import Refusal
from nova_pipelines.web.auth.graphql_rules import MAX_DEPTH, MUTATIONS, judge, mutations_of, read_document
from nova_pipelines.web.dagster_ui.webserver import graphql_schema
from nova_pipelines_tests.web.auth.site import Site

DELETE = 'deleteRun(runId: "x") { __typename }'
ENDED = 'terminateRun(runId: "x") { __typename }'


@pytest.fixture(scope="module")
def schema() -> GraphQLSchema:
    return graphql_schema().graphql_schema


def refusal(text: str, role: str = "viewer") -> Refusal | None:
    document = read_document(text)
    return document if isinstance(document, Refusal) else judge(document, role)


def test_every_mutation_of_dagster_has_a_decision(schema: GraphQLSchema):
    mutations = schema.mutation_type
    assert isinstance(mutations, GraphQLObjectType)
    assert sorted(mutations.fields) == sorted(MUTATIONS)


def test_the_decisions_themselves():
    """Read by a person, once for each: what a role may do is no accident of a list."""
    by_role = {
        role: sorted(name for name, needed in MUTATIONS.items() if needed == role) for role in set(MUTATIONS.values())
    }
    assert by_role["viewer"] == ["logTelemetry", "setNuxSeen"]
    assert {"launchRun", "terminateRun", "startSensor", "stopRunningSchedule", "launchRunReexecution"} <= set(
        by_role["operator"]
    )
    dangerous = {
        name for name in MUTATIONS if name.startswith(("delete", "wipe", "reload", "shutdown", "report", "free"))
    }
    assert dangerous <= set(by_role["admin"])


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_each_mutation_by_each_role(name: str):
    rank = ["viewer", "operator", "admin"]
    for role in rank:
        found = refusal(f"mutation {{ {name} }}", role)
        assert (found is None) == (rank.index(role) >= rank.index(MUTATIONS[name])), (name, role)


@pytest.mark.parametrize(
    "text",
    [
        f"mutation {{ {DELETE} }}",
        f"mutation {{ version: {DELETE} }}",
        f"query A {{ version }} mutation B {{ {DELETE} }}",
        f"mutation B {{ {DELETE} }} query A {{ version }}",
        f"mutation {{ ...F }} fragment F on Mutation {{ {DELETE} }}",
        f"mutation {{ ...F }} fragment F on Mutation {{ ...G }} fragment G on Mutation {{ ... {{ {DELETE} }} }}",
        f"mutation {{ ... on Mutation {{ ... {{ {DELETE} }} }} }}",
        f"mutation {{ setNuxSeen  {DELETE} }}",
        f"mutation {{ {DELETE.replace('{', '@skip(if: true) {', 1)} }}",
        f"mutation($a: Boolean = false) {{ ... @include(if: $a) {{ {DELETE} }} }}",
        f"#\n,,\ufeffmutation,{{{DELETE}}}",
        "mutation { launchEverything }",
        "mutation { __typename somethingNew }",
    ],
)
def test_ways_to_write_it(text: str):
    assert refusal(text, "operator") is not None
    assert refusal(text, "viewer").status == 403


def test_an_unknown_mutation_is_nobodys():
    assert refusal("mutation { launchEverything }", "admin").detail == "the mutation launchEverything is not known here"


def test_fragments_that_name_themselves_end():
    text = "mutation { ...F } fragment F on Mutation { ...F ...G setNuxSeen } fragment G on Mutation { ...F }"
    assert refusal(text) is None
    assert mutations_of(read_document(text)) == ["setNuxSeen"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{" * 5_000, "nested"),
        ("{a(b:" + "[" * (MAX_DEPTH + 1), "nested"),
        ("{" + "a " * 30_000 + "}", "more than"),
        ("mutation {", "Syntax Error"),
        ("", "Syntax Error"),
        ("\x00", "Syntax Error"),
    ],
)
def test_what_is_not_looked_at(text: str, reason: str):
    found = refusal(text, "admin")
    assert found.status == 400
    assert reason in found.detail


@st.composite
def wrapped(draw: st.DrawFn) -> str:
    """The deletion in some depth of fragments and inline fragments, among harmless fields and operations."""
    inner, fragments = draw(st.sampled_from([DELETE, f"alias: {DELETE}"])), []
    for number in range(draw(st.integers(0, 6))):
        if draw(st.booleans()):
            fragments.append(f"fragment F{number} on Mutation {{ {inner} }}")
            inner = f"...F{number}"
        else:
            inner = f"... {draw(st.sampled_from(['', 'on Mutation', '@include(if: true)']))} {{ {inner} }}"
        if draw(st.booleans()):
            inner = f"setNuxSeen {inner}"
    parts = [f"mutation M {{ {inner} }}", *fragments, *["query Q { version }"] * draw(st.integers(0, 1))]
    return "\n".join(draw(st.permutations(parts)))


@given(wrapped())
def test_it_is_found_wherever_it_stands(text: str):
    assert refusal(text, "operator").status == 403
    assert refusal(text, "admin") is None


# over the wire


def post(site: Site, who: str | None, query: object, **more: object):
    return site.client(who).post("/graphql", json={"query": query, **more})


def test_roles_over_http(site: Site):
    assert post(site, "viewer", "{ version }").status_code == 200
    assert post(site, "viewer", f"mutation {{ {ENDED} }}").status_code == 403
    ended = post(site, "operator", f"mutation {{ {ENDED} }}")
    assert ended.json() == {"data": {"terminateRun": {"__typename": "RunNotFoundError"}}}
    assert post(site, "operator", f"mutation {{ {DELETE} }}").status_code == 403
    deleted = post(site, "admin", f"mutation {{ {DELETE} }}")
    assert deleted.json() == {"data": {"deleteRun": {"__typename": "RunNotFoundError"}}}
    assert post(site, "of another client", "{ version }").status_code == 403


def test_the_chosen_operation_does_not_hide_the_other(site: Site):
    text = f"query A {{ version }} mutation B {{ {DELETE} }}"
    assert post(site, "viewer", text, operationName="A").status_code == 403


def test_dagster_itself_knows_that_a_viewer_only_looks(site: Site):
    """Even if the rules let it through; and its UI offers nothing that would be refused."""
    asked = "{ permissions { permission value } }"
    for who, may in (("viewer", False), ("operator", True)):
        found = {each["permission"]: each["value"] for each in post(site, who, asked).json()["data"]["permissions"]}
        assert found["launch_pipeline_execution"] is may


@pytest.mark.parametrize("who", ["operator", "admin"])
def test_no_mutation_by_get(site: Site, who: str):
    client = site.client(who)
    answer = client.get("/graphql", params={"query": f"mutation {{ {ENDED} }}"})
    assert answer.status_code == 405
    assert client.get("/graphql", params={"query": "{ version }"}).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (json.dumps([{"query": "{ version }"}]), "application/json", 400),
        (json.dumps({"query": ["{ version }"]}), "application/json", 400),
        (json.dumps({"query": "{ version }", "variables": [1]}), "application/json", 400),
        (json.dumps({"query": "{ version }", "operationName": 7}), "application/json", 400),
        ("[" * 100_000, "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"\xff", "application/graphql", 400),
        ("null", "application/json", 400),
        ("", "application/json", 400),
        ("{ version }", "application/graphql", 200),
        ("query={version}", "application/x-www-form-urlencoded", 415),
        ("{}", "text/plain", 415),
        (json.dumps({"query": "{ version }", "variables": {"x": "y" * 5_000_000}}), "application/json", 413),
    ],
)
def test_bodies(site: Site, body: bytes | str, kind: str, status: int):
    answer = site.client("admin").post("/graphql?query={version}", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status


@pytest.mark.parametrize("variables", ["[]", "{", "7", "[" * 20_000])
def test_variables_in_the_address(site: Site, variables: str):
    answer = site.client("viewer").get("/graphql", params={"query": "{ version }", "variables": variables})
    assert answer.status_code == 400


def test_websockets_by_role(site: Site):
    with site.client("viewer").websocket_connect("/graphql", subprotocols=["graphql-ws"]) as socket:
        socket.send_json({"type": "connection_init"})
        assert socket.receive_json() == {"type": "connection_ack"}
        for number, text in enumerate([f"mutation {{ {DELETE} }}", "subscription { ...F } mutation M { ...F }"]):
            socket.send_json({"type": "start", "id": str(number), "payload": {"query": text}})
            answer = socket.receive_json()
            assert answer["type"] == "error"
        socket.send_json({"type": "start", "id": "live", "payload": {"query": "subscription { nothing }"}})
        assert "nothing" in str(socket.receive_json()["payload"])


def test_a_subscription_works(site: Site):
    with site.client("viewer").websocket_connect("/graphql", subprotocols=["graphql-ws"]) as socket:
        text = 'subscription { pipelineRunLogs(runId: "none") { __typename } }'
        socket.send_json({"type": "start", "id": "1", "payload": {"query": text}})
        assert socket.receive_json()["payload"]["data"]["pipelineRunLogs"]["__typename"]


@pytest.mark.parametrize(
    "message",
    [
        "nonsense",
        "[]",
        "7",
        '{"type": "start"}',
        '{"type": "start", "payload": 7}',
        '{"type":"start","payload":{"query":7}}',
    ],
)
def test_messages_that_are_none_close_it(site: Site, message: str):
    with site.client("viewer").websocket_connect("/graphql") as socket:
        socket.send_text(message)
        with pytest.raises(WebSocketDisconnect) as caught:
            socket.receive_json()
        assert caught.value.code == 1003


def test_mutations_stand_in_the_audit_log(site: Site):
    variables = {"id": "secret-in-a-variable", "params": {"runId": "named"}}
    text = f"mutation($id: String) {{ a: {ENDED} setNuxSeen }}"
    site.client("operator").post("/graphql", json={"query": text, "variables": variables})
    post(site, "viewer", f"mutation {{ {DELETE} }}")
    post(site, "viewer", "{ version }")
    newest = [(row.actor, row.action, row.object, row.outcome) for row in site.audit(2)]
    assert newest == [
        ("viewer", "graphql deleteRun", None, "refused"),
        ("operator", "graphql terminateRun", "runId=named", "failed"),
    ]
