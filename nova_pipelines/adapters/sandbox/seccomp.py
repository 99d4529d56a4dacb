"""The seccomp filter of a guest: system calls that node code never needs and that exploits begin with.

The numbers come from `system-calls` (made from the kernel's own tables); the program is classic BPF over
`struct seccomp_data` as in seccomp(2). bubblewrap installs it before the guest's first instruction.
"""

from __future__ import annotations

import errno
import functools
import platform
import struct
from dataclasses import dataclass

from system_calls import syscalls

from nova_pipelines.domain.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Machine:
    """One architecture: its name in `system-calls`, and its AUDIT_ARCH_ word in <linux/audit.h>."""

    table: str
    audit: int


MACHINES = {"x86_64": Machine("x86_64", 0xC000003E), "aarch64": Machine("arm64", 0xC00000B7)}

#: a newer kernel's calls are as good as absent: from statmount on (the numbers are the same on all machines).
#: All calls of the x32 ABI are above, too: they have bit 30 set.
FIRST_UNKNOWN = 457
NAMESPACES = ("unshare", "setns")
MOUNTS = (
    *("mount", "umount", "umount2", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount", "fspick"),
    *("mount_setattr", "pivot_root", "chroot", "open_by_handle_at", "quotactl", "quotactl_fd", "fanotify_init"),
)
OTHER_PROCESSES = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease"),
    *("kcmp", "pidfd_getfd", "move_pages", "migrate_pages", "ioprio_set"),
)
KERNEL = (
    *("bpf", "perf_event_open", "userfaultfd", "keyctl", "add_key", "request_key"),
    *("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module"),
    *("reboot", "swapon", "swapoff", "acct", "syslog", "vhangup", "sethostname", "setdomainname"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "iopl", "ioperm", "modify_ldt"),
    *("sysfs", "ustat"),
)
#: System V and message queues live as long as the session: a way from one job to the next, and memory without bound
OUTLIVING = ("shmget", "shmat", "shmctl", "semget", "semop", "semctl", "semtimedop", "msgget", "msgctl", "mq_open")
DENIED = (*NAMESPACES, *MOUNTS, *OTHER_PROCESSES, *KERNEL, *OUTLIVING)
#: "not there", so that a library takes its older way: clone3 hides its flags from a filter, the memory of a memfd
#: counts against no limit of a process, io_uring goes past every filter
ABSENT = ("clone3", "memfd_create", "memfd_secret", "io_uring_setup", "io_uring_enter", "io_uring_register")
#: arguments that must be 0, "the caller": the zygote has the same uid as its jobs
SELF_ONLY = {
    "prlimit64": (0,),
    "sched_setaffinity": (0,),
    "sched_setattr": (0,),
    "sched_setparam": (0,),
    "sched_setscheduler": (0,),
    "setpriority": (0, 1),
}
#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (<linux/sched.h>)
CLONE_NAMESPACES = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000
#: AF_UNIX, AF_INET, AF_INET6, AF_NETLINK (for addresses). Others are attack surface, and AF_VSOCK, the way from a
#: virtual machine to its host, knows no network namespace
SOCKET_FAMILIES = (1, 2, 10, 16)
#: TIOCSTI, TIOCLINUX: put words into another one's terminal
TERMINAL_TRICKS = (0x5412, 0x541C)
#: PER_LINUX, and "say what it is"
PERSONALITIES = (0, 0xFFFFFFFF)

NUMBER, ARCHITECTURE = 0, 4  # offsets in seccomp_data
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
INSTRUCTION_BYTES = 8


@functools.cache
def numbers(machine: str | None = None) -> dict[str, int]:
    """System calls by name, of this machine or another one. Raises ConfigurationError where there is no table."""
    name = machine or platform.machine()
    if name not in MACHINES:
        raise ConfigurationError(
            f"the local sandbox has no table of system calls for {name}, only for {', '.join(MACHINES)}",
            remedy="set NOVA_SANDBOX=e2b with E2B_API_KEY, or NOVA_SANDBOX=unsafe-subprocess",
        )
    return syscalls().load_arch_table(MACHINES[name].table)


@functools.cache
def program(machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`. Raises as `numbers`."""
    table = numbers(machine)
    code = [
        _op(LOAD, ARCHITECTURE),
        _op(EQUAL, MACHINES[machine or platform.machine()].audit, 1, 0),
        _refuse(errno.ENOSYS),
        _op(LOAD, NUMBER),
        _op(AT_LEAST, FIRST_UNKNOWN, 0, 1),
        _refuse(errno.ENOSYS),
    ]
    for call, body in rules():
        if call in table:  # some exist on one machine only
            code += [_op(EQUAL, table[call], 0, len(body)), *body]
    return b"".join([*code, _op(RETURN, ALLOW)])


def rules() -> list[tuple[str, list[bytes]]]:
    """Calls, each with its piece of program. Every piece ends by itself: the next one wants the number loaded."""
    allow = _op(RETURN, ALLOW)
    return [
        *((call, [_refuse(errno.EPERM)]) for call in DENIED),
        *((call, [_refuse(errno.ENOSYS)]) for call in ABSENT),
        *((call, _only_zero(arguments)) for call, arguments in SELF_ONLY.items()),
        ("clone", [_argument(0), _op(ANY_BIT, CLONE_NAMESPACES, 0, 1), _refuse(errno.EPERM), allow]),
        ("socket", _one_of(0, SOCKET_FAMILIES, errno.EAFNOSUPPORT)),
        ("socketpair", _one_of(0, SOCKET_FAMILIES, errno.EAFNOSUPPORT)),
        ("personality", _one_of(0, PERSONALITIES, errno.EPERM)),
        ("ioctl", _none_of(1, TERMINAL_TRICKS, errno.EPERM)),
    ]


def _only_zero(arguments: tuple[int, ...]) -> list[bytes]:
    body: list[bytes] = []
    for index in arguments:
        body += [_argument(index), _op(EQUAL, 0, 1, 0), _refuse(errno.EPERM)]
    return [*body, _op(RETURN, ALLOW)]


def _one_of(index: int, values: tuple[int, ...], error: int) -> list[bytes]:
    tests = [_op(EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
    return [_argument(index), *tests, _refuse(error), _op(RETURN, ALLOW)]


def _none_of(index: int, values: tuple[int, ...], error: int) -> list[bytes]:
    tests = [_op(EQUAL, value, len(values) - place, 0) for place, value in enumerate(values)]
    return [_argument(index), *tests, _op(RETURN, ALLOW), _refuse(error)]


def _argument(index: int) -> bytes:
    """Loads the lower half of an argument (both machines are little-endian); the kernel takes these as 32 bits."""
    return _op(LOAD, 16 + 8 * index)


def _refuse(error: int) -> bytes:
    return _op(RETURN, ERRNO | error)


def _op(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; `yes` and `no` count the instructions to skip."""
    return struct.pack("<HBBI", code, yes, no, value)
