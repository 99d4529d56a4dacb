"""The kind `start`: lets an execution begin, or refuses it before any node has done something.

What is refused is code that needs what the execution's client does not allow: the network, or its credentials.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pydantic import Field

from nova_pipelines.domain.errors import PermanentError
from nova_pipelines.domain.needs import ADDRESS_KEYS, CREDENTIAL_KEYS, NodeNeeds, needs_of, unmet
from nova_pipelines.domain.workflow import Definition, StartNode
from nova_pipelines.nodes.base import ClientView, Item, NodeKind, Result
from nova_pipelines.nodes.exposure import exposed
from nova_pipelines.nodes.services import Services

#: nodes that a message names
_NAMED = 10
_RISKS = "docs/workflows.md, 'The old dialect', says what that risks"


class BoundStart(StartNode):
    """A start that knows its workflow. Made for a plan; no file holds one."""

    definition: Definition = Field(repr=False, exclude=True)


def bound(node: StartNode, definition: Definition) -> BoundStart:
    given = {name: getattr(node, name) for name in StartNode.model_fields}
    return BoundStart(**given, definition=definition)


def refuse_unready(
    definition: Definition, client: ClientView | None, context: Mapping[str, Any], available: Collection[str]
) -> None:
    """Refuses an execution whose code needs what its client does not give. Asked before an execution is made, and
    again when it starts, whoever made it.

    `available`: what `exposed_keys` says. Raises PermanentError that names the nodes, the marks and the command.
    """
    network = client is not None and client.allow_network
    found = unmet(definition, network=network, available=available, initial=context)
    if found:
        raise refusal(f"workflow {definition.name!r} cannot start", found, client)
    _refuse_foreign_server(definition, context, available)


def refusal(what: str, found: Sequence[NodeNeeds], client: ClientView | None) -> PermanentError:
    """The error that says what nodes need, what the client lacks for that, and what to do."""
    needs = "; ".join(map(str, found[:_NAMED])) + (f"; and {len(found) - _NAMED} more" if found[_NAMED:] else "")
    if client is None:
        return PermanentError(
            f"{what}: {needs}; and it runs for no client",
            remedy=f"run it for a client that is marked for this: --client SLUG; {_RISKS}",
        )
    keys = {key for node in found for key in node.keys}
    flags = ["--expose-credentials"] if keys and not client.expose_credentials else []
    flags += ["--allow-network"] if any(node.modules for node in found) else []
    if flags:
        lacking = " and ".join(flag.removeprefix("--").replace("-", "_") for flag in flags)
        return PermanentError(
            f"{what}: {needs}; client {client.slug!r} is not marked {lacking}",
            remedy=f"nova client update {client.slug} {' '.join(flags)}; {_RISKS}",
        )
    kinds = [kind for kind, of_kind in CREDENTIAL_KEYS.items() if keys & of_kind]
    return PermanentError(
        f"{what}: {needs}; client {client.slug!r} has no {' and no '.join(kinds)} credential that gives this",
        remedy=f"nova client credentials set {client.slug} {kinds[0]} (see --help)",
    )


def _refuse_foreign_server(definition: Definition, context: Mapping[str, Any], available: Collection[str]) -> None:
    """A first context must not send the client's password to a server of its own choice."""
    read = {key for node in definition.nodes for key in needs_of(getattr(node, "code", None) or "").reads}
    for secret, addresses in ADDRESS_KEYS.items():
        named = sorted(addresses & context.keys())
        if named and secret in read & set(available) and secret not in context:
            raise PermanentError(
                f"the initial context sets {', '.join(named)} but not {secret}: the client's would go to that server",
                remedy=f"give {secret} as well, or leave {', '.join(named)} to the client's credentials",
            )


def run(node: BoundStart, item: Item, services: Services) -> Result:
    has_code = any(getattr(other, "code", None) for other in node.definition.nodes)
    # opened, and not just looked for: what cannot be shown later is said before any node has done something
    available = exposed(item.client, services).values if has_code else {}
    refuse_unready(node.definition, item.client, item.context, available)
    return Result(context=item.context)


KIND = NodeKind(type="start", model=StartNode, run=run)
