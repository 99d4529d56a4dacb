"""The keeper ends everything that its program ever started, however it is asked to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nova_pipelines.cli.keeper import Signals, descendants

#: seconds for what takes a moment; the keeper itself waits 5 before it kills
PATIENCE = 20.0
KEEPER = [sys.executable, "-m", "nova_pipelines.cli.keeper"]
#: starts a child that ignores SIGTERM, has a session of its own and outlives its parent
STUBBORN = """
import os, signal, sys, time
from pathlib import Path
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Path(sys.argv[1]).write_text(str(os.getpid()))
    time.sleep(300)
os.wait()
if len(sys.argv) > 2:
    while not Path(sys.argv[1]).exists():
        time.sleep(0.01)
    sys.exit(int(sys.argv[2]))
time.sleep(300)
"""


def wait_for(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def orphan_file(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "pid"
    yield path
    if path.exists() and is_alive(int(path.read_text())):
        os.kill(int(path.read_text()), signal.SIGKILL)


def start(orphan_file: Path, *more: str, parent: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*KEEPER, str(parent), sys.executable, "-c", STUBBORN, str(orphan_file), *more])


def orphan(path: Path) -> int:
    wait_for(lambda: path.exists() and path.read_text())
    return int(path.read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_family(orphan_file: Path, number: signal.Signals):
    keeper = start(orphan_file)
    stubborn = orphan(orphan_file)
    assert stubborn in descendants(keeper.pid)

    keeper.send_signal(number)

    assert keeper.wait(PATIENCE) == 0
    assert not is_alive(stubborn)


def test_the_end_of_the_program_ends_the_family(orphan_file: Path):
    keeper = start(orphan_file, "7")
    stubborn = orphan(orphan_file)

    assert keeper.wait(PATIENCE) == 7
    assert not is_alive(stubborn)


def test_the_death_of_the_parent_ends_the_family(orphan_file: Path):
    """The parent is killed: it can tell nobody."""
    code = (
        "import os, subprocess, sys, time\n"
        f"keeper = subprocess.Popen([*{KEEPER!r}, str(os.getpid()), sys.executable, '-c', {STUBBORN!r}, sys.argv[1]])\n"
        "print(keeper.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(orphan_file)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        keeper = int(parent.stdout.readline())
        stubborn = orphan(orphan_file)
        parent.kill()

    wait_for(lambda: not is_alive(keeper) and not is_alive(stubborn))


def test_a_parent_that_was_gone_before(orphan_file: Path, tmp_path: Path):
    keeper = start(orphan_file, parent=1)  # this test is its parent

    assert keeper.wait(PATIENCE) == 0


def test_a_program_killed_by_a_signal_has_the_code_of_a_shell():
    done = subprocess.run([*KEEPER, "0", "/bin/sh", "-c", "kill -9 $$"], timeout=PATIENCE)

    assert done.returncode == 137


def test_a_program_that_does_not_exist(capfd: pytest.CaptureFixture[str]):
    done = subprocess.run([*KEEPER, "0", "/no/such/program"], timeout=PATIENCE)

    assert done.returncode == 127
    assert "/no/such/program cannot be started" in capfd.readouterr().err


def test_signals_are_given_back():
    before = signal.getsignal(signal.SIGUSR1)
    signals = Signals(signal.SIGUSR1)
    try:
        assert signals.wait(0) == set()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert signals.wait(PATIENCE) == {signal.SIGUSR1}
    finally:
        signals.close()
    assert signal.getsignal(signal.SIGUSR1) is before
