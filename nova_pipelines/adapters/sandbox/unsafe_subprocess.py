"""No sandbox: the same guest as a plain subprocess with limits. Only for those who ask for it by name."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from nova_pipelines.adapters.sandbox.bubblewrap import ENVIRONMENT, GUEST_FOLDER, START, package_paths
from nova_pipelines.adapters.sandbox.zygote import Launcher, ZygoteSession, busy
from nova_pipelines.domain.errors import ConfigurationError, NovaError

PRELOAD = ("pypdfium2", "decimal", "datetime", "re")


class UnsafeSubprocess:
    """Code of a node can read what this user can read, and use the network whatever is asked."""

    name = "unsafe-subprocess"

    def session(
        self, *, network: bool = False, life_seconds: float = 3600.0, metadata: Mapping[str, str] | None = None
    ) -> ZygoteSession:
        """See Sandbox.session. `network` and `life_seconds` are not enforced: there is no protection."""
        return ZygoteSession(self._launcher)

    def _launcher(self) -> Launcher:
        # the guest removes it when it ends, also when this process is killed
        base = tempfile.mkdtemp(prefix="nova-unsafe-")
        return Launcher(
            backend=self.name,
            command=lambda control: _command(control, base),
            environment=ENVIRONMENT | {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": base},
            # RLIMIT_NPROC would count everything that this user runs
            processes=None,
            explain=_explain,
            # once more, in case that a job killed the guest
            release=lambda: shutil.rmtree(base, ignore_errors=True),
        )

    def check(self) -> list[str]:
        """Says what there is not."""
        return ["NO PROTECTION: node code runs as this user, with its files and its network"]


def _command(control: int, base: str) -> list[str]:
    options = {
        "control": control,
        "base": base,
        "sweep": [base],
        "own_base": True,
        "paths": [str(path) for path in package_paths(PRELOAD)],
        "preload": list(PRELOAD),
        "drop": None,
    }
    folder = str(Path(GUEST_FOLDER).parent)
    arguments = ("-I", "-S", "-B", "-X", "utf8", "-c", START, folder, "zygote", json.dumps(options))
    return [sys.executable, *arguments]


def _explain(said: str) -> NovaError:
    return busy(said) or ConfigurationError(f"the subprocess for node code cannot start: {said}")
