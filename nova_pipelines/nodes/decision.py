"""The kind `decision`: code in the sandbox, or a CEL expression evaluated here, chooses the item's way."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from nova_pipelines.domain.errors import CodeError
from nova_pipelines.domain.workflow import Node, condition_name
from nova_pipelines.nodes.base import Item, NodeKind, Result
from nova_pipelines.nodes.cel_engine import compile_expression
from nova_pipelines.nodes.code import Code, printed, run_code, without_effects
from nova_pipelines.nodes.services import Services

#: the key by which old files decide
OLD_KEY = "branch_decision"
#: these run over the items of a list, one within the other for each pair of them: one is enough for a
#: decision. The bare word is looked for, since a comment may stand between it and its bracket
_MACRO = re.compile(r"\b(?:map|filter|all|exists|exists_one)\b")
#: the first place in cel's error text
_CEL_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")


@lru_cache(maxsize=256)
def _program(expression: str) -> Any:
    return compile_expression(expression)


def check_expression(expression: str) -> str:
    """Refuses what is no CEL expression, or could run for very long. Raises ValueError."""
    if len(_MACRO.findall(expression)) > 1:
        raise ValueError("more than one of map, filter, all, exists, exists_one: decide by `code` instead")
    if max(expression.count("("), expression.count("[")) > 50:
        raise ValueError("nested too deeply: simplify it")
    try:
        _program(expression)
    except ValueError as error:
        # the text begins with the expression itself, which is a user's and may hold anything
        found = _CEL_PLACE.search(str(error).replace(expression, "", 1))
        what = f"{found[3]} (line {found[1]} column {found[2]})" if found else "it cannot be read"
        raise ValueError(f"not a CEL expression: {what}: correct it there") from None
    return expression


Expression = Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(check_expression)]


class DecisionNode(Node):
    """Chooses between the conditions of its edges.

    Either `code`, which sets `context['branch_decision']` (true or false) or `context[<id of this node>]`
    (a boolean or a string), or `expression` in CEL over `context`. Strings are compared in lower case.
    """

    ways: ClassVar[frozenset[str] | None] = None
    one_of = (("code",), ("expression",))

    type: Literal["decision"]
    code: Code | None = None
    expression: Expression | None = None
    executor: Literal["e2b", "local"] = "e2b"


def evaluate(expression: str, context: dict[str, Any]) -> Any:
    """The value of a CEL expression over `context`. Raises CodeError with the reason."""
    try:
        return _program(expression).execute({"context": context})
    except (ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        reason = f"there is no {error} in the context" if isinstance(error, KeyError) else str(error)
        raise CodeError(
            f"the expression `{expression}` failed: {reason}", remedy="test with has(…) what may be missing"
        ) from None


def run(node: DecisionNode, item: Item, services: Services) -> Result:
    if node.expression is not None:
        chosen = evaluate(node.expression, item.context)
        named = item.context | {"decision": condition_name(chosen)}
        return _result(node, item, named, chosen, node.expression)
    code = node.code or ""
    # a decision left over from an earlier node must not steer this one
    before = {key: value for key, value in item.context.items() if key not in (OLD_KEY, node.id)}
    outcome = run_code(node, code, replace(item, context=before), services)
    context = outcome.result or {}
    if OLD_KEY not in context and node.id not in context:
        raise CodeError(
            f"the decision {node.id!r} decided nothing",
            remedy=f"set context[{OLD_KEY!r}] to True or False, or context[{node.id!r}] to a condition",
        )
    chosen = context[node.id] if node.id in context else context[OLD_KEY]
    return replace(_result(node, item, context, chosen, code), metadata=printed(outcome))


def _result(node: DecisionNode, item: Item, context: dict[str, Any], chosen: Any, code: str) -> Result:
    path = condition_name(chosen)
    if not isinstance(path, str) or path not in item.ways:
        raise CodeError(
            f"the decision {node.id!r} gave {chosen!r:.100}, but its ways are {', '.join(sorted(item.ways))}",
            remedy="correct the decision, or add an edge with this condition",
        )
    return Result(context=context, path=path, decision=path, code=code)


def _repeatable(node: DecisionNode, item: Item) -> bool:
    return node.code is None or without_effects(node, item)


KIND = NodeKind(type="decision", model=DecisionNode, run=run, repeatable=_repeatable, uses_sandbox=True)
