"""Every environment variable of NOVA, typed, once.

It reads and checks values only: it makes no folder and opens nothing.
"""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import SettingsConfigDict
from sqlalchemy import URL

from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.domain.rates import SandboxRates
from nova_pipelines.setting_values import (
    check_networks,
    is_fernet_key,
    is_url,
    normalise_database_url,
    split_grants,
    split_keys,
    split_list,
    split_server,
    url_text,
    web_address,
)
from nova_pipelines.settings_operation import OperationSettings

NEW_KEY_COMMAND = 'python -c "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())"'


class Settings(OperationSettings):
    """The environment. Fields are named like their variables, in lower case; an empty value counts as unset.

    Secrets are `SecretStr`; what callers need in the clear comes from the properties.
    """

    model_config = SettingsConfigDict(
        env_ignore_empty=True, hide_input_in_errors=True, validate_default=True, frozen=True, extra="forbid"
    )

    nova_home: Path = Path(".nova")
    #: `database_url` and `facturas_database_url` are properties, so these two have names of their own
    given_database_url: SecretStr | None = Field(None, validation_alias="DATABASE_URL")
    given_facturas_database_url: SecretStr | None = Field(None, validation_alias="FACTURAS_DATABASE_URL")
    redis_url: SecretStr | None = None
    #: Fernet keys, comma-separated, newest first; None: the file NOVA_HOME/secret.key
    nova_secret_key: SecretStr | None = None

    nova_sandbox: Literal["local", "e2b", "unsafe-subprocess"] | None = None
    e2b_api_key: SecretStr | None = None
    e2b_template_id: str | None = None
    #: E2B's public prices and the size of its sandboxes, for estimates; and the day they were looked up
    nova_e2b_usd_per_vcpu_second: Decimal = Field(Decimal("0.000014"), ge=0)
    nova_e2b_usd_per_gib_second: Decimal = Field(Decimal("0.0000045"), ge=0)
    nova_e2b_vcpus: Decimal = Field(Decimal(2), gt=0)
    nova_e2b_memory_gib: Decimal = Field(Decimal("0.5"), gt=0)
    nova_e2b_rates_date: date = date(2026, 8, 1)
    #: what the E2B account allows (Hobby: 1 create a second, 20 at once, one hour of life; Pro: 5, 100, 24 hours), and
    #: how long a job waits for a place before its execution is put off
    nova_e2b_creates_per_second: float = Field(1, gt=0, le=1000)
    nova_e2b_max_sandboxes: int = Field(20, ge=1, le=10_000)
    nova_e2b_max_life_seconds: int = Field(3600, ge=120, le=86_400)
    nova_e2b_wait_seconds: float = Field(30, ge=0, le=600)
    #: failures of E2B in a row that open its circuit breaker, and for how long
    nova_e2b_breaker_failures: int = Field(5, ge=1, le=1000)
    nova_e2b_breaker_seconds: float = Field(300, ge=1, le=86_400)

    gmail_imap_server: str = "imap.gmail.com:993"
    gmail_smtp_server: str = "smtp.gmail.com:587"
    gmail_email: str | None = None
    gmail_app_password: SecretStr | None = None

    #: a folder or a URL that UPath understands; may carry credentials
    nova_documents_url: SecretStr | None = None
    nova_max_batch: int = Field(50, ge=1, le=1000)
    #: executions of one workflow and client that are asked for and not begun: a full mailbox must not fill the queue
    nova_max_waiting: int = Field(200, ge=1, le=100_000)
    nova_max_mail_bytes: int = Field(52_428_800, ge=1024)
    nova_retry_delay_seconds: float = Field(10, ge=0, le=3600)
    nova_max_retries: int = Field(3, ge=0, le=20)
    nova_run_max_seconds: int = Field(3600, ge=1)
    #: mail out: seconds before the second try (doubled each time, up to an hour), hours until it has failed (0: at the
    #: first temporary refusal), and answers to one address
    nova_mail_retry_seconds: float = Field(60, ge=0, le=3600)
    nova_mail_give_up_hours: float = Field(48, ge=0, le=720)
    nova_mail_answers_per_hour: int = Field(10, ge=1, le=10_000)
    nova_mail_answers_per_day: int = Field(50, ge=1, le=100_000)

    #: the watcher: seconds until it asks for a sign of life in IDLE (RFC 2177 wants it within 29 minutes, routers
    #: forget connections sooner), seconds between looks at servers and folders without IDLE, and connections that it
    #: keeps for one user of one host (Gmail allows 15, which runs and other programs share)
    nova_watch_idle_seconds: float = Field(540, ge=1, le=1740)
    nova_watch_poll_seconds: float = Field(15, ge=1, le=3600)
    nova_watch_connections: int = Field(5, ge=1, le=100)

    #: alerts about mailboxes: after so many minutes without a successful search, when the oldest mail has waited so
    #: long, and how often an open alert is recalled
    nova_alert_silent_minutes: float = Field(15, gt=0, le=10_080)
    nova_alert_backlog_minutes: float = Field(60, gt=0, le=10_080)
    nova_alert_remind_hours: float = Field(6, gt=0, le=720)
    #: who gets them by mail, comma-separated; sent through an SMTP URL, or the account of a client (its slug)
    nova_alert_mail_to: str | None = None
    nova_alert_smtp_url: SecretStr | None = None
    nova_alert_smtp_client: str | None = None
    #: where they are posted to as JSON, and the key of its HMAC-SHA256
    nova_alert_webhook_url: SecretStr | None = None
    nova_alert_webhook_secret: SecretStr | None = None

    #: sessions of people in a browser: they end after so long without a request, and after so long anyway
    nova_session_idle_minutes: float = Field(120, ge=1, le=10_080)
    nova_session_hours: float = Field(12, gt=0, le=720)
    #: where browsers find NOVA (`https://nova.example.com`): for links in mails (None: the address of `nova up`, or
    #: this machine's port) and for the OpenID provider (None: as they ask)
    nova_public_url: str | None = None
    #: addresses or networks of proxies (comma-separated) whose X-Forwarded-For and -Proto are believed
    nova_trusted_proxies: str | None = None
    #: login by an OpenID provider (docs/auth.md): who it is, who NOVA is there, and what a claim makes of somebody
    #: (`nova-admins=admin, ops=operator, idom=viewer@idom, *=viewer`; the first that fits)
    nova_oidc_issuer: str | None = None
    nova_oidc_client_id: str | None = None
    nova_oidc_client_secret: SecretStr | None = None
    nova_oidc_scopes: str = "openid email profile"
    nova_oidc_role_claim: str = "groups"
    nova_oidc_roles: str | None = None

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    port: int = Field(3000, ge=1, le=65535)
    #: where the code server listens, and where daemon and web find it
    nova_code_host: str = "127.0.0.1"
    nova_code_port: int = Field(4000, ge=1, le=65535)
    #: a running Dagster web UI that makes loaded workflows live; None: the one of `nova up`
    nova_dagster_url: str | None = None
    #: an unexpected error shows its traceback (read by cli/errors.py itself: the settings may be what is wrong)
    nova_debug: bool = False

    @field_validator("nova_home")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        # every process of NOVA must mean the same folder, whatever its working directory
        return home.expanduser().absolute()

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, level: Any) -> Any:
        return level.strip().upper() if isinstance(level, str) else level

    @field_validator("given_database_url", "given_facturas_database_url")
    @classmethod
    def _known_database(cls, url: SecretStr | None) -> SecretStr | None:
        return SecretStr(normalise_database_url(url.get_secret_value())) if url else None

    @field_validator("nova_secret_key")
    @classmethod
    def _fernet_keys(cls, keys: SecretStr | None) -> SecretStr | None:
        for place, key in enumerate(split_keys(keys), start=1):
            if not is_fernet_key(key):
                raise ValueError(f"key {place} is not a Fernet key; make one with: {NEW_KEY_COMMAND}")
        return keys

    @field_validator("e2b_api_key")
    @classmethod
    def _e2b_form(cls, key: SecretStr | None) -> SecretStr | None:
        if key and not key.get_secret_value().startswith("e2b_"):
            raise ValueError("must begin with e2b_; copy it again from the dashboard of E2B")
        return key

    @field_validator("gmail_app_password")
    @classmethod
    def _no_spaces(cls, password: SecretStr | None) -> SecretStr | None:
        # Google shows the 16 letters in four groups
        return SecretStr("".join(password.get_secret_value().split())) if password else None

    @field_validator("gmail_imap_server", "gmail_smtp_server")
    @classmethod
    def _host_and_port(cls, server: str) -> str:
        split_server(server, 0)
        return server

    @field_validator("nova_alert_mail_to")
    @classmethod
    def _addresses(cls, given: str | None) -> str | None:
        wrong = [address for address in split_list(given) if not re.fullmatch(r"[^@\s<>]+@[^@\s<>]+", address)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no mail address; write ana@example.com, luis@example.com")
        return given

    @field_validator("nova_alert_smtp_url")
    @classmethod
    def _smtp_url(cls, url: SecretStr | None) -> SecretStr | None:
        # outside of a chained exception: the text may hold a password
        if url and not is_url(url, "smtp", "smtps"):
            raise ValueError("must be smtp://user:password@host:587?from=nova@example.com, or smtps://…:465")
        return url

    @field_validator("nova_alert_webhook_url")
    @classmethod
    def _http_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url and not is_url(url, "http", "https"):
            raise ValueError("must be an address such as https://example.com/hook; only http and https are called")
        return url

    @field_validator("nova_public_url", "nova_oidc_issuer")
    @classmethod
    def _web_address(cls, url: str | None) -> str | None:
        return web_address(url) if url else None

    @field_validator("nova_trusted_proxies")
    @classmethod
    def _networks(cls, given: str | None) -> str | None:
        check_networks(given)
        return given

    @field_validator("nova_oidc_roles")
    @classmethod
    def _known_roles(cls, given: str | None) -> str | None:
        return given if not given or split_grants(given) else None

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        problems: list[str] = []
        if self.nova_sandbox == "e2b" and not self.e2b_api_key:
            problems.append("NOVA_SANDBOX: e2b needs E2B_API_KEY; set it, or set NOVA_SANDBOX=local")
        if bool(self.gmail_email) != bool(self.gmail_app_password):
            problems.append("GMAIL_EMAIL: set it and GMAIL_APP_PASSWORD together, or neither of the two")
        if self.database_url == self.facturas_database_url:
            problems.append("FACTURAS_DATABASE_URL: names the same database as DATABASE_URL; give it its own")
        if self.nova_alert_mail_to and bool(self.nova_alert_smtp_url) == bool(self.nova_alert_smtp_client):
            problems.append("NOVA_ALERT_MAIL_TO: needs NOVA_ALERT_SMTP_URL or NOVA_ALERT_SMTP_CLIENT, one of the two")
        oidc = (self.nova_oidc_issuer, self.nova_oidc_client_id, self.nova_oidc_client_secret, self.nova_oidc_roles)
        if any(oidc) and not all(oidc):
            names = "NOVA_OIDC_ISSUER, NOVA_OIDC_CLIENT_ID, NOVA_OIDC_CLIENT_SECRET and NOVA_OIDC_ROLES"
            problems.append(f"NOVA_OIDC_ISSUER: set {names} together, or none of them")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def oidc_ready(self) -> bool:
        """Whether people may log in at an OpenID provider."""
        return self.nova_oidc_issuer is not None

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of nova-db, with its password."""
        return self._url(self.given_database_url, "nova.db")

    @property
    def facturas_database_url(self) -> str:
        """SQLAlchemy URL of facturas, with its password."""
        return self._url(self.given_facturas_database_url, "facturas.db")

    def _url(self, given: SecretStr | None, filename: str) -> str:
        if given:
            return given.get_secret_value()
        return url_text(URL.create("sqlite", database=str(self.nova_home / filename)))

    @property
    def public_url(self) -> str:
        """What links to NOVA's pages begin with, without a slash at the end."""
        return self.nova_public_url or (self.nova_dagster_url or f"http://127.0.0.1:{self.port}").rstrip("/")

    @property
    def sandbox(self) -> Literal["local", "e2b", "unsafe-subprocess"]:
        """The sandbox in force: e2b when a key is there and nothing else was asked for."""
        return self.nova_sandbox or ("e2b" if self.e2b_api_key else "local")

    @property
    def e2b_rates(self) -> SandboxRates:
        return SandboxRates(
            usd_per_vcpu_second=self.nova_e2b_usd_per_vcpu_second,
            usd_per_gib_second=self.nova_e2b_usd_per_gib_second,
            vcpus=self.nova_e2b_vcpus,
            memory_gib=self.nova_e2b_memory_gib,
            as_of=self.nova_e2b_rates_date,
        )

    @property
    def documents_url(self) -> str:
        """Where documents are kept: a folder, or a URL for UPath."""
        given = self.nova_documents_url
        return given.get_secret_value() if given else str(self.nova_home / "documents")

    @property
    def secret_keys(self) -> list[str]:
        """The keys of NOVA_SECRET_KEY, newest first; empty when the key file is used."""
        return split_keys(self.nova_secret_key)

    @property
    def gmail_imap(self) -> tuple[str, int]:
        return split_server(self.gmail_imap_server, 993)

    @property
    def gmail_smtp(self) -> tuple[str, int]:
        return split_server(self.gmail_smtp_server, 587)


def load_settings() -> Settings:
    """The settings of this process's environment.

    Raises ConfigurationError that lists every wrong variable, never with the value of a secret.
    """
    try:
        return Settings()  # pyright: ignore[reportCallIssue]  # all values come from the environment
    except ValidationError as error:
        lines = [line for problem in error.errors(include_url=False) for line in _describe(dict(problem))]
    # outside of `except`: the validation error holds the values and must not be chained
    count = "1 environment variable is" if len(lines) == 1 else f"{len(lines)} environment variables are"
    body = "\n".join(f"  {line}" for line in lines)
    raise ConfigurationError(f"{count} wrong\n{body}", remedy="correct them and start again")


def _describe(problem: dict[str, Any]) -> list[str]:
    reason = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:  # several variables together: the lines name them
        return reason.splitlines()
    field = str(problem["loc"][0])
    info = Settings.model_fields.get(field)
    shown = "" if info is None or "SecretStr" in str(info.annotation) else f" ({problem['input']!r:.80})"
    return [f"{field.upper()}: {reason}{shown}"]
