"""`nova client credentials …`: mailboxes and databases of clients. A password is never an argument."""

import os
import re
import sys
from enum import StrEnum
from typing import Annotated, Any

import typer

from nova_pipelines.cli import oauth_login
from nova_pipelines.cli.output import JsonFlag, emit, say
from nova_pipelines.cli.session import open_nova
from nova_pipelines.database.credential_records import find_credential, remove_credential, with_defaults
from nova_pipelines.domain.errors import ConfigurationError, PermanentError
from nova_pipelines.settings import Settings, load_settings

app = typer.Typer(help="Mailboxes and databases of a client.", no_args_is_help=True)

#: longest password that is read from stdin
_MAX_PASSWORD = 10_000


class Kind(StrEnum):
    email = "email"
    database = "database"


class Provider(StrEnum):
    microsoft = "microsoft"
    google = "google"


class Tls(StrEnum):
    ssl = "ssl"
    starttls = "starttls"
    none = "none"


SlugArgument = Annotated[str, typer.Argument(metavar="SLUG", help="Short name of the client.")]
KindArgument = Annotated[Kind, typer.Argument(help="What it gives access to.")]
LabelOption = Annotated[str, typer.Option(help="Name of the credential, where a client has several of a kind.")]


@app.callback()
def credentials() -> None:
    """Mailboxes and databases of a client."""


@app.command("set")
def set_(
    slug: SlugArgument,
    kind: KindArgument,
    label: LabelOption = "default",
    primary: Annotated[bool, typer.Option("--primary", help="Make it the one that is used first.")] = False,
    imap_host: Annotated[str | None, typer.Option(help="Host of the IMAP server.")] = None,
    imap_port: Annotated[int | None, typer.Option(help="Port of the IMAP server. [default: 993]")] = None,
    imap_tls: Annotated[Tls | None, typer.Option(help="Encryption. [default: by port]")] = None,
    smtp_host: Annotated[str | None, typer.Option(help="Host of the SMTP server.")] = None,
    smtp_port: Annotated[int | None, typer.Option(help="Port of the SMTP server. [default: 587]")] = None,
    smtp_tls: Annotated[Tls | None, typer.Option(help="Encryption. [default: by port]")] = None,
    user: Annotated[str | None, typer.Option(help="Name to log in with.")] = None,
    address: Annotated[str | None, typer.Option(help="Address to send from. [default: the user]")] = None,
    folder: Annotated[str | None, typer.Option(help="Folder that doctor tries. [default: INBOX]")] = None,
    ca_file: Annotated[str | None, typer.Option(help="Certificate of the servers' authority (PEM).")] = None,
    authserv_id: Annotated[
        str | None, typer.Option(help="Whose Authentication-Results show that a sender is genuine (docs/mail.md).")
    ] = None,
    authserv_hops: Annotated[
        int | None, typer.Option(min=0, max=20, help="Received lines of the provider above them. [default: 0]")
    ] = None,
    url: Annotated[str | None, typer.Option(help="database: its URL, without a password.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from stdin.")] = False,
    password_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take the password from this environment variable.")
    ] = None,
    oauth: Annotated[
        Provider | None, typer.Option(help="email: log in there by OAuth, now; no password is kept.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Microsoft: the organisation's id or domain.")] = None,
    oauth_client_id: Annotated[str | None, typer.Option(metavar="ID", help="The registered application.")] = None,
    client_secret_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Take the application's secret from this environment variable.")
    ] = None,
    app_only: Annotated[
        bool, typer.Option("--app-only", help="Microsoft: the application logs in by itself, with its secret.")
    ] = False,
    paste: Annotated[
        bool, typer.Option("--paste", help="Google: paste the address where a browser elsewhere ended.")
    ] = False,
    oauth_base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Another host of the provider, such as a national cloud's.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make or change a credential. The password is asked for, or comes from stdin or the environment.

    For a credential that exists, what is not given stays, the password too. A first mailbox without
    a host is the one of GMAIL_EMAIL. With --oauth a person logs in at Microsoft or Google instead.
    """
    from nova_pipelines.database.clients import find_client
    from nova_pipelines.database.secrets import open_box

    given = {
        "imap_host": imap_host,
        "imap_port": imap_port,
        "imap_tls": imap_tls and imap_tls.value,
        "smtp_host": smtp_host,
        "smtp_port": smtp_port,
        "smtp_tls": smtp_tls and smtp_tls.value,
        "user": user,
        "address": address,
        "folder": folder,
        "ca_file": ca_file and os.path.abspath(os.path.expanduser(ca_file)),  # noqa: PTH100, PTH111 - as a text
        "authserv_id": authserv_id,
        "authserv_hops": authserv_hops,
        "url": url,
        "oauth": oauth and oauth.value,
        "oauth_flow": oauth and oauth_login.flow_of(oauth.value, app_only=app_only),
        "oauth_tenant": tenant,
        "oauth_client_id": oauth_client_id,
        "oauth_base_url": oauth_base_url,
    }
    given = {name: value for name, value in given.items() if value is not None}
    settings = load_settings()
    with open_nova(settings) as nova:
        # nothing slow, such as a person at a prompt, inside the writing transaction
        with nova.read() as session:
            known = _known(find_client(session, slug), kind, label)
            stored = dict(known.settings) if known else {}
        box = open_box(settings)
        if password_stdin or password_env:
            stored = {name: value for name, value in stored.items() if not name.startswith("oauth")}
        merged = _complete(kind, stored | given, settings)
        if oauth is not None:
            before = box.decrypt(known.secret) if known and known.settings.get("oauth") else {}
            secret = oauth_login.new_secret(merged, before, secret_env=client_secret_env, paste=paste)
        else:
            secret = _by_password(settings, merged, password_stdin, password_env, exists=known is not None)
        with nova.session() as session:
            client = find_client(session, slug)
            credential = _store(session, box, client, kind, label, merged, secret, primary)
            shown = {"client": client.slug, "kind": kind.value, "label": label, "settings": merged}
            shown["is_primary"] = credential.is_primary
    if as_json:
        emit(shown)
    else:
        say(f"{kind.value} credential {label} of {shown['client']} is set; `nova doctor` tries it")


def _store(
    session: Any,
    box: Any,
    client: Any,
    kind: Kind,
    label: str,
    merged: dict[str, Any],
    secret: dict[str, Any] | None,
    primary: bool,
) -> Any:
    """Stores a credential; without a secret the one that is there stays."""
    from nova_pipelines.database.clients import set_credential

    current = _known(client, kind, label)
    if current is not None:  # locked: a token that is renewed just now must not be overwritten by an older one
        session.refresh(current, with_for_update=True)
    body = secret if secret is not None else box.decrypt(current.secret) if current else {}
    return set_credential(
        session, box, client, kind.value, label, settings=merged, secret=body, primary=primary or None
    )


@app.command()
def remove(slug: SlugArgument, kind: KindArgument, label: LabelOption = "default", as_json: JsonFlag = False) -> None:
    """Remove a credential of a client. A mailbox whose mails are in the ledger stays."""
    from nova_pipelines.database.clients import find_client

    with open_nova() as nova, nova.session() as session:
        remove_credential(session, find_client(session, slug), kind.value, label)
    if as_json:
        emit({"client": slug, "kind": kind.value, "label": label, "result": "deleted"})
    else:
        say(f"{kind.value} credential {label} of {slug} removed")


def _known(client: Any, kind: Kind, label: str) -> Any:
    return find_credential(client, kind.value, label)


def _complete(kind: Kind, given: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The settings with their defaults. Raises ConfigurationError for what is missing or out of place."""
    mailbox = oauth_login.with_servers(given) if given.get("oauth") else dict(given)
    if kind is Kind.email and not {"imap_host", "smtp_host"} & mailbox.keys() and settings.gmail_email:
        imap, smtp = settings.gmail_imap, settings.gmail_smtp
        mailbox = {"imap_host": imap[0], "imap_port": imap[1], "smtp_host": smtp[0], "smtp_port": smtp[1]} | mailbox
        mailbox.setdefault("user", settings.gmail_email)
    try:
        return with_defaults(kind.value, mailbox)
    except PermanentError as error:
        raise ConfigurationError(error.message, remedy=_as_options(error.remedy)) from error


def _as_options(remedy: str | None) -> str | None:
    """Names of settings as the options of this command."""
    if remedy is None:
        return None
    for name in ("imap_host", "smtp_host", "user", "address", "url"):
        remedy = re.sub(rf"\b{name}\b:?", f"--{name.replace('_', '-')}", remedy, count=1)
    return remedy


def _by_password(
    settings: Settings, mailbox: dict[str, Any], from_stdin: bool, variable: str | None, *, exists: bool
) -> dict[str, Any] | None:
    if mailbox.get("oauth"):
        return None  # who is logged in stays so
    password = _password(settings, mailbox, from_stdin, variable, exists=exists)
    return {"password": password} if password is not None else None


def _password(
    settings: Settings, mailbox: dict[str, Any], from_stdin: bool, variable: str | None, *, exists: bool
) -> str | None:
    """The password from where it was said to be; None: the stored one stays."""
    if from_stdin and variable:
        raise ConfigurationError("--password-stdin and --password-env exclude each other", remedy="give one of them")
    if str(mailbox.get("url", "")).startswith("sqlite:"):
        return ""  # a file asks for none
    if from_stdin:
        return _not_empty(sys.stdin.read(_MAX_PASSWORD).rstrip("\r\n"), "stdin")
    if variable:
        return _not_empty(os.environ.get(variable, ""), f"the environment variable {variable}")
    if settings.gmail_app_password and mailbox.get("user") == settings.gmail_email and not exists:
        return settings.gmail_app_password.get_secret_value()
    if not _has_terminal():
        if exists:
            return None
        remedy = "give --password-stdin or --password-env NAME"
        raise ConfigurationError("there is no terminal to ask for the password", remedy=remedy)
    hint = " (empty: keep the stored one)" if exists else ""
    typed = typer.prompt(
        f"Password{hint}", hide_input=True, default="" if exists else None, show_default=False, err=True
    )
    return str(typed) or None


def _has_terminal() -> bool:
    return sys.stdin.isatty()


def _not_empty(password: str, source: str) -> str:
    if not password:
        raise ConfigurationError(f"{source} holds no password", remedy="check it, and give the command again")
    return password
