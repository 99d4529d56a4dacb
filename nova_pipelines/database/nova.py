"""Tables of nova-db: definitions, clients, the ledger of mails, executions and their chain of work.

Only tables stand here; queries live with what uses them. Times are aware and in UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship

from nova_pipelines.database.api_tables import LISTINGS, IdempotencyKey
from nova_pipelines.database.approval_tables import Approval
from nova_pipelines.database.auth_tables import ApiKey, AuditEntry, LoginAttempts, User, WebSession
from nova_pipelines.database.base import NovaBase
from nova_pipelines.database.chain_tables import Blob, ChainRow
from nova_pipelines.database.mail_events import MailboxEvent
from nova_pipelines.database.mail_tables import OutboxDecision, OutboxMail, TokenLease
from nova_pipelines.database.mailbox_tables import Alert, AlertNotice, MailboxState
from nova_pipelines.database.sandbox_tables import BreakerRow, SandboxGate, SandboxRow
from nova_pipelines.database.types import CanonicalJSON, utc_now
from nova_pipelines.database.watcher_tables import WatcherRow
from nova_pipelines.database.webhook_tables import Webhook, WebhookDelivery

# more tables of this database
__all__ = [
    "Alert",
    "AlertNotice",
    "ApiKey",
    "Approval",
    "AuditEntry",
    "Blob",
    "BreakerRow",
    "ChainRow",
    "IdempotencyKey",
    "LoginAttempts",
    "MailboxEvent",
    "MailboxState",
    "NovaBase",
    "OutboxDecision",
    "OutboxMail",
    "SandboxGate",
    "SandboxRow",
    "TokenLease",
    "User",
    "WatcherRow",
    "WebSession",
    "Webhook",
    "WebhookDelivery",
]


class Catalog(NovaBase):
    """One row: the revision of the whole set of workflows. Publishing locks it, so that revisions are
    committed in order and "the versions as of revision N" means the same for ever."""

    __tablename__ = "catalog"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    revision: Mapped[int] = mapped_column(Integer, default=0)


class Workflow(NovaBase):
    """A named workflow. `job_name` is its name as a Dagster job, made from `name` once and never changed."""

    __tablename__ = "workflows"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    job_name: Mapped[str] = mapped_column(String(200), unique=True)
    description: Mapped[str | None] = mapped_column(Text)
    #: the newest version's definition, for readers of the old table
    graph_definition: Mapped[dict[str, Any]]
    is_active: Mapped[bool] = mapped_column(default=True)
    #: of mails below this number that are assigned it has had all that it will have: a look at new mail begins here
    mails_from: Mapped[int] = mapped_column(default=0, server_default="0")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)

    versions: Mapped[list[WorkflowVersion]] = relationship(back_populates="workflow", order_by="WorkflowVersion.number")


class WorkflowVersion(NovaBase):
    """One text of a definition. Never changed and never deleted: triggers of the database refuse both."""

    __tablename__ = "workflow_versions"
    __table_args__ = (
        UniqueConstraint("workflow_id", "number"),
        Index("ix_workflow_versions_workflow_id_revision", "workflow_id", "revision"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    workflow_id: Mapped[int] = mapped_column(ForeignKey("workflows.id"))
    number: Mapped[int]
    #: the catalog's revision that brought this version
    revision: Mapped[int] = mapped_column(Integer)
    definition: Mapped[dict[str, Any]]
    #: the text as the user wrote it
    source: Mapped[str] = mapped_column(Text)
    source_format: Mapped[str] = mapped_column(String(4))  # json | yaml
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    workflow: Mapped[Workflow] = relationship(back_populates="versions")


class Client(NovaBase):
    __tablename__ = "clients"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    slug: Mapped[str] = mapped_column(String(100), unique=True)
    email: Mapped[str | None] = mapped_column(String(320))
    is_active: Mapped[bool] = mapped_column(default=True)
    #: addresses (`ana@example.com`) and domains (`@example.com`); empty: everybody may write
    sender_whitelist: Mapped[list[str]] = mapped_column(CanonicalJSON, default=list)
    #: old-dialect workflows may see this client's credentials in their sandbox
    expose_credentials: Mapped[bool] = mapped_column(default=False)
    #: sandboxes of this client may use the network
    allow_network: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)

    credentials: Mapped[list[Credential]] = relationship(
        back_populates="client", cascade="all, delete-orphan", order_by="Credential.id"
    )


class Credential(NovaBase):
    """A mailbox or a database of a client. What is secret stands in `secret` only, encrypted."""

    __tablename__ = "credentials"
    __table_args__ = (
        UniqueConstraint("client_id", "kind", "label"),
        CheckConstraint("kind IN ('email', 'database')", name="kind"),
        Index(
            "uq_credentials_primary",
            "client_id",
            "kind",
            unique=True,
            sqlite_where=text("is_primary = 1"),
            postgresql_where=text("is_primary"),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(10))
    label: Mapped[str] = mapped_column(String(100), default="default")
    is_primary: Mapped[bool] = mapped_column(default=True)
    #: email: imap_host imap_port imap_tls smtp_host smtp_port smtp_tls address user folder ca_file authserv_id
    #: authserv_hops; and, for a login by OAuth, oauth oauth_flow oauth_tenant oauth_client_id oauth_base_url;
    #: database: url without its password
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: Fernet token of a JSON object ({"password": …}, or client_secret, refresh_token, access_token, expires_at)
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    #: health of a mailbox: the time of the last search that succeeded, and the last error
    last_success_at: Mapped[datetime | None]
    last_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)

    client: Mapped[Client] = relationship(back_populates="credentials")


class MailFolder(NovaBase):
    """A folder of a mailbox under one UIDVALIDITY. Mails from `first_uid` on count whether read or not, older
    ones only if unread. It begins as UIDNEXT of the first scan (1 after UIDVALIDITY changed) and rises past mails
    that are done with, so that a scan does not look at all of them again."""

    __tablename__ = "mail_folders"
    __table_args__ = (UniqueConstraint("credential_id", "folder", "uidvalidity"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    credential_id: Mapped[int] = mapped_column(ForeignKey("credentials.id", ondelete="CASCADE"))
    folder: Mapped[str] = mapped_column(String(255))
    # UIDs are unsigned 32-bit numbers (RFC 9051, 2.3.1.1): too big for PostgreSQL's integer
    uidvalidity: Mapped[int] = mapped_column(BigInteger)
    first_uid: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


_UNFLAGGED = "flagged_at IS NULL"


class Message(NovaBase):
    """The ledger: one row for each mail that was seen in a mailbox. The unique place is the claim."""

    __tablename__ = "messages"
    __table_args__ = (
        UniqueConstraint("credential_id", "folder", "uidvalidity", "uid"),
        Index("ix_messages_credential_id_message_id", "credential_id", "message_id"),
        Index("ix_messages_credential_id_fingerprint", "credential_id", "fingerprint"),
        Index("ix_messages_credential_id_provider_id", "credential_id", "provider_id"),
        Index("ix_messages_status_id", "status", "id"),
        Index("ix_messages_status_place", "status", "credential_id", "folder", "uidvalidity", "uid"),
        Index("ix_messages_unflagged", "status", sqlite_where=text(_UNFLAGGED), postgresql_where=text(_UNFLAGGED)),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    credential_id: Mapped[int] = mapped_column(ForeignKey("credentials.id"))
    client_id: Mapped[int] = mapped_column(ForeignKey("clients.id"))
    folder: Mapped[str] = mapped_column(String(255))
    uidvalidity: Mapped[int] = mapped_column(BigInteger)
    uid: Mapped[int] = mapped_column(BigInteger)
    message_id: Mapped[str | None] = mapped_column(String(998))
    sha256: Mapped[str | None] = mapped_column(String(64))
    #: SHA-256 of what the author wrote (mail_identity.py): the same for the same mail on any way and in any folder
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    #: the provider's own stable identity of the mail: `gmail:<X-GM-MSGID>`
    provider_id: Mapped[str | None] = mapped_column(String(40))
    sender: Mapped[str | None] = mapped_column(Text)
    subject: Mapped[str | None] = mapped_column(Text)
    sent_at: Mapped[datetime | None]
    size: Mapped[int | None]
    #: what a context gets of the mail (mail_download.mail_fields)
    mail: Mapped[dict[str, Any] | None]
    #: seen → stored → assigned; or duplicate, quarantined, gone (removed from the server before it was read)
    status: Mapped[str] = mapped_column(String(12), default="seen")
    duplicate_of: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    #: when it was marked (or moved) on the server, after all its executions were completed
    flagged_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    #: when the server took it in (INTERNALDATE)
    received_at: Mapped[datetime | None]
    #: a person settled a mail that was set aside: it is not to be read
    handled_at: Mapped[datetime | None]
    handled_by: Mapped[str | None] = mapped_column(String(200))
    handled_note: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime] = mapped_column(default=utc_now, onupdate=utc_now)

    documents: Mapped[list[MessageDocument]] = relationship(
        back_populates="message", order_by="MessageDocument.ordinal"
    )


class MessageDocument(NovaBase):
    """An attachment of a mail. Its bytes lie in the document store under `sha256`."""

    __tablename__ = "message_documents"
    __table_args__ = (UniqueConstraint("message_id", "ordinal"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id"))
    ordinal: Mapped[int]
    filename: Mapped[str] = mapped_column(Text)
    media_type: Mapped[str] = mapped_column(String(100))
    sha256: Mapped[str] = mapped_column(String(64))
    size: Mapped[int]
    is_pdf: Mapped[bool]

    message: Mapped[Message] = relationship(back_populates="documents")


class Execution(NovaBase):
    """One item's way through one version of a workflow."""

    __tablename__ = "executions"
    __table_args__ = (
        # one execution for each document of a mail (or the mail itself: ordinal -1) and workflow
        UniqueConstraint("workflow_id", "message_id", "document_ordinal"),
        *(Index(f"ix_executions_{'_'.join(columns)}", *columns) for columns in LISTINGS),
        Index("ix_executions_run_id", "run_id"),
        Index("ix_executions_message_id", "message_id"),
        # of the status too: executions of the last hour are counted by status from the index alone
        Index("ix_executions_created_at_status", "created_at", "status"),
        Index("ix_executions_completed_at", "completed_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    #: the public handle of `GET /tasks/{task_id}`
    task_id: Mapped[str] = mapped_column(String(36), unique=True)
    workflow_id: Mapped[int] = mapped_column(ForeignKey("workflows.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("workflow_versions.id"))
    client_id: Mapped[int | None] = mapped_column(ForeignKey("clients.id"))
    message_id: Mapped[int | None] = mapped_column(ForeignKey("messages.id"))
    document_ordinal: Mapped[int | None]
    #: pending → running → completed | failed | needs_review (a person) | unknown (a person);
    #: running → in_approval (a person decides, see `approvals`) → pending
    status: Mapped[str] = mapped_column(String(12), default="pending")
    initial_context: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result: Mapped[dict[str, Any] | None]
    error: Mapped[str | None] = mapped_column(Text)
    failed_node: Mapped[str | None] = mapped_column(String(200))
    #: the Dagster run that holds this execution, or the run key of one that was requested (status pending)
    run_id: Mapped[str | None] = mapped_column(String(36))
    requested_at: Mapped[datetime | None]
    #: not to be taken up before (a service is down), and the run that put it off; `error` says why
    waits_until: Mapped[datetime | None]
    put_off_by: Mapped[str | None] = mapped_column(String(36))
    #: runs that ended before this execution did: it was asked for again each time
    lost_runs: Mapped[int] = mapped_column(default=0, server_default="0")
    #: a node that may have outside effects, from before it begins until its row is in the chain
    begun_node: Mapped[str | None] = mapped_column(String(200))
    #: somebody wants it to end: no run takes it up, and the one that works on it stops before its next node
    cancelled_at: Mapped[datetime | None]
    cancelled_by: Mapped[str | None] = mapped_column(String(200))
    chain_head: Mapped[str] = mapped_column(String(64), default="")
    chain_length: Mapped[int] = mapped_column(default=0)
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
