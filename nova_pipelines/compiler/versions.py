"""Versions of a workflow: listed, compared as texts, and published again."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import yaml
from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.database.nova import Workflow, WorkflowVersion


@dataclass(frozen=True, slots=True)
class Difference:
    """Two definitions compared. `text`: a unified diff of their canonical forms as YAML; empty: they are equal."""

    old: str
    new: str
    text: str


def list_versions(session: Session, workflow: Workflow) -> list[dict[str, Any]]:
    """Number, time and hash of each version, the newest first; without their definitions."""
    columns = (WorkflowVersion.number, WorkflowVersion.created_at, WorkflowVersion.sha256)
    query = select(*columns, WorkflowVersion.source_format.label("format"))
    query = query.where(WorkflowVersion.workflow_id == workflow.id).order_by(WorkflowVersion.number.desc())
    return [
        {"number": row.number, "created_at": row.created_at, "sha256": row.sha256, "format": row.format}
        for row in session.execute(query)
    ]


def difference(old_name: str, old: dict[str, Any], new_name: str, new: dict[str, Any]) -> Difference:
    """What changed from one canonical definition to another."""
    lines = difflib.unified_diff(as_yaml(old).splitlines(), as_yaml(new).splitlines(), old_name, new_name, lineterm="")
    return Difference(old_name, new_name, "\n".join(lines))


def as_yaml(definition: dict[str, Any]) -> str:
    """The canonical form of a definition as YAML; code keeps its lines."""
    return yaml.dump(definition, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


class _Dumper(yaml.SafeDumper):
    pass


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    # the types of PyYAML are incomplete here
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)  # pyright: ignore[reportUnknownMemberType]


_Dumper.add_representer(str, _text)
