"""Who may send which GraphQL to Dagster. Every mutation of Dagster's schema stands here; what does not is refused.

A document is judged as a whole: all its operations (whichever `operationName` picks), through aliases, inline
fragments and fragments.
"""

from __future__ import annotations

from collections.abc import Iterator

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
)

from nova_pipelines.domain.roles import Role, includes
from nova_pipelines.web.access import Refusal

#: the UI's documents have some 4,000 tokens and 20 levels; deeper ones would exhaust the interpreter's stack
MAX_TOKENS, MAX_DEPTH, MAX_BYTES = 20_000, 50, 4 * 1024 * 1024

#: what it says of the UI, and nothing else
_VIEWER = ("logTelemetry", "setNuxSeen")
#: runs are begun and ended, sensors and schedules switched on and off; nothing is lost by any of it
_OPERATOR = (
    *("launchRun", "launchPipelineExecution", "launchMultipleRuns"),
    *("launchRunReexecution", "launchPipelineReexecution"),
    *("launchPartitionBackfill", "reexecutePartitionBackfill", "resumePartitionBackfill", "cancelPartitionBackfill"),
    *("terminateRun", "terminateRuns", "terminatePipelineExecution"),
    *("startSensor", "stopSensor", "resetSensor", "sensorDryRun"),
    *("startSchedule", "stopRunningSchedule", "resetSchedule", "scheduleDryRun"),
    "setAutoMaterializePaused",
)
#: something is deleted, forged, loaded anew, or takes away what protects others
_ADMIN = (
    *("deleteRun", "deletePipelineRun", "wipeAssets"),
    *("addDynamicPartition", "deleteDynamicPartitions"),
    *("setConcurrencyLimit", "deleteConcurrencyLimit", "freeConcurrencySlots", "freeConcurrencySlotsForRun"),
    *("reloadWorkspace", "reloadRepositoryLocation", "shutdownRepositoryLocation", "refreshComponentState"),
    *("reportRunlessAssetEvents", "reportAssetCheckEvaluations"),
    *("setSensorCursor", "setAppManagedComponent", "deleteAppManagedComponent"),
)
#: mutation → the role that it needs
MUTATIONS: dict[str, Role] = {
    **dict.fromkeys(_VIEWER, "viewer"),
    **dict.fromkeys(_OPERATOR, "operator"),
    **dict.fromkeys(_ADMIN, "admin"),
}


def read_document(text: str) -> DocumentNode | Refusal:
    """The parsed document, or why it is not looked at (400)."""
    deepest = depth = 0
    for character in text:
        if character in "{([":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "})]":
            depth -= 1
    if deepest > MAX_DEPTH:
        return Refusal(400, f"the document is nested more than {MAX_DEPTH} levels deep")
    try:
        return parse(text, max_tokens=MAX_TOKENS, no_location=True)
    except GraphQLError as error:
        return Refusal(400, f"this is no GraphQL document: {error.message[:200]}")


def judge(document: DocumentNode, role: Role, *, may_mutate: bool = True) -> Refusal | None:
    """Why somebody with this role may not send the document; None: they may.

    `may_mutate`: not by GET, which a link on any page would send (GraphQL over HTTP, "GET").
    """
    for operation in _operations(document):
        if operation.operation is not OperationType.MUTATION:
            continue
        if not may_mutate:
            return Refusal(405, "a mutation must be sent by POST")
        for name in _root_fields(operation.selection_set, _fragments(document), set()):
            needed = MUTATIONS.get(name)
            if name == "__typename":
                continue
            if needed is None:
                return Refusal(403, f"the mutation {name[:80]} is not known here")
            if not includes(role, needed):
                return Refusal(403, f"{name} needs the role {needed}; you have {role}")
    return None


def mutations_of(document: DocumentNode) -> list[str]:
    """The names of all mutations that the document may do, in order and as often as they stand there."""
    return [
        name
        for operation in _operations(document)
        if operation.operation is OperationType.MUTATION
        for name in _root_fields(operation.selection_set, _fragments(document), set())
        if name != "__typename"
    ]


def _operations(document: DocumentNode) -> list[OperationDefinitionNode]:
    return [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]


def _fragments(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    return {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}


def _root_fields(
    selections: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode], seen: set[str]
) -> Iterator[str]:
    for selection in selections.selections:
        if isinstance(selection, FieldNode):
            yield selection.name.value  # not its alias
        elif isinstance(selection, InlineFragmentNode):
            yield from _root_fields(selection.selection_set, fragments, seen)
        elif isinstance(selection, FragmentSpreadNode):
            name = selection.name.value
            if name in fragments and name not in seen:
                seen.add(name)
                yield from _root_fields(fragments[name].selection_set, fragments, seen)
