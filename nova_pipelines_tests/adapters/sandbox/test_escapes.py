"""The battery of escapes: all of it as root and as an ordinary user, and parts of it against sandboxes that were
weakened on purpose, which shows that the checks can fail."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from nova_pipelines.adapters.sandbox import bubblewrap
from nova_pipelines.adapters.sandbox.local import LocalSandbox
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines_tests.adapters.sandbox.escapes import all_checks, battery
from nova_pipelines_tests.adapters.sandbox.test_isolation import python_as_ordinary_user, weaken


def named(*names):
    chosen = [check for check in all_checks() if check.name in names]
    assert {check.name for check in chosen} == set(names)
    return chosen


def test_the_battery_is_complete():
    names = [check.name for check in all_checks()]
    assert len(names) == len(set(names)) >= 80


def test_every_escape_is_stopped_as_this_user():
    """Root, where the tests run as root."""
    assert battery(LocalSandbox()) == {}


def test_every_escape_is_stopped_as_an_ordinary_user():
    done = python_as_ordinary_user("""
        import json, os
        from nova_pipelines.adapters.sandbox.local import LocalSandbox
        from nova_pipelines_tests.adapters.sandbox.escapes import battery
        assert os.getuid() != 0
        print(json.dumps(battery(LocalSandbox())))
    """)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {}


#: what an open protection lets through. Kernels differ in what they allow by themselves, so these are the certain ones
SECCOMP_ALONE = (
    *("io_uring", "keyrings", "userfaultfd", "memory outside of processes", "messages to the next job", "ptrace"),
    *("foreign system calls", "other socket families", "limits of the zygote", "memory of other processes"),
    *("perf_event", "machine and clock"),
)


def test_without_seccomp_the_battery_finds_holes(monkeypatch):
    weaken(monkeypatch, without="--seccomp", words=2)
    names = (*SECCOMP_ALONE, "namespaces by unshare") if os.getuid() == 0 else SECCOMP_ALONE
    found = battery(LocalSandbox(), named(*names))
    closed_by_the_kernel = {"io_uring", "userfaultfd", "perf_event"}  # by sysctl, on some machines
    assert set(found) >= set(names) - closed_by_the_kernel


def test_without_seccomp_the_self_test_refuses(monkeypatch):
    weaken(monkeypatch, without="--seccomp", words=2)
    with pytest.raises(ConfigurationError, match=r"seccomp in force; system calls filtered.*NOVA_SANDBOX=e2b"):
        LocalSandbox().session()


def test_with_the_hosts_network_the_battery_finds_holes(monkeypatch):
    weaken(monkeypatch, without="--unshare-net")
    names = ("loopback TCP", "UDP", "abstract socket")
    assert set(battery(LocalSandbox(), named(*names))) == set(names)


def test_with_the_hosts_files_the_battery_finds_holes(monkeypatch):
    folders = [
        word for name in ("/var", "/sys") for word in ("--perms", "0755", "--dir", name, "--ro-bind", name, name)
    ]
    weaken(monkeypatch, without="--proc", instead=[*folders, "--proc"])
    names = ("files of the host", "/sys")
    assert set(battery(LocalSandbox(), named(*names))) == set(names)


def test_without_a_limit_of_processes_the_battery_finds_it(monkeypatch):
    monkeypatch.setattr("nova_pipelines.adapters.sandbox.local.PROCESSES", 1000)
    assert set(battery(LocalSandbox(), named("fork bomb, counted"))) == {"fork bomb, counted"}


def test_without_the_gauge_the_battery_finds_holes(monkeypatch, tmp_path):
    guest = tmp_path / "guest"
    shutil.copytree(bubblewrap.GUEST_FOLDER, guest)
    gauge = guest / "gauge.py"
    blinded = gauge.read_text().replace("word = self.look()", "word = None")
    assert blinded != gauge.read_text()
    gauge.write_text(blinded)
    for folder in (guest, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    monkeypatch.setattr(bubblewrap, "GUEST_FOLDER", guest)
    checks = named("memory bomb in many processes", "CPU in many processes", "disk by deleted files")
    quick = [
        type(check)(check.name, check.code.replace("sleep(30)", "sleep(1)"), check.statuses, check.limits)
        for check in checks
    ]
    assert set(battery(LocalSandbox(), quick)) == {check.name for check in checks}
