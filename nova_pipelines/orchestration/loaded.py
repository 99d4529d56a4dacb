"""What the code location holds of a workflow."""

from dataclasses import dataclass

from nova_pipelines.compiler.job import Compiled
from nova_pipelines.domain.workflow import Definition


@dataclass(frozen=True, slots=True)
class Loaded:
    """A workflow as it was loaded: its definition and what was compiled from it."""

    definition: Definition
    compiled: Compiled

    @property
    def start(self) -> str:
        return self.compiled.plan.steps[0].name
