"""The self-test comes before the first session, once; another process believes only a mark of the same protections."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nova_pipelines.adapters.sandbox import self_test, tested
from nova_pipelines.adapters.sandbox.local import LocalSandbox
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines_tests.adapters.sandbox.test_isolation import weaken


@pytest.fixture
def tests(monkeypatch):
    """Counts the self-tests; the process has passed none yet."""
    runs = []
    original = self_test.probe
    monkeypatch.setattr(self_test, "probe", lambda *arguments: runs.append(1) or original(*arguments))
    monkeypatch.setattr(tested, "_passed", set())
    return runs


def test_once_in_a_process(tests):
    LocalSandbox().session().close()
    LocalSandbox().session(network=True).close()
    assert len(tests) == 1


def test_another_process_takes_the_mark(tests, tmp_path, monkeypatch):
    LocalSandbox(state_folder=tmp_path).session().close()
    monkeypatch.setattr(tested, "_passed", set())
    LocalSandbox(state_folder=tmp_path).session().close()
    assert len(tests) == 1
    LocalSandbox(state_folder=tmp_path / "elsewhere").session().close()
    assert len(tests) == 1  # by now this process knows


def test_a_really_other_process_takes_it(tmp_path):
    code = f"""
from pathlib import Path
from nova_pipelines.adapters.sandbox import self_test
from nova_pipelines.adapters.sandbox.local import LocalSandbox
runs = []
original = self_test.probe
self_test.probe = lambda *arguments: runs.append(1) or original(*arguments)
LocalSandbox(state_folder=Path({str(tmp_path)!r})).session().close()
print(len(runs))
"""
    said = [subprocess.check_output([sys.executable, "-c", code], text=True).strip() for _ in range(2)]
    assert said == ["1", "0"]


@pytest.mark.parametrize("change", ["boot", "mode", "garbage", "other settings"])
def test_a_mark_that_does_not_fit_counts_for_nothing(tests, tmp_path, monkeypatch, change):
    LocalSandbox(state_folder=tmp_path).session().close()
    monkeypatch.setattr(tested, "_passed", set())
    sandbox = LocalSandbox(state_folder=tmp_path)
    file = tmp_path / tested.FILE
    if change == "boot":
        original = Path.read_text
        monkeypatch.setattr(Path, "read_text", lambda path: "other" if path.name == "boot_id" else original(path))
    elif change == "mode":
        file.chmod(0o666)
    elif change == "garbage":
        file.write_text("{")
    else:
        sandbox = LocalSandbox(state_folder=tmp_path, tmp_bytes=1_000_000)
    sandbox.session().close()
    assert len(tests) == 2


def test_a_weaker_sandbox_is_tested_anew_and_refused(tests, tmp_path, monkeypatch):
    LocalSandbox(state_folder=tmp_path).session().close()
    weaken(monkeypatch, without="--seccomp", words=2)
    with pytest.raises(ConfigurationError, match=r"does not protect.*seccomp"):
        LocalSandbox(state_folder=tmp_path).session()
    assert len(json.loads((tmp_path / tested.FILE).read_text())["passed"]) == 1


def test_doctor_always_tests(tests, tmp_path):
    sandbox = LocalSandbox(state_folder=tmp_path)
    assert sandbox.check() == sandbox.check()
    assert len(tests) == 2
