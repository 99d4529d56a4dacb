"""Works an old inbox up: mails of some days, read or not, through the same ledger and store as every other mail.

Can be broken off and repeated at any time: what the ledger has is not taken again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from nova_pipelines.adapters.imap import Mailbox, MailHeader
from nova_pipelines.database.mail_events import record_event
from nova_pipelines.database.nova import Credential, Message
from nova_pipelines.domain.errors import ConfigurationError
from nova_pipelines.nodes.intake import ScanReport, take_in
from nova_pipelines.nodes.mail_download import provider_of
from nova_pipelines.nodes.reconciling import Folder, known_uids
from nova_pipelines.nodes.services import Services

#: mails whose headers are in hand at once
BATCH = 100


@dataclass(frozen=True, slots=True)
class Span:
    """Which mails: of a folder, from one day to another, both included, by the server's INTERNALDATE."""

    credential_id: int
    folder: str
    since: date
    until: date | None = None

    def __post_init__(self) -> None:
        if self.until is not None and self.until < self.since:
            raise ConfigurationError(
                f"{self.until} lies before {self.since}", remedy="give the earlier day to --since, the later to --until"
            )

    @property
    def before(self) -> date | None:
        return self.until + timedelta(days=1) if self.until else None


@dataclass(slots=True)
class Plan:
    """What would be taken. `known`: in the ledger at this very place; `seen_elsewhere` (of those that would be
    taken): probably so under another place, by Message-ID and sender, which the bytes decide."""

    found: int = 0
    known: int = 0
    seen_elsewhere: int = 0
    take: int = 0
    bytes: int = 0
    biggest: int = 0
    too_big: int = 0
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(slots=True)
class Done:
    """What was taken. `left`: mails that this call did not get to, for `limit`."""

    known: int = 0
    vanished: int = 0
    left: int = 0
    report: ScanReport = field(default_factory=ScanReport)


def plan_backfill(services: Services, span: Span, *, limit: int | None = None) -> Plan:
    """Looks and changes nothing, neither in the databases nor in the mailbox.

    Raises TransientError, CredentialError and NotFound as every search does.
    """
    plan = Plan()
    with Mailbox(services.mailbox(span.credential_id)) as mailbox:
        uidvalidity = mailbox.select(span.folder).uidvalidity
        uids = mailbox.received_since(span.since, span.before)
        with services.databases.nova.read() as session:
            known = known_uids(session, Folder(span.credential_id, span.folder, uidvalidity), uids)
        plan.found, plan.known = len(uids), sum(uid in known for uid in uids)
        fresh = [uid for uid in uids if uid not in known][:limit]
        for batch in _batches(fresh):
            headers = list(mailbox.headers(batch).values())
            _count(plan, headers, services.max_mail_bytes)
            with services.databases.nova.read() as session:
                plan.seen_elsewhere += _elsewhere(session, span.credential_id, headers)
    return plan


def run_backfill(
    services: Services,
    span: Span,
    *,
    limit: int | None = None,
    by: str = "",
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Done:
    """Takes the mails in, oldest first, at most `limit`. `progress` is told after each batch (done, of how many).

    Raises what a search raises; what was taken until then stays, and the next call goes on after it.
    """
    done = Done()
    with Mailbox(services.mailbox(span.credential_id)) as mailbox:
        place = Folder(span.credential_id, span.folder, mailbox.select(span.folder).uidvalidity)
        uids = mailbox.received_since(span.since, span.before)
        with services.databases.nova.session() as session:
            known = known_uids(session, place, uids)
            provider = provider_of(session.get_one(Credential, span.credential_id).settings)
            record_event(session, span.credential_id, "backfill", folder=span.folder, detail=_detail(span, uids, by))
        fresh = [uid for uid in uids if uid not in known]
        wanted = fresh[:limit]
        done.known, done.left = len(uids) - len(fresh), len(fresh) - len(wanted)
        for number, batch in enumerate(_batches(wanted)):
            headers = mailbox.headers(batch)
            done.vanished += len(batch) - len(headers)
            for header in headers.values():
                # as if the folder were made anew: a mail may be known from under another UIDVALIDITY
                take_in(services, mailbox, place, header, done.report, provider=provider, anew=True)
            progress(min((number + 1) * BATCH, len(wanted)), len(wanted))
    return done


def _batches(uids: Sequence[int]) -> list[Sequence[int]]:
    return [uids[begin : begin + BATCH] for begin in range(0, len(uids), BATCH)]


def _count(plan: Plan, headers: Sequence[MailHeader], max_bytes: int) -> None:
    for header in headers:
        plan.take += 1
        plan.bytes += header.size
        plan.biggest = max(plan.biggest, header.size)
        plan.too_big += header.size > max_bytes
        at = header.received_at or header.sent_at
        if at is not None:
            plan.oldest, plan.newest = min(plan.oldest or at, at), max(plan.newest or at, at)


def _elsewhere(session: Session, credential_id: int, headers: Sequence[MailHeader]) -> int:
    ids = {header.message_id for header in headers if header.message_id}
    query = select(Message.message_id, Message.sender).where(
        Message.credential_id == credential_id,
        Message.message_id.in_(ids),
        Message.status.not_in(["seen", "quarantined", "gone"]),
    )
    there = {(message_id, sender) for message_id, sender in session.execute(query)}
    return sum((header.message_id, header.sender) in there for header in headers)


def _detail(span: Span, uids: Sequence[int], by: str) -> dict[str, object]:
    return {
        "since": span.since.isoformat(),
        "until": span.until.isoformat() if span.until else None,
        "found": len(uids),
        "by": by,
    }
