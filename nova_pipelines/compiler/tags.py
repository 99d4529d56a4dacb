"""What a run says of itself: the names of its tags, and the configuration that gives it its executions.

Known to those who ask for runs, with Dagster in their process or without.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TAG_WORKFLOW, TAG_VERSION, TAG_CLIENT, TAG_BATCH = "nova/workflow", "nova/version", "nova/client", "nova/batch"
#: the key under which executions are kept for a run; Dagster's sensors make one run for each
RUN_KEY = "dagster/run_key"


def run_config(start: str, executions: Sequence[int]) -> dict[str, Any]:
    """The configuration of a run that carries these executions. `start`: the name of the job's first step."""
    return {"ops": {start: {"config": {"executions": list(executions)}}}}


def run_tags(executions: Sequence[int], slug: str | None) -> dict[str, str]:
    """How many executions a run carries and for which client, as tags."""
    return {TAG_BATCH: str(len(executions)), TAG_CLIENT: slug or "none"}
