"""What nodes get from outside: databases, documents, mail accounts and one sandbox session for each run."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from sqlalchemy import select

from nova_pipelines.adapters.imap import MailboxConfig
from nova_pipelines.adapters.sandbox.base import Job, Outcome, Sandbox, SandboxSession
from nova_pipelines.adapters.smtp import SmtpConfig
from nova_pipelines.adapters.store import DocumentStore
from nova_pipelines.database.clients import credential_secret
from nova_pipelines.database.nova import Client, Credential
from nova_pipelines.database.secrets import SecretBox
from nova_pipelines.database.session import Databases
from nova_pipelines.domain.errors import CredentialError
from nova_pipelines.nodes.base import ClientView
from nova_pipelines.nodes.tokens import MailboxTokens


@dataclass(slots=True)
class Usage:
    """What a run's sandboxes have cost since it was last asked for."""

    seconds: float = 0.0
    cost_nano_usd: int = 0
    jobs: int = 0

    def book(self, outcome: Outcome) -> None:
        self.seconds += outcome.sandbox_seconds
        self.cost_nano_usd += outcome.cost_nano_usd
        self.jobs += 1


@dataclass(frozen=True, slots=True)
class MailPolicy:
    """`retry_seconds`: before the second try, doubled each time up to an hour; `give_up_seconds` after the first try a
    mail has failed. `per_hour` and `per_day`: answers to one address."""

    retry_seconds: float = 60.0
    give_up_seconds: float = 48 * 3_600.0
    per_hour: int = 10
    per_day: int = 50


@dataclass
class Services:
    """Everything a node may use. Sessions are opened when first needed and closed together.

    `box` and `backend` are given as functions: most runs need neither a key nor a sandbox.
    """

    databases: Databases
    store: DocumentStore
    box: Callable[[], SecretBox]
    backend: Callable[[], Sandbox]
    max_mail_bytes: int = 52_428_800
    #: how mail goes out: how often and how long it is tried, how much one address is answered
    mail_policy: MailPolicy = field(default_factory=MailPolicy)
    #: where people reach the pages: what links in mails begin with
    public_url: str = "http://127.0.0.1:3000"
    #: seconds that a sandbox session may live
    session_seconds: float = 3_600.0
    _usage: Usage = field(default_factory=Usage, repr=False)
    _sessions: dict[tuple[bool, int | None], SandboxSession] = field(default_factory=dict, repr=False)
    _stack: ExitStack = field(default_factory=ExitStack, repr=False)

    def run_job(self, job: Job, client: ClientView | None = None) -> Outcome:
        """Runs a job in the run's session and books what it cost. Raises as SandboxSession.run does.

        `client` is whose code it is: it gets the network if that client is allowed it. Documents and templates,
        which are other people's, never do.
        """
        outcome = self._session(client).run(job)
        self._usage.book(outcome)
        return outcome

    def take_usage(self) -> Usage:
        """What was booked since the last call."""
        usage, self._usage = self._usage, Usage()
        return usage

    def _session(self, client: ClientView | None) -> SandboxSession:
        """The run's session; with the network one of its own. A client whose credentials are shown to code has one of
        its own, too: nobody else's code is where they were."""
        network = bool(client and client.allow_network)
        key = network, client.id if client and client.expose_credentials else None
        if key not in self._sessions:
            session = self.backend().session(network=network, life_seconds=self.session_seconds)
            self._sessions[key] = self._stack.enter_context(session)
        return self._sessions[key]

    def smtp(self, client: ClientView) -> tuple[SmtpConfig, str]:
        """How to send mail for a client, and from which address. Raises CredentialError if it cannot."""
        with self.databases.nova.read() as session:
            credential = primary_mailbox(session, client.id)
            if credential is None or not credential.settings.get("smtp_host"):
                raise CredentialError(
                    f"client {client.slug!r} has no mail account to send from",
                    remedy=f"set one: nova client credentials set {client.slug} email --smtp-host …",
                )
            return smtp_config(credential, self), sender_address(credential)

    def mailbox(self, credential_id: int) -> MailboxConfig:
        """How to read the mailbox of a credential. Raises CredentialError when it cannot be decrypted."""
        with self.databases.nova.read() as session:
            return mailbox_config(session.get_one(Credential, credential_id), self)

    def close(self) -> None:
        self._sessions.clear()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def primary_mailbox(session: Any, client_id: int) -> Credential | None:
    return session.scalars(
        select(Credential)
        .where(Credential.client_id == client_id, Credential.kind == "email")
        .order_by(Credential.is_primary.desc(), Credential.id)
        .limit(1)
    ).first()


def sender_address(credential: Credential) -> str:
    return str(credential.settings.get("address") or credential.settings["user"])


def mailbox_config(credential: Credential, services: Services) -> MailboxConfig:
    """The IMAP account of an e-mail credential. Raises CredentialError when it cannot be decrypted."""
    settings = credential.settings
    password, tokens = _login(credential, services)
    return MailboxConfig(
        host=settings["imap_host"],
        port=int(settings.get("imap_port", 993)),
        user=settings["user"],
        password=password,
        tokens=tokens,
        tls=settings.get("imap_tls", "ssl"),
        ca_file=settings.get("ca_file"),
    )


def smtp_config(credential: Credential, services: Services) -> SmtpConfig:
    """The SMTP account of an e-mail credential. Raises CredentialError when it cannot be decrypted."""
    settings = credential.settings
    login = settings.get("smtp_login", True)
    password, tokens = _login(credential, services) if login else ("", None)
    return SmtpConfig(
        host=settings["smtp_host"],
        port=int(settings.get("smtp_port", 587)),
        user=settings["user"] if login else None,
        password=password if login else None,
        tokens=tokens,
        tls=settings.get("smtp_tls", "starttls"),
        ca_file=settings.get("ca_file"),
        timeout_seconds=30.0,
    )


def _login(credential: Credential, services: Services) -> tuple[str, MailboxTokens | None]:
    """The password of a mailbox, or the source of its tokens: they are asked for when a connection logs in."""
    if credential.settings.get("oauth"):
        user = str(credential.settings["user"])
        return "", MailboxTokens(services.databases.nova, services.box, credential.id, user)
    return str(credential_secret(services.box(), credential)["password"]), None


def client_view(client: Client) -> ClientView:
    return ClientView(
        id=client.id,
        slug=client.slug,
        name=client.name,
        email=client.email,
        sender_whitelist=tuple(client.sender_whitelist or ()),
        expose_credentials=client.expose_credentials,
        allow_network=client.allow_network,
    )


class ServicesFactory:
    """Holds a run's services: built when first asked for, closed with the run."""

    def __init__(self, build: Callable[[], Services]) -> None:
        self._build = build
        self._services: Services | None = None

    @property
    def services(self) -> Services:
        if self._services is None:
            self._services = self._build()
        return self._services

    def close(self) -> None:
        if self._services is not None:
            self._services.close()
            self._services = None
