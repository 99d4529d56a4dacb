"""What the API answers, for its documentation and for tests: answers are made of plain data without passing here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Moment = str
Status = Literal["pending", "running", "completed", "failed", "needs_review", "unknown"]


class Shape(BaseModel):
    """An object with these members, and no others."""

    model_config = ConfigDict(extra="forbid")


class CredentialShape(Shape):
    id: int
    kind: Literal["email", "database"]
    label: str
    is_primary: bool
    settings: dict[str, Any]
    last_success_at: Moment | None
    last_error: str | None


class ClientShape(Shape):
    id: int
    name: str
    slug: str
    email: str | None
    is_active: bool
    sender_whitelist: list[str]
    expose_credentials: bool
    allow_network: bool
    credentials: list[CredentialShape]
    created_at: Moment
    updated_at: Moment


class WorkflowSummary(Shape):
    id: int
    name: str
    job_name: str
    description: str | None
    version: int
    is_active: bool
    created_at: Moment
    updated_at: Moment


class WorkflowShape(WorkflowSummary):
    """`trigger` as in the definition; `graph_definition`: nodes and edges in canonical form."""

    trigger: dict[str, Any] | None
    graph_definition: dict[str, Any]


class VersionSummary(Shape):
    number: int
    created_at: Moment
    sha256: str
    format: Literal["json", "yaml"]


class VersionShape(VersionSummary):
    """`definition` in canonical form; `source`: the text as its author wrote it."""

    definition: dict[str, Any]
    source: str


class DifferenceShape(BaseModel):
    """`diff`: a unified diff of the canonical forms as YAML."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    old: str = Field(alias="from")
    new: str = Field(alias="to")
    equal: bool
    diff: str


class Started(Shape):
    """An execution that was begun. With `?wait=` its status may be another than `pending`."""

    task_id: str
    status: Status
    execution_id: int
    workflow_id: int
    workflow_name: str


class TaskResult(Shape):
    """`status`: of the execution; `context`: what its last successful node left."""

    status: Status
    context: dict[str, Any]


class TaskShape(Shape):
    """`result` is there as soon as the execution has ended or waits for a person (then `status` is `failed`)."""

    task_id: str
    status: Literal["pending", "running", "completed", "failed"]
    result: TaskResult | None
    error: str | None
    execution_id: int


class ExecutionSummary(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    id: int
    task_id: str
    workflow_id: int
    workflow: str
    version: int
    client: str | None
    status: Status
    error: str | None
    failed_node: str | None
    run_id: str | None
    message_id: int | None
    document_ordinal: int | None
    sender: str | None = Field(alias="from")
    subject: str | None
    created_at: Moment
    started_at: Moment | None
    completed_at: Moment | None
    waits_until: Moment | None
    cancelled_at: Moment | None
    cancelled_by: str | None


class ExecutionShape(ExecutionSummary):
    """`context`: the final one, or what the last successful node left."""

    sandbox_seconds: float
    cost_usd: str
    initial_context: dict[str, Any]
    context: dict[str, Any]


class ChainShape(Shape):
    """Rows of the chain of work in order."""

    execution_id: int
    entries: list[dict[str, Any]]
    total: int


class CancelShape(Shape):
    """`run`: `ended` with the execution; `stops` before its next node; `none` had begun."""

    execution_id: int
    status: Status
    run: Literal["ended", "stops", "none"]


class InvoiceSummary(Shape):
    """Amounts are texts: exact decimals."""

    id: int
    client_slug: str
    status: str
    supplier_name: str | None
    supplier_tax_id: str | None
    invoice_number: str | None
    issue_date: str | None
    due_date: str | None
    net_amount: str | None
    tax_amount: str | None
    total_amount: str
    currency: str
    confidence: float | None
    email_from: str | None
    email_subject: str | None
    email_date: Moment | None
    pdf_filename: str | None
    pdf_size_bytes: int | None
    document_sha256: str | None
    ocr_method: str | None
    processed_by_workflow_id: int | None
    processed_by_execution_id: int | None
    processed_by_node_id: str | None
    created_at: Moment
    updated_at: Moment


class InvoiceShape(InvoiceSummary):
    ocr_text: str | None


class MailboxShape(Shape):
    name: str
    client: str
    label: str
    folder: str
    last_success_at: Moment | None
    last_attempt_at: Moment | None
    error_kind: str | None
    error: str | None
    failing_since: Moment | None
    failures: int
    next_attempt_at: Moment | None
    backlog: int
    on_server: int
    seen: int
    stored: int
    in_work: int
    quarantined: int
    refused: bool
    lag_seconds: float | None
    silent: bool
    silent_seconds: int
    oldest_waits_seconds: int
