"""The self-test of the local sandbox: tries real escapes from inside and refuses when one succeeds."""

from __future__ import annotations

import secrets
import socket
import tempfile
from typing import TYPE_CHECKING

from nova_pipelines.adapters.sandbox import seccomp
from nova_pipelines.adapters.sandbox.base import Job, Limits
from nova_pipelines.adapters.sandbox.bubblewrap import ENVIRONMENT, REMEDY
from nova_pipelines.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from nova_pipelines.adapters.sandbox.local import LocalSandbox

LIMITS = Limits(wall_seconds=20, cpu_seconds=10, memory_bytes=512 * 1024 * 1024, disk_bytes=1024 * 1024)
#: each line of `context` is True when the protection held
PROBES = """
import ctypes, os, socket, _thread
ask = dict(context)
context.clear()

def refused(action):
    try:
        action()
    except OSError:
        return True
    return False

def write(path, size):
    with open(path, "wb") as stream:
        stream.write(b"x" * size)

def process_bomb(most):
    # threads count like processes, and are quicker to make
    wait = _thread.allocate_lock()
    wait.acquire()
    _thread.stack_size(64 * 1024)
    for number in range(most):
        try:
            _thread.start_new_thread(wait.acquire, ())
        except RuntimeError:
            return number > 0
    return False

def filtered(number, *arguments):
    ctypes.set_errno(0)
    return ctypes.CDLL(None, use_errno=True).syscall(number, *arguments) == -1 and ctypes.get_errno() in (1, 38)

def memory():
    try:
        bytearray(ask["memory"] * 2)
    except MemoryError:
        return True
    return False

status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
context["no host network"] = refused(lambda: socket.create_connection(("127.0.0.1", ask["port"]), 2))
abstract = socket.socket(socket.AF_UNIX)
context["no abstract sockets of the host"] = refused(lambda: abstract.connect("\\0" + ask["abstract"]))
context["files of the host hidden"] = not os.path.lexists(ask["file"])
context["system read-only"] = refused(lambda: write("/usr/lib/nova-probe", 1)) and refused(
    lambda: write("/nova-probe", 1)) and refused(lambda: write("/dev/nova-probe", 1))
context["processes of the host hidden"] = sum(name.isdigit() for name in os.listdir("/proc")) <= 2
context["clean environment"] = set(os.environ) <= set(ask["environment"])
context["uid of its own"] = 0 not in os.getresuid() + os.getresgid()
context["no capabilities"] = all(int(status[name], 16) == 0 for name in ("CapEff", "CapPrm", "CapAmb", "CapInh"))
context["no new privileges"] = status["NoNewPrivs"].strip() == "1"
context["seccomp in force"] = status["Seccomp"].strip() == "2"
context["system calls filtered"] = all(filtered(*call) for call in ask["calls"])
context["zygote closed"] = refused(lambda: os.listdir("/proc/1/fd"))
context["file size limited"] = refused(lambda: write("big", ask["disk"] * 2))
context["memory limited"] = memory()
context["processes limited"] = process_bomb(ask["processes"] * 2)
"""


#: each succeeds for an ordinary process on most kernels: a new user namespace, a keyring, a file in memory
CALLS: tuple[tuple[str, *tuple[int, ...]], ...] = (
    ("unshare", 0x10000000),
    ("keyctl", 0, 0xFFFFFFFD, 1),
    ("memfd_create", 0, 0),
)


def probe(sandbox: LocalSandbox, processes: int) -> list[str]:
    """The protections that held, as short lines. Raises ConfigurationError with the first hole, or none can start."""
    marker = secrets.token_hex(16)
    numbers = seccomp.numbers()
    with (
        tempfile.NamedTemporaryFile() as file,
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        sandbox.untested_session() as session,
    ):
        file.write(marker.encode())
        abstract.bind("\0" + marker)
        abstract.listen()
        ask = {
            "port": listener.getsockname()[1],
            "abstract": marker,
            "file": file.name,
            "environment": [*ENVIRONMENT, "PWD", "TMPDIR", "LC_CTYPE"],
            "memory": LIMITS.memory_bytes,
            "disk": LIMITS.disk_bytes,
            "processes": processes,
            "calls": [[numbers[name], *arguments] for name, *arguments in CALLS],
        }
        outcome = session.run(Job(code=PROBES, context=ask, limits=LIMITS))
    if not outcome.ok or outcome.result is None:
        raise ConfigurationError(f"the self-test of the local sandbox failed: {outcome.error}", remedy=REMEDY)
    holes = [name for name, held in outcome.result.items() if held is not True]
    if holes:
        raise ConfigurationError(
            f"the local sandbox does not protect this machine; it fails at: {'; '.join(holes)}", remedy=REMEDY
        )
    return list(outcome.result)
