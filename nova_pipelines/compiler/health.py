"""Checks of everything that NOVA needs, each for itself: what is right, or what is wrong and what to do.

Bounded in time; one that fails or hangs hides no other. Knows nothing of Dagster's processes.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import make_url, select

from nova_pipelines.adapters.imap import Mailbox
from nova_pipelines.adapters.smtp import check as check_smtp
from nova_pipelines.adapters.store import DocumentStore
from nova_pipelines.compiler.publishing import stored_workflows
from nova_pipelines.database.alerts import Trouble, open_alerts, undelivered
from nova_pipelines.database.breaker import breaker_view
from nova_pipelines.database.clients import credential_secret, mailboxes
from nova_pipelines.database.failures import MIGRATE, describe
from nova_pipelines.database.migrate import pending
from nova_pipelines.database.nova import Client, Credential
from nova_pipelines.database.outbox import asking, count_mails
from nova_pipelines.database.session import Databases, require_file
from nova_pipelines.database.types import utc_now
from nova_pipelines.database.webhooks import list_webhooks, troubled
from nova_pipelines.domain.errors import ConfigurationError, CredentialError, NeedsPerson, NovaError, TransientError
from nova_pipelines.nodes.alert_channels import channels
from nova_pipelines.nodes.alerts import Limits, current_troubles
from nova_pipelines.nodes.services import Services, mailbox_config, smtp_config
from nova_pipelines.settings import Settings

#: seconds for one check, and for one answer of a mail server
CHECK_SECONDS, MAIL_SECONDS = 25.0, 8.0
#: free disk below which documents and databases are in danger
FREE_BYTES = 500 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Check:
    """A question: `run` answers with a short text, or raises what is wrong."""

    name: str
    run: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer. `remedy` says what to do about a problem."""

    name: str
    ok: bool
    message: str
    remedy: str | None
    seconds: float


def run_checks(checks: Sequence[Check], *, seconds: float = CHECK_SECONDS) -> list[Finding]:
    """All checks at once, in threads; the answers in the order of the checks.

    A check that does not answer within `seconds` is reported as a problem and left behind.
    """
    began = time.monotonic()
    answers: dict[str, Finding] = {}
    threads: list[threading.Thread] = []
    for check in checks:
        # daemon threads: one that hangs in a system call must not keep the process
        thread = threading.Thread(target=_answer, args=(check, answers), name=f"check {check.name}", daemon=True)
        thread.start()
        threads.append(thread)
    for thread in threads:
        thread.join(max(0.0, began + seconds - time.monotonic()))
    late = "raise the limits of the service, or look why it hangs"
    return [
        answers.get(check.name) or Finding(check.name, False, f"no answer within {seconds:g} s", late, seconds)
        for check in checks
    ]


def _answer(check: Check, answers: dict[str, Finding]) -> None:
    began = time.monotonic()
    try:
        ok, message, remedy = True, check.run(), None
    except NovaError as error:
        ok, message, remedy = False, error.message, error.remedy
    except Exception as error:  # noqa: BLE001 - a check must answer, whatever a driver raises
        ok, message, remedy = False, f"{type(error).__name__}: {error}", "this is unexpected: please report it"
    answers[check.name] = Finding(check.name, ok, message, remedy, round(time.monotonic() - began, 3))


def service_checks(settings: Settings, services: Services) -> list[Check]:
    """Databases, keys, documents, sandbox, every mailbox and every stored workflow."""
    databases = services.databases
    return [
        Check("nova database", lambda: _database(settings, databases, "nova")),
        Check("facturas database", lambda: _database(settings, databases, "facturas")),
        Check("secret key", lambda: _secret_key(services)),
        Check("document store", lambda: _store(settings)),
        Check("disk", lambda: check_disk(settings)),
        Check("sandbox", lambda: f"{services.backend().name}: " + "; ".join(services.backend().check())),
        *([Check("E2B breaker", lambda: _breaker(settings, databases))] if settings.sandbox == "e2b" else []),
        *_mail_checks(services),
        Check("outbox", lambda: _outbox(databases)),
        *_mailbox_checks(settings, services),
        Check("alerts", lambda: _alerts(settings, services)),
        Check("webhooks", lambda: _webhooks(databases)),
        Check("workflows", lambda: _workflows(databases)),
    ]


def _database(settings: Settings, databases: Databases, name: str) -> str:
    missing = pending(settings, [name])[name]
    database = databases.nova if name == "nova" else databases.facturas
    if missing:
        revisions = f"{len(missing)} revisions" if len(missing) > 1 else "1 revision"
        raise ConfigurationError(f"{describe(database.url)} is not migrated: {revisions} missing", remedy=MIGRATE)
    with database.session() as session:  # a writing one: a read-only disk shows here
        session.connection()
    return f"{describe(database.url)}, migrated"


def _secret_key(services: Services) -> str:
    wrong: list[str] = []
    require_file(services.databases.nova)
    with services.databases.nova.read() as session:
        rows = session.execute(select(Credential, Client.slug).join(Client, Client.id == Credential.client_id)).all()
        if not rows:
            return "no credentials are stored yet"
        remedy = None
        for credential, slug in rows:
            try:
                credential_secret(services.box(), credential)
            except CredentialError as error:
                wrong.append(f"{credential.kind} of {slug} ({credential.label})")
                remedy = error.remedy
    if wrong:
        raise CredentialError(f"the key does not open {len(wrong)} of {len(rows)}: {', '.join(wrong)}", remedy=remedy)
    return f"opens all credentials ({len(rows)})"


def _store(settings: Settings) -> str:
    store = DocumentStore(settings.documents_url)
    store.check()
    return f"{store.shown}, writable"


def check_disk(settings: Settings) -> str:
    """Free space where NOVA_HOME, local documents and SQLite files lie. Raises TransientError if it is little."""
    places = [settings.nova_home]
    if "://" not in settings.documents_url:
        places.append(Path(settings.documents_url))
    for url in map(make_url, (settings.database_url, settings.facturas_database_url)):
        if url.get_backend_name() == "sqlite":
            places.append(Path(str(url.database)).parent)
    free = {place: shutil.disk_usage(_existing(place)).free for place in places}
    place, least = min(free.items(), key=lambda item: item[1])
    if least < FREE_BYTES:
        raise TransientError(
            f"{_size(least)} are free at {place}", remedy="free some space: work stops when it is full"
        )
    return f"{_size(least)} free"


def _existing(path: Path) -> Path:
    return next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())


def _size(size: int) -> str:
    return f"{size / 1024**3:.1f} GiB" if size >= 1024**3 else f"{size / 1024**2:.0f} MiB"


def _breaker(settings: Settings, databases: Databases) -> str:
    require_file(databases.nova)
    threshold, seconds = settings.nova_e2b_breaker_failures, settings.nova_e2b_breaker_seconds
    with databases.nova.read() as session:
        seen = breaker_view(session, "e2b", threshold=threshold, seconds=seconds)
    if not seen.is_healthy:
        again = f", the next try is after {seen.opens_again_at:%H:%M:%S} UTC" if seen.opens_again_at else ""
        remedy = "look at E2B's status page; executions wait meanwhile and go on by themselves"
        raise TransientError(f"{seen.state} after {seen.failure_count} failures in a row{again}", remedy=remedy)
    return f"closed, {seen.failure_count} of {seen.failure_threshold} failures in a row"


def _mail_checks(services: Services) -> list[Check]:
    """Two checks for each mailbox. A database that cannot be read has a check of its own."""
    try:
        require_file(services.databases.nova)
        with services.databases.nova.read() as session:
            found = mailboxes(session)
            session.expunge_all()
    except NovaError:
        return []
    checks: list[Check] = []
    for client, credential in found:
        name = client.slug if credential.label == "default" else f"{client.slug} ({credential.label})"
        checks.append(Check(f"IMAP {name}", lambda credential=credential: _imap(services, credential)))
        if credential.settings.get("smtp_host"):
            checks.append(Check(f"SMTP {name}", lambda credential=credential: _smtp(services, credential)))
    return checks


def _imap(services: Services, credential: Credential) -> str:
    if not credential.settings.get("imap_host"):
        raise CredentialError("no IMAP host is set", remedy="set one: nova client credentials set … --imap-host HOST")
    config = replace(mailbox_config(credential, services), timeout_seconds=MAIL_SECONDS)
    folder = str(credential.settings.get("folder") or "INBOX")
    with Mailbox(config) as mailbox:
        mailbox.select(folder)
    return f"{config.where}, {folder} opened"


def _smtp(services: Services, credential: Credential) -> str:
    config = replace(smtp_config(credential, services), timeout_seconds=MAIL_SECONDS)
    check_smtp(config)
    return f"{config.where}, logged in"


def _outbox(databases: Databases) -> str:
    require_file(databases.nova)
    with databases.nova.read() as session:
        found, counts = asking(session), count_mails(session)
    if not any(found.values()):
        return ", ".join(f"{counts[name]} {name}" for name in ("sent", "pending", "failed") if counts[name]) or "empty"
    told = [f"{name}: {', '.join(map(str, mails[:10]))}" for name, mails in found.items() if mails]
    raise NeedsPerson(
        f"mails that need a person: {'; '.join(told)}", remedy="nova outbox show N, then nova outbox resolve N"
    )


def _mailbox_checks(settings: Settings, services: Services) -> list[Check]:
    """One for each trouble that an alert would be about; none where all is well, which `IMAP …` says."""
    try:
        require_file(services.databases.nova)
        with services.databases.nova.read() as session:
            troubles = current_troubles(session, Limits.of(settings), utc_now())
    except NovaError:  # a database that cannot be read has a check of its own
        return []
    return [
        Check(f"mailbox {trouble.client} ({trouble.key})", lambda trouble=trouble: _raise(trouble))
        for trouble in troubles
    ]


def _raise(trouble: Trouble) -> str:
    raise TransientError(trouble.message, remedy=trouble.remedy)


def _alerts(settings: Settings, services: Services) -> str:
    """Whether alerts reach anybody, and those that could not be delivered."""
    found, errors = channels(settings, services)
    require_file(services.databases.nova)
    with services.databases.nova.read() as session:
        errors += [f"not delivered by {notice.channel} yet: {notice.error}" for notice in undelivered(session)]
        count = len(open_alerts(session))
    if errors:
        raise TransientError(
            "; ".join(dict.fromkeys(errors)), remedy="correct the NOVA_ALERT_… settings; it is tried again"
        )
    if not found:
        return "nobody is told: set NOVA_ALERT_MAIL_TO or NOVA_ALERT_WEBHOOK_URL (docs/mailbox-health.md)"
    return f"told by {' and '.join(channel.name for channel in found)}, {count} open"


def _webhooks(databases: Databases) -> str:
    require_file(databases.nova)
    with databases.nova.read() as session:
        bad, count = troubled(session), len(list_webhooks(session))
    if bad:
        told = [f"{target} ({again} tried again, {lost} given up): {error}" for _, target, again, lost, error in bad]
        remedy = "look at the receiver; what was given up is tried once more by `nova webhooks retry N`"
        raise TransientError(f"not told: {'; '.join(told)}", remedy=remedy)
    return f"{count} told when executions end" if count else "none"


def _workflows(databases: Databases) -> str:
    require_file(databases.nova)
    with databases.nova.read() as session:
        stored = stored_workflows(session)
    broken = [f"{found.workflow.name}: {found.problem}" for found in stored if found.problem]
    if broken:
        remedy = "correct the definition and load it again: nova workflow load FILE"
        raise ConfigurationError(f"{len(broken)} of {len(stored)} do not compile: {'; '.join(broken)}", remedy=remedy)
    return f"{len(stored)} stored, all compile" if stored else "none is stored yet: nova workflow load FILE"
