"""The E2B template: what is in it, its build through the SDK against the wire server, and sandboxes made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nova_pipelines.adapters.sandbox import e2b_template
from nova_pipelines.adapters.sandbox.base import Job
from nova_pipelines.adapters.sandbox.e2b import E2BSandbox
from nova_pipelines.adapters.sandbox.e2b_files import TEMPLATE_GUEST, guest_zip
from nova_pipelines.domain.errors import CredentialError, PermanentError
from nova_pipelines_tests.adapters.sandbox.e2b_wire import KEY, E2BWire

ROOT = Path(__file__).parents[3]


def build(key: str = KEY) -> tuple[e2b_template.Built, list[str]]:
    said: list[str] = []
    built = e2b_template.build(key, "nova-pipelines", vcpus=2, memory_mib=512, tell=said.append)
    return built, said


def test_its_packages_have_the_versions_of_the_constraints():
    lines = (ROOT / "constraints.txt").read_text().lower().splitlines()
    pinned = dict(line.split("==") for line in lines)
    assert {name: pinned[name] for name in e2b_template.PACKAGES} == e2b_template.PACKAGES


def test_the_dockerfile_names_everything():
    text = e2b_template.dockerfile()
    for name, version in e2b_template.PACKAGES.items():
        assert f"{name}=={version}" in text
    assert text.startswith("FROM python:3.11")
    assert f"COPY guest.zip {e2b_template.HOME}/{TEMPLATE_GUEST}" in text


def test_the_same_guest_has_the_same_name():
    guest_zip.cache_clear()
    assert guest_zip() == guest_zip.__wrapped__()
    assert re.fullmatch(r"\.nova/guest-[0-9a-f]{16}\.zip", TEMPLATE_GUEST)


def test_a_build_and_a_sandbox_of_it_that_is_sent_no_guest(wire: E2BWire):
    built, said = build()
    (stored,) = wire.templates.built.values()
    assert (built.template_id, built.name) == (stored.id, "nova-pipelines")
    assert (stored.request["cpuCount"], stored.request["memoryMB"]) == (2, 512)
    assert stored.request["fromImage"] == "python:3.11"
    assert [step["type"] for step in stored.steps] == ["RUN", "COPY"]
    assert any("2 steps" in line for line in said)
    with E2BSandbox(api_key=KEY, template=built.template_id).session() as session:
        assert session.run(Job(code="context['a'] = 1")).result == {"a": 1}
    assert "guest.zip" not in wire.writes
    assert wire.creates[0]["templateID"] == built.template_id


def test_a_template_of_an_older_guest_is_sent_the_new_one(wire: E2BWire, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(e2b_template, "TEMPLATE_GUEST", ".nova/guest-0000000000000000.zip")
    built, _ = build()
    with E2BSandbox(api_key=KEY, template=built.template_id).session() as session:
        assert session.run(Job()).ok
    assert wire.writes.count("guest.zip") == 1


def test_a_build_that_fails_says_why(wire: E2BWire):
    wire.templates.fail_next = "pip: no matching distribution"
    with pytest.raises(PermanentError, match="no matching distribution"):
        build()


def test_a_build_with_a_wrong_key(wire: E2BWire):
    with pytest.raises(CredentialError, match="E2B_API_KEY"):
        build("e2b_wrong")
