"""What an audit found, and its words for the page of an asset check. Knows no table of the databases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TypeVar

import dagster as dg

from nova_pipelines.compiler.report import table

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """Rows that somebody should look at. `note`: as they should be, shown to be seen."""

    title: str
    level: Literal["error", "warning", "note"]
    #: what the reader does about it
    remedy: str
    headers: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


def check_result(found: Iterable[Finding], counts: Mapping[str, int]) -> dg.AssetCheckResult:
    """Passed when nothing but notes was found; one error makes it an ERROR, else it is a WARN.

    `counts`: what was looked at, shown as numbers (and so as plots over time).
    """
    findings = [finding for finding in found if finding.rows]
    errors, warnings = ([finding for finding in findings if finding.level == level] for level in ("error", "warning"))
    metadata: dict[str, Any] = {
        **counts,
        "errors": sum(len(finding.rows) for finding in errors),
        "warnings": sum(len(finding.rows) for finding in warnings),
    }
    for finding in findings:
        text = f"{finding.remedy}\n\n{table(finding.headers, finding.rows)}"
        metadata[f"{finding.title} ({len(finding.rows)})"] = dg.MetadataValue.md(text)
    serious = errors + warnings
    return dg.AssetCheckResult(
        passed=not serious,
        severity=dg.AssetCheckSeverity.ERROR if errors or not serious else dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{finding.title}: {len(finding.rows)}" for finding in serious) or "Nothing to do.",
        metadata=metadata,
    )


def chunks(values: Iterable[T], size: int = 500) -> Iterator[list[T]]:
    """Pieces that fit into one `IN (…)`."""
    remaining = iter(values)
    while piece := list(islice(remaining, size)):
        yield piece
