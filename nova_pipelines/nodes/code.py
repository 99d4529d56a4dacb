"""The kind `action`: a piece of Python that runs in the sandbox with the item's context."""

from __future__ import annotations

import re
import warnings
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nova_pipelines.adapters.sandbox.base import Job, Limits, Outcome
from nova_pipelines.adapters.sandbox.base import Status as SandboxStatus
from nova_pipelines.domain.errors import CodeError
from nova_pipelines.domain.needs import NodeNeeds, needs_of
from nova_pipelines.domain.workflow import Node
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.exposure import exposed
from nova_pipelines.nodes.services import Services
from nova_pipelines.nodes.start import refusal

#: packages of the extra `compat`
_COMPAT = re.compile(r"No module named '(fitz|pymupdf|psycopg2|requests)\b")
#: characters of a job's output that a run's page shows
MAX_PRINTED = 300


def check_code(code: str) -> str:
    """Refuses code that Python cannot parse. Raises ValueError with line and column; nothing is run."""
    if not code.strip():
        raise ValueError("empty: put the Python code of the node here")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in users' strings are no errors
            compile(code, "<node code>", "exec", dont_inherit=True)
    except SyntaxError as error:
        place = f"line {error.lineno or 1} column {error.offset or 1}"
        raise ValueError(f"not valid Python: {error.msg} ({place}): correct the code there") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"Python cannot read this code: {error or type(error).__name__}: simplify it") from None
    return code


Code = Annotated[str, Field(max_length=100_000), AfterValidator(check_code)]


class ActionNode(Node):
    """Runs `code` in the sandbox. What it leaves in the dict `context` goes to the next node.

    `executor` is kept for old files: the sandbox in use is a matter of the installation, not of a file.
    """

    type: Literal["action"]
    code: Code
    executor: Literal["e2b", "local"] = "e2b"


def run_code(node: Node, code: str, item: Item, services: Services) -> Outcome:
    """One job of `code` over the item's context, and over the client's credentials if it exposes them.

    Raises CodeError unless it ended well, and PermanentError when it needs what the client does not allow.
    """
    more = exposed(item.client, services)
    context = more.given(item.context)
    _refuse_needs(node, code, item, context)
    job = Job(code=code, context=context, limits=Limits(wall_seconds=node.timeout, cpu_seconds=node.timeout))
    outcome = more.hidden(services.run_job(job, item.client), item.context)
    if outcome.status is not SandboxStatus.OK or outcome.result is None:
        raise CodeError(outcome.error or f"the code ended as {outcome.status}", remedy=_remedy(outcome))
    return outcome


def _refuse_needs(node: Node, code: str, item: Item, context: dict[str, Any]) -> None:
    """As at the start: a mark may have been taken away since, or another node have removed a key."""
    needs = needs_of(code)
    keys = tuple(key for key in needs.reads if key not in context)
    modules = () if item.client is not None and item.client.allow_network else needs.modules
    if keys or modules:
        raise refusal("the code was not run", [NodeNeeds(node.id, modules, keys)], item.client)


def _remedy(outcome: Outcome) -> str | None:
    if _COMPAT.search(outcome.error or ""):
        return "pip install 'nova-pipelines[compat]' where NOVA runs, or have it in the template of E2B_TEMPLATE_ID"
    printed = (outcome.stderr or outcome.stdout).strip()
    return f"it printed last: {printed[-300:]}" if printed else None


def printed(outcome: Outcome) -> dict[str, str]:
    """What the code printed, for the page of the run: its author looks for it there."""
    text = outcome.stdout.strip()
    return {"printed": text[-MAX_PRINTED:]} if text else {}


def run(node: ActionNode, item: Item, services: Services) -> Result:
    outcome = run_code(node, node.code, item, services)
    return Result(context=outcome.result or {}, code=node.code, metadata=printed(outcome))


def without_effects(node: Node, item: Item) -> bool:
    """Code that has the network may have sent or stored something before a crash: it is never blindly repeated."""
    return not (item.client and item.client.allow_network)


KIND = NodeKind(type="action", model=ActionNode, run=run, repeatable=without_effects, uses_sandbox=True)
