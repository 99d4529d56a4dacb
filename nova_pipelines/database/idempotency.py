"""Requests with an Idempotency-Key: the first one is done, the same one again gets the same answer.

After draft-ietf-httpapi-idempotency-key-header. The row is written in the transaction of what was asked for, so
there is no time in which one of the two is there alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from nova_pipelines.database.api_tables import IdempotencyKey
from nova_pipelines.database.session import Database
from nova_pipelines.database.types import utc_now
from nova_pipelines.domain.errors import PermanentError

#: so long an answer is kept; the same key later is a new request
KEPT = timedelta(days=7)
#: old keys that one request takes away
SWEPT = 100


@dataclass(frozen=True, slots=True)
class Request:
    """A request under a key. `sha256`: of what was asked for."""

    principal: str
    key: str
    sha256: str


def do_once(
    nova: Database, request: Request, work: Callable[[Session], tuple[int, dict[str, Any]]]
) -> tuple[dict[str, Any], bool]:
    """The answer to a request, and whether it was given before.

    `work` makes an execution in the session: (its number, the answer). Two equal requests at the same time: one works,
    the other waits for its commit and gets its answer. Raises PermanentError where the key was used for another one.
    """
    known = _known(nova, request)
    if known is not None:
        return known, True
    try:
        with nova.session() as session:
            _sweep(session)
            number, answer = work(session)
            session.add(
                IdempotencyKey(
                    principal=request.principal,
                    key=request.key,
                    request_sha256=request.sha256,
                    execution_id=number,
                    answer=answer,
                )
            )
            session.flush()
            return answer, False
    except IntegrityError:
        known = _known(nova, request)
        if known is None:
            raise
        return known, True


def _known(nova: Database, request: Request) -> dict[str, Any] | None:
    query = select(IdempotencyKey).where(
        IdempotencyKey.principal == request.principal, IdempotencyKey.key == request.key
    )
    with nova.read() as session:
        row = session.scalar(query)
    if row is None:
        return None
    if row.request_sha256 != request.sha256:
        raise PermanentError(
            f"the Idempotency-Key {request.key!r} was used for another request",
            remedy="send a new key with a new request, and the same body with the same key",
        )
    return row.answer


def _sweep(session: Session) -> None:
    old = select(IdempotencyKey.id).where(IdempotencyKey.created_at < utc_now() - KEPT).limit(SWEPT)
    found = session.scalars(old).all()
    if found:
        session.execute(delete(IdempotencyKey).where(IdempotencyKey.id.in_(found)))
