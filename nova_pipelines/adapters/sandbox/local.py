"""The local sandbox: a zygote inside bubblewrap, with a uid of its own, a seccomp filter, no network, a sized tmpfs
and, where one can be had, a control group. It is tested before it is used."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path

from nova_pipelines.adapters.sandbox import bubblewrap, cgroup, seccomp, self_test, tested
from nova_pipelines.adapters.sandbox.local_guest import PROCESSES, Guest
from nova_pipelines.adapters.sandbox.zygote import Launcher, ZygoteSession, busy
from nova_pipelines.domain.errors import ConfigurationError, NovaError

PRELOAD = ("pypdfium2", "decimal", "datetime", "re")


class LocalSandbox:
    """Needs Linux with namespaces. `tmp_bytes` bounds all that the jobs of a session have on disk at once;
    `state_folder` (None: nowhere) is where a passed self-test is remembered for other processes.

    A session dies with the *thread* that opened it (that is what the kernel's parent-death signal follows):
    open it in the thread that uses it.
    """

    name = "local"

    def __init__(
        self,
        *,
        tmp_bytes: int = 256 * 1024 * 1024,
        preload: tuple[str, ...] = PRELOAD,
        state_folder: Path | None = None,
    ) -> None:
        self.tmp_bytes = tmp_bytes
        self.preload = preload
        self.state_folder = state_folder

    def session(
        self, *, network: bool = False, life_seconds: float = 3600.0, metadata: Mapping[str, str] | None = None
    ) -> ZygoteSession:
        """See Sandbox.session. A local session costs nothing, so `life_seconds` does not bound it."""
        self._test_once()
        return self.untested_session(network=network)

    def untested_session(self, *, network: bool = False) -> ZygoteSession:
        """A session without the self-test before it: for the self-test."""
        return ZygoteSession(lambda: self._launcher(network))

    def _launcher(self, network: bool) -> Launcher:
        guest = Guest(network=network, tmp_bytes=self.tmp_bytes, preload=self.preload)
        return Launcher(
            backend=self.name,
            command=guest.command,
            environment={},
            processes=PROCESSES,
            explain=_explain,
            release=guest.release,
            fds=guest.fds,
            ready=guest.ready,
            before=guest.before,
        )

    def _test_once(self) -> None:
        """The self-test, unless these very protections have passed it on this machine since it was started."""
        mark = tested.fingerprint(Guest.description(self.tmp_bytes, self.preload))
        if not tested.known(mark, self.state_folder):
            self_test.probe(self, PROCESSES)
            tested.remember(mark, self.state_folder)

    def check(self) -> list[str]:
        """See Sandbox.check: escapes are really tried, in a session like any other."""
        held = self_test.probe(self, PROCESSES)
        tested.remember(tested.fingerprint(Guest.description(self.tmp_bytes, self.preload)), self.state_folder)
        return [*_means(), *held]


def _means() -> list[str]:
    """How the guest is held, beside what the self-test tried."""
    mode = "a real uid of its own" if os.getuid() == 0 else "a user namespace"
    return [
        f"bubblewrap with {mode}",
        f"seccomp filter for {platform.machine()}, {len(seccomp.program()) // seccomp.INSTRUCTION_BYTES} instructions",
        _cgroup_line(),
    ]


def _cgroup_line() -> str:
    try:
        group = cgroup.new_group(PROCESSES)
    except cgroup.Unavailable as error:
        return f"cgroup not available: {error}; the keeper bounds the sum of memory and CPU instead"
    group.remove()
    return f"cgroup bounds memory and processes, below {group.folder.parent}"


def _explain(said: str) -> NovaError:
    """bubblewrap could not start: want of resources passes, the rest is this machine's."""
    if error := busy(said):
        return error
    why = ""
    if said.startswith("bwrap:") and ("not permitted" in said or "denied" in said or "namespace" in said):
        why = (
            "; namespaces are not allowed: a container without privileges, or the kernel forbids them "
            "(user.max_user_namespaces, kernel.unprivileged_userns_clone, AppArmor)"
        )
    elif "seccomp" in said or "prctl" in said:
        why = "; the kernel takes no seccomp filter (CONFIG_SECCOMP_FILTER)"
    return ConfigurationError(
        f"the local sandbox cannot start here: {said or 'no reason given'}{why}", remedy=bubblewrap.REMEDY
    )
