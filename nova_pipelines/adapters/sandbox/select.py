"""Chooses the backend by its name. Never falls back from one to another."""

from __future__ import annotations

from pathlib import Path

from nova_pipelines.adapters.sandbox.base import Sandbox
from nova_pipelines.adapters.sandbox.e2b_gate import Gate
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.domain.rates import SandboxRates


def sandbox_for(
    kind: str,
    *,
    e2b_api_key: str | None,
    e2b_template: str | None,
    e2b_rates: SandboxRates | None = None,
    e2b_gate: Gate | None = None,
    e2b_max_life_seconds: float = 3600.0,
    state_folder: Path | None = None,
) -> Sandbox:
    """`local` (which remembers its self-test in `state_folder`), `e2b` or `unsafe-subprocess`.

    Raises ConfigurationError for another name or a missing key.
    """
    if kind == "local":
        from nova_pipelines.adapters.sandbox.local import LocalSandbox

        return LocalSandbox(state_folder=state_folder)
    if kind == "e2b":
        from nova_pipelines.adapters.sandbox.e2b import E2BSandbox

        return E2BSandbox(
            api_key=e2b_api_key,
            template=e2b_template,
            rates=e2b_rates,
            gate=e2b_gate,
            max_life_seconds=e2b_max_life_seconds,
        )
    if kind == "unsafe-subprocess":
        from nova_pipelines.adapters.sandbox.unsafe_subprocess import UnsafeSubprocess

        return UnsafeSubprocess()
    raise ConfigurationError(f"NOVA_SANDBOX={kind!r} is no sandbox", remedy="use local, e2b or unsafe-subprocess")
