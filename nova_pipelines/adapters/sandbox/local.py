"""The local sandbox: a zygote inside bubblewrap, with a uid of its own, no network and a sized tmpfs."""

from __future__ import annotations

import functools
from collections.abc import Mapping

from nova_pipelines.adapters.sandbox import bubblewrap, self_test
from nova_pipelines.adapters.sandbox.zygote import Launcher, ZygoteSession, busy
from nova_pipelines.domain.errors import ConfigurationError, NovaError

PROCESSES = 64
PRELOAD = ("pypdfium2", "decimal", "datetime", "re")


class LocalSandbox:
    """Needs Linux with namespaces. `tmp_bytes` bounds all that the jobs of a session have on disk at once.

    A session dies with the *thread* that opened it (that is what the kernel's parent-death signal follows):
    open it in the thread that uses it.
    """

    name = "local"

    def __init__(self, *, tmp_bytes: int = 256 * 1024 * 1024, preload: tuple[str, ...] = PRELOAD) -> None:
        self.tmp_bytes = tmp_bytes
        self.preload = preload

    def session(
        self, *, network: bool = False, life_seconds: float = 3600.0, metadata: Mapping[str, str] | None = None
    ) -> ZygoteSession:
        """See Sandbox.session. A local session costs nothing, so `life_seconds` does not bound it."""
        return ZygoteSession(functools.partial(self._launcher, network))

    def _launcher(self, network: bool) -> Launcher:
        bwrap = bubblewrap.bwrap_path()
        slot = bubblewrap.take_slot()
        return Launcher(
            backend=self.name,
            command=lambda control: bubblewrap.command(
                bwrap, slot, network=network, tmp_bytes=self.tmp_bytes, preload=self.preload, control=control
            ),
            environment={},
            processes=PROCESSES,
            explain=_explain,
            release=slot.release,
        )

    def check(self) -> list[str]:
        """See Sandbox.check: escapes are really tried, in a session like any other."""
        return self_test.check(self, PROCESSES)


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
    return ConfigurationError(
        f"the local sandbox cannot start here: {said or 'no reason given'}{why}", remedy=bubblewrap.REMEDY
    )
