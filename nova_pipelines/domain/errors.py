"""The errors of NOVA.

The class of an error alone decides whether work is retried, how the chain of work words it and which
exit code or HTTP status it becomes. Nothing else in the project classifies errors.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


class NovaError(Exception):
    """Base of every error that a user is meant to read.

    `message` says what happened and where; `remedy` says what to do about it.
    """

    exit_code = 1
    http_status = 500
    #: the word that stands in the chain of work (`error: …`)
    word = "error"

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})" if self.remedy else self.message


class TransientError(NovaError):
    """A failure that may pass by itself (a network, a busy server): the work is retried with backoff."""

    http_status = 503
    word = "transient"


class Unavailable(TransientError):
    """A service is known to be down: the work waits and is taken up again `after_seconds`, it does not fail."""

    word = "waits"

    def __init__(self, message: str, *, after_seconds: float, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.after_seconds = after_seconds


class PermanentError(NovaError):
    """A failure that would come again: the item fails with its reason and is not retried by itself."""

    http_status = 422
    word = "failed"


class OutcomeUnknown(NovaError):
    """The work may or may not have been done: it is never repeated blindly, a person decides."""

    http_status = 502
    word = "outcome unknown"


class NeedsPerson(NovaError):
    """What was read is not certain enough to act on: the item waits for a person.

    `context` is what was read so far, for that person to look at.
    """

    http_status = 409
    word = "needs a person"

    def __init__(self, message: str, *, remedy: str | None = None, context: dict[str, object] | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.context = context


class AwaitsDecision(NovaError):
    """The item waits for a person's decision, without a run. Nothing has failed. `until`: the decision's deadline."""

    http_status = 409
    word = "waits for a decision"

    def __init__(self, message: str, *, until: datetime, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.until = until


class CodeError(PermanentError):
    """Code of a user failed, ran too long or gave no usable result. Never counts against the sandbox."""

    word = "code failed"


class CredentialError(PermanentError):
    """Credentials are missing, cannot be decrypted or were refused."""

    http_status = 401
    word = "credentials"


class ConfigurationError(NovaError):
    """A setting, a missing program or an unreachable service keeps NOVA from working."""

    exit_code = 2
    word = "configuration"


class NotFound(NovaError):
    """Something that was asked for by name or number does not exist."""

    exit_code = 3
    http_status = 404
    word = "not found"


class Conflict(NovaError):
    """What was asked for clashes with what is stored."""

    http_status = 409
    word = "conflict"


class Expired(NovaError):
    """What was asked for was to be had until some time, and that is over."""

    http_status = 410
    word = "expired"


#: problems that a message shows; the error carries all
SHOWN_PROBLEMS = 100


def clipped(text: str, longest: int = 80) -> str:
    """`text`, shortened in the middle: what a file says is quoted, but cannot flood a message."""
    return text if len(text) <= longest else f"{text[: longest - 20]}…{text[-19:]}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a definition: `path` is its place (`nodes[3].timeout`)."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.path else self.reason


class DefinitionError(NovaError):
    """A workflow definition is not valid. Carries *all* problems, each with its place."""

    exit_code = 4
    http_status = 422
    word = "definition"

    def __init__(self, problems: list[Problem], *, source: str = "definition") -> None:
        self.problems = problems
        self.source = source
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            lines.append(f"  … and {len(problems) - SHOWN_PROBLEMS} more: correct these first")
        super().__init__("\n".join([f"{source}: {count}", *lines]))
