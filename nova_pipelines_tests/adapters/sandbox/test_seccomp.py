"""The seccomp program, run by a small interpreter of classic BPF: so that the filter of the other machine is tested
too. What the kernel makes of this machine's is the business of the battery."""

from __future__ import annotations

import errno
import struct

import pytest
from system_calls import syscalls

from nova_pipelines.adapters.sandbox import seccomp
from nova_pipelines.domain.errors import ConfigurationError

MACHINES = sorted(seccomp.MACHINES)
ALLOWED = "allowed"
NEW_USER, THREAD, FORK = 0x10000000, 0x003D0F00, 0x01200011


def judge(machine: str, number: int, *arguments: int, audit: int | None = None) -> object:
    """The errno that the program answers with, or ALLOWED."""
    words = [number & 0xFFFFFFFF, seccomp.MACHINES[machine].audit if audit is None else audit, 0, 0]
    for argument in (*arguments, *[0] * (6 - len(arguments))):
        words += [argument & 0xFFFFFFFF, argument >> 32 & 0xFFFFFFFF]
    program = list(struct.iter_unpack("<HBBI", seccomp.program(machine)))
    place = accumulator = 0
    while True:
        code, yes, no, value = program[place]
        place += 1
        if code == seccomp.LOAD:
            accumulator = words[value // 4]
        elif code == seccomp.RETURN:
            return ALLOWED if value == seccomp.ALLOW else value & 0xFFFF
        else:
            tests = {
                seccomp.EQUAL: accumulator == value,
                seccomp.AT_LEAST: accumulator >= value,
                seccomp.ANY_BIT: bool(accumulator & value),
            }
            place += yes if tests[code] else no


def number(machine: str, name: str) -> int:
    return seccomp.numbers(machine)[name]


@pytest.fixture(params=MACHINES)
def machine(request):
    return request.param


def test_every_name_is_a_system_call_of_linux():
    known = set(syscalls().names())
    assert {name for name, _ in seccomp.rules()} <= known


def test_the_numbers_agree_with_the_kernels_own_words():
    # from the kernel's syscall_64.tbl and asm-generic/unistd.h
    assert {name: number("x86_64", name) for name in ("unshare", "ptrace", "bpf")} == {
        "unshare": 272,
        "ptrace": 101,
        "bpf": 321,
    }
    assert {name: number("aarch64", name) for name in ("unshare", "ptrace", "bpf")} == {
        "unshare": 97,
        "ptrace": 117,
        "bpf": 280,
    }


def test_denied_and_absent_calls(machine):
    table = seccomp.numbers(machine)
    for names, answer in ((seccomp.DENIED, errno.EPERM), (seccomp.ABSENT, errno.ENOSYS)):
        there = [name for name in names if name in table]
        assert len(there) >= len(names) - 8
        assert {name: judge(machine, table[name]) for name in there} == dict.fromkeys(there, answer)


def test_all_other_known_calls_pass(machine):
    table = seccomp.numbers(machine)
    ruled = {name for name, _ in seccomp.rules()}
    others = {name: n for name, n in table.items() if name not in ruled and n < seccomp.FIRST_UNKNOWN}
    assert len(others) > 200
    assert {name for name, n in others.items() if judge(machine, n) != ALLOWED} == set()


@pytest.mark.parametrize("late", [457, 470, 511, 4000, 0x40000000, 0x40000000 | 39, 0xFFFFFFFF])
def test_calls_younger_than_the_filter_are_absent(machine, late):
    assert judge(machine, late) == errno.ENOSYS


@pytest.mark.parametrize("audit", [0x40000003, 0x40000028, 0xC00000F3, 0])
def test_another_machines_calls_are_absent(machine, audit):
    assert judge(machine, number(machine, "getpid"), audit=audit) == errno.ENOSYS


def test_clone_by_its_flags(machine):
    clone = number(machine, "clone")
    assert judge(machine, clone, THREAD) == ALLOWED
    assert judge(machine, clone, FORK) == ALLOWED
    for bit in (0x20000, 0x2000000, 0x4000000, 0x8000000, NEW_USER, 0x20000000, 0x40000000):
        assert judge(machine, clone, FORK | bit) == errno.EPERM


@pytest.mark.parametrize("name", ["socket", "socketpair"])
def test_sockets_by_family(machine, name):
    families = {family: judge(machine, number(machine, name), family, 1) for family in range(50)}
    assert {family for family, answer in families.items() if answer == ALLOWED} == {1, 2, 10, 16}
    assert set(families.values()) == {ALLOWED, errno.EAFNOSUPPORT}


def test_only_the_caller_itself(machine):
    for name in ("prlimit64", "sched_setaffinity", "sched_setscheduler"):
        assert judge(machine, number(machine, name), 0, 7) == ALLOWED
        assert judge(machine, number(machine, name), 1, 7) == errno.EPERM
    priority = number(machine, "setpriority")
    answers = [judge(machine, priority, which, who) for which, who in ((0, 0), (0, 1), (1, 0), (2, 0))]
    assert answers == [ALLOWED, errno.EPERM, errno.EPERM, errno.EPERM]


def test_terminals_and_personalities(machine):
    ioctl, personality = number(machine, "ioctl"), number(machine, "personality")
    assert judge(machine, ioctl, 0, 0x5401) == ALLOWED
    # the kernel takes 32 bits of the command
    assert {judge(machine, ioctl, 0, word) for word in (0x5412, 0x541C, 0x100005412)} == {errno.EPERM}
    assert [judge(machine, personality, word) for word in (0, 0xFFFFFFFF, 8)] == [ALLOWED, ALLOWED, errno.EPERM]


def test_a_machine_without_a_table_names_the_alternatives():
    with pytest.raises(ConfigurationError, match=r"no table of system calls for sparc64.*NOVA_SANDBOX=e2b"):
        seccomp.program("sparc64")
