"""Control groups: which folder is taken, what is written into it, what is said where there is none. A temporary
folder laid out like cgroupfs stands for the real one, as most test machines give none away; where the kernel does,
real processes are moved and killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nova_pipelines.adapters.sandbox import cgroup, local_guest
from nova_pipelines.adapters.sandbox.base import Job, Limits
from nova_pipelines.adapters.sandbox.local import LocalSandbox


def group_folder(folder: Path, controllers="cpu memory pids", given="") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cgroup.controllers").write_text(controllers)
    (folder / "cgroup.subtree_control").write_text(given)
    return folder


@pytest.fixture
def layout(tmp_path, monkeypatch):
    """/proc/self of a process in `unit/app` of a delegated tree; rmdir removes a group as cgroupfs does."""
    root = group_folder(tmp_path / "cgroup fs")
    group_folder(root / "unit", given="memory pids")
    group_folder(root / "unit/app", controllers="", given="")
    proc = tmp_path / "proc"
    proc.mkdir()
    place = str(root).replace(" ", "\\040")
    (proc / "mountinfo").write_text(
        f"22 1 0:20 / /sys rw shared:1 - sysfs sysfs rw\n30 22 0:26 / {place} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n"
    )
    (proc / "cgroup").write_text("4:memory:/old\n0::/unit/app\n")
    monkeypatch.setattr(Path, "rmdir", shutil.rmtree)
    return root, proc


def test_a_group_beside_the_own_one(layout):
    root, proc = layout
    group = cgroup.new_group(72, proc=proc)
    assert group.folder.parent == root / "unit"
    assert (group.folder / "pids.max").read_text() == "72"
    (group.folder / "memory.current").write_text("1000\n")
    group.bound(5000)
    assert (group.folder / "memory.max").read_text() == str(6000 + cgroup.ZYGOTE_BYTES)
    group.take(4711)
    assert (group.folder / "cgroup.procs").read_text() == "4711"
    group.remove()
    assert not group.folder.exists()


def test_controllers_are_switched_on_where_they_are_delegated(layout):
    root, proc = layout
    group_folder(root / "unit", given="cpu")
    cgroup.new_group(1, proc=proc)
    assert (root / "unit/cgroup.subtree_control").read_text() == "+memory +pids"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root, proc: (proc / "cgroup").write_text("4:memory:/old\n"), "in no group of cgroup version 2"),
        (lambda root, proc: (proc / "mountinfo").write_text("22 1 0:20 / /sys rw - sysfs s rw\n"), "is not mounted"),
        (lambda root, proc: group_folder(root / "unit", "hugetlb"), "has no controller memory and pids"),
        (lambda root, proc: (root / "unit/cgroup.subtree_control").unlink(), "is not delegated"),
    ],
)
def test_where_there_is_none_the_reason_is_said(layout, change, said):
    root, proc = layout
    change(root, proc)
    with pytest.raises(cgroup.Unavailable, match=said):
        cgroup.new_group(1, proc=proc)


def test_groups_of_dead_processes_are_swept(layout):
    root, proc = layout
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    dead = group_folder(root / "unit" / f"{cgroup.PREFIX}{child.pid}-ab")
    living = group_folder(root / "unit" / f"{cgroup.PREFIX}{os.getpid()}-ab")
    cgroup.new_group(1, proc=proc)
    assert not dead.exists()
    assert living.exists()


def test_a_session_bounds_its_group_for_each_job_and_gives_it_back(layout, monkeypatch):
    """The guest is real, the group is files: what would have been bounded is read from them."""
    root, proc = layout
    original = cgroup.new_group

    def made(processes):
        group = original(processes, proc=proc)
        (group.folder / "memory.current").write_text("0")
        return group

    monkeypatch.setattr(local_guest.cgroup, "new_group", made)
    sandbox = LocalSandbox(tmp_bytes=1_000_000)
    with sandbox.untested_session() as session:
        assert session.run(Job(limits=Limits(memory_bytes=100_000_000))).ok
        (group,) = (root / "unit").glob(f"{cgroup.PREFIX}*")
        expected = 100_000_000 + 1_000_000 + 16 * 1024 * 1024 + cgroup.ZYGOTE_BYTES
        assert int((group / "memory.max").read_text()) == expected
        zygote = int((group / "cgroup.procs").read_text())
        # the process in the group is the guest itself: the only one with our guest's command line and PID 1 inside
        status = Path(f"/proc/{zygote}/status").read_text()
        assert next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")) == "1"
    assert list((root / "unit").glob(f"{cgroup.PREFIX}*")) == []


def real_group() -> Path:
    """A group in this machine's cgroup2, with or without controllers. Skips where none can be made."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            folder = Path(line.split()[4]) / f"nova-test-{os.getpid()}"
            try:
                folder.mkdir()
            except OSError as error:
                pytest.skip(f"this machine lets the tests make no control group: {error}")
            return folder
    pytest.skip("this machine has no cgroup version 2 mounted")


def test_a_real_group_takes_processes_and_kills_them():
    group = cgroup.Group(real_group())
    try:
        with subprocess.Popen([sys.executable, "-c", "import os, time; os.fork(); time.sleep(600)"]) as process:
            group.take(process.pid)
            assert str(process.pid) in (group.folder / "cgroup.procs").read_text().split()
            group.remove()
            assert process.wait(10) == -signal.SIGKILL
    finally:
        assert not group.folder.exists()
